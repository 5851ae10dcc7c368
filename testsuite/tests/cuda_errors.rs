//! What goes wrong with a GPU, each with its message: made by the software device.
#![cfg(target_os = "linux")]

use convpc::{Backend, BackendChoice, ConvPc, CudaBackend, Family, Precision};
use insta::assert_snapshot;
use ndarray::Array2;
use testsuite::software::device;

fn refused() -> String {
    CudaBackend::new(0).err().expect("no device to be opened").to_string()
}

#[test]
fn drivers_and_devices() {
    let device = device();
    device.set_init_error(100);
    assert_snapshot!(refused(), @"no NVIDIA GPU: the driver reports 0 usable device(s), number 0 was asked for; choose one from 0 on, see that nvidia-smi lists it, or choose the backend cpu");
    device.set_init_error(34);
    assert_snapshot!(refused(), @"no NVIDIA driver: the library libcuda could not be loaded; install NVIDIA's driver (535 or newer), or choose the backend cpu");
    device.set_init_error(999);
    assert_snapshot!(refused(), @"the CUDA driver failed to initialise: CUDA_ERROR_UNKNOWN");
    device.set_init_error(0);
    device.set_driver_version(11080);
    assert_snapshot!(refused(), @"the NVIDIA driver is too old: it supports CUDA 11.8, these kernels need CUDA 12.2; install driver 535 or newer, or choose the backend cpu");
    device.set_driver_version(12020);
    device.set_device_count(0);
    assert_snapshot!(refused(), @"no NVIDIA GPU: the driver reports 0 usable device(s), number 0 was asked for; choose one from 0 on, see that nvidia-smi lists it, or choose the backend cpu");
    device.set_device_count(2);
    assert_snapshot!(CudaBackend::new(7).err().unwrap(), @"no NVIDIA GPU: the driver reports 2 usable device(s), number 7 was asked for; choose one from 0 on, see that nvidia-smi lists it, or choose the backend cpu");
    device.set_device_count(1);
    device.set_compute_capability(7, 5);
    assert_snapshot!(refused(), @"CUDA emulator has compute capability 7.5; these kernels need 8.0 (A100, RTX 30) or newer: choose another device with cuda:N, or the backend cpu");
    device.set_compute_capability(8, 0);
    assert!(CudaBackend::new(0).is_ok());
    // The same through the name of a backend.
    let choice: BackendChoice = "cuda:3".parse().unwrap();
    assert_snapshot!(choice.open(None, Precision::F32).err().unwrap(), @"backend cuda: no NVIDIA GPU: the driver reports 1 usable device(s), number 3 was asked for; choose one from 0 on, see that nvidia-smi lists it, or choose the backend cpu");
    // Of several all must be there.
    let choice: BackendChoice = "cuda:0,1".parse().unwrap();
    assert_snapshot!(choice.open(None, Precision::F32).err().unwrap(), @"backend cuda: no NVIDIA GPU: the driver reports 1 usable device(s), number 1 was asked for; choose one from 0 on, see that nvidia-smi lists it, or choose the backend cpu");
}

#[test]
fn kernels_that_the_driver_refuses() {
    let device = device();
    device.fail_call("cuModuleLoadData", 1, 222);
    assert_snapshot!(refused(), @"the driver refuses the kernels of choose (CUDA_ERROR_UNSUPPORTED_PTX_VERSION); they are built for drivers of CUDA 12.2 or newer: update the driver, and report it if that does not help");
}

/// Bytes depend on what else is in memory.
fn without_numbers(error: convpc::Error) -> String {
    let text = error.to_string();
    let words = text.split(' ').map(|word| if word.parse::<u64>().is_ok() { "N" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

#[test]
fn memory() {
    let device = device();
    let circuit = ConvPc::new(8, 8, 1, Family::normal()).channels(64).build(1).unwrap();
    let backend = CudaBackend::new(0).unwrap();
    device.set_memory(device.memory().in_use + 100_000);
    assert_snapshot!(without_numbers(backend.load(&circuit).err().unwrap()), @"backend cuda: out of device memory: N bytes are needed for the circuit's parameters, N are free; choose a smaller circuit, free memory on the device, or choose the backend cpu");
    device.set_memory(1 << 30);
    let executable = backend.load(&circuit).unwrap();
    device.set_memory(device.memory().in_use + 100_000);
    let data = Array2::zeros((5, 64));
    assert_snapshot!(without_numbers(executable.log_likelihood(data.view()).unwrap_err()), @"backend cuda: out of device memory: N bytes are needed for a batch of N rows, N are free; choose a smaller circuit, free memory on the device, or choose the backend cpu");
    // With memory it goes on.
    device.set_memory(1 << 30);
    assert!(executable.log_likelihood(data.view()).is_ok());
    // Where there is no room for a batch, what was counted before stays.
    let mut executable = backend.load(&circuit).unwrap();
    executable.accumulate(data.view()).unwrap();
    let counted = executable.statistics().unwrap();
    let mut other = backend.load(&circuit).unwrap();
    device.set_memory(device.memory().in_use + 1_000);
    assert_snapshot!(without_numbers(other.accumulate(data.view()).unwrap_err()), @"backend cuda: out of device memory: N bytes are needed for the circuit's parameters, N are free; choose a smaller circuit, free memory on the device, or choose the backend cpu");
    assert_eq!(executable.statistics().unwrap(), counted);
    device.set_memory(device.memory().in_use + 1_000_000);
    let many = Array2::zeros((300, 64));
    let seen = executable.accumulate(many.view()).map(|seen| seen.rows);
    assert_eq!(seen, Ok(300), "in parts, within the memory that is there");
}

#[test]
fn a_launch_that_fails() {
    let device = device();
    let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(4).build(1).unwrap();
    let executable = CudaBackend::new(0).unwrap().load(&circuit).unwrap();
    let data = Array2::zeros((5, 16));
    device.fail_call("cuLaunchKernel", 2, 701);
    assert_snapshot!(executable.log_likelihood(data.view()).unwrap_err(), @"backend cuda: the CUDA driver failed to launch a kernel: CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES");
    device.fail_call("cuStreamSynchronize", 1, 719);
    let _ = executable.evaluate(data.view(), Default::default());
    assert!(executable.log_likelihood(data.view()).is_ok(), "an error that passes leaves nothing behind");
}

/// Data are checked as everywhere, before anything is started.
#[test]
fn data_that_do_not_fit() {
    let _device = device();
    let circuit = ConvPc::new(4, 4, 1, Family::bernoulli()).channels(4).build(1).unwrap();
    let executable = CudaBackend::new(0).unwrap().load(&circuit).unwrap();
    assert_snapshot!(executable.log_likelihood(Array2::from_elem((1, 16), 2.0).view()).unwrap_err(), @"row 0, variable 0: 2 is outside the support of bernoulli, 0 or 1; NaN marks a missing value");
}
