//! Gives the shared library the name under which CUDA programs look for the driver.
//!
//! A library that is already loaded satisfies `dlopen("libcuda.so")` if its SONAME says so, wherever its file lies. No
//! search path has to be changed, and no file called libcuda.so exists that another program could pick up.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() == Ok("linux") {
        println!("cargo:rustc-cdylib-link-arg=-Wl,-soname,libcuda.so");
    }
}
