//! convpc-cli
fn main() {}
