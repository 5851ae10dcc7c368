//! The software device behind cudarc, which a program uses as it uses a GPU.
#![cfg(target_os = "linux")]
#![allow(unsafe_code, reason = "cudarc's launches and raw calls")]

use std::sync::Arc;

use cudarc::driver::sys::CUevent_flags::CU_EVENT_DEFAULT;
use cudarc::driver::sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
use cudarc::driver::sys::CUresult::{self, *};
use cudarc::driver::sys::CUstreamCaptureMode::{CU_STREAM_CAPTURE_MODE_GLOBAL, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL};
use cudarc::driver::sys::{CUdevice_attribute, CUgraphInstantiate_flags, is_culib_present};
use cudarc::driver::{
    CudaContext, CudaFunction, CudaSlice, CudaStream, DevicePtr, DeviceRepr, DriverError, LaunchConfig, PushKernelArg,
    result,
};
use cudarc::nvrtc::Ptx;
use emulator::{Exclusive, Order, Settings};

const TEXT: &str = include_str!("ptx/driver.ptx");

fn device() -> Exclusive {
    emulator::install().unwrap_or_else(|error| panic!("{error}")).exclusive()
}

/// What the kernel `scale` takes.
#[derive(Clone, Copy)]
#[repr(C)]
struct Scale {
    out: u64,
    input: u64,
    n: u32,
    factor: f32,
}

// SAFETY: the layout is that of the struct in the PTX text.
unsafe impl DeviceRepr for Scale {}

/// A context with a stream and the kernels.
struct Gpu {
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    scale: CudaFunction,
    indices: CudaFunction,
}

impl Gpu {
    fn new() -> Self {
        // SAFETY: looks for the library.
        assert!(unsafe { is_culib_present() });
        let context = CudaContext::new(0).unwrap();
        // SAFETY: nothing is allocated yet, and there is one stream unless a test says otherwise.
        unsafe { context.disable_event_tracking() };
        let module = context.load_module(Ptx::from_src(TEXT)).unwrap();
        let stream = context.new_stream().unwrap();
        let (scale, indices) = (module.load_function("scale").unwrap(), module.load_function("indices").unwrap());
        Self { context, stream, scale, indices }
    }

    fn run(&self, out: &CudaSlice<f32>, input: &CudaSlice<f32>, n: u32, factor: f32) -> Result<(), DriverError> {
        let (out, _guard) = out.device_ptr(&self.stream);
        let (input, _guard) = input.device_ptr(&self.stream);
        let config = LaunchConfig { grid_dim: (n.div_ceil(128), 1, 1), block_dim: (128, 1, 1), shared_mem_bytes: 0 };
        // SAFETY: the kernel takes this struct; the device checks every access.
        unsafe { self.stream.launch_builder(&self.scale).arg(&Scale { out, input, n, factor }).launch(config) }?;
        Ok(())
    }

    fn fill_indices(&self, out: &mut CudaSlice<u32>, threads: u32, shared: u32) -> Result<(), DriverError> {
        let config = LaunchConfig { grid_dim: (1, 1, 1), block_dim: (threads, 1, 1), shared_mem_bytes: shared };
        // SAFETY: the kernel takes a pointer; the device checks every access.
        unsafe { self.stream.launch_builder(&self.indices).arg(out).launch(config) }?;
        Ok(())
    }
}

fn code<T>(result: Result<T, DriverError>) -> CUresult {
    result.err().map_or(CUDA_SUCCESS, |error| error.0)
}

fn report(device: &Exclusive) -> String {
    device.last_report().unwrap_or_default()
}

#[test]
fn a_kernel_with_a_struct() {
    let device = device();
    let before = device.memory();
    {
        let gpu = Gpu::new();
        let values: Vec<f32> = (0..1000u16).map(f32::from).collect();
        let input = gpu.stream.clone_htod(&values).unwrap();
        let out = gpu.stream.alloc_zeros::<f32>(1000).unwrap();
        gpu.run(&out, &input, 1000, 0.5).unwrap();
        let result = gpu.stream.clone_dtoh(&out).unwrap();
        gpu.stream.synchronize().unwrap();
        assert!(result.iter().zip(&values).all(|(y, x)| *y == 0.5 * x + 2.0));

        let counts = device.counts();
        let [(name, stats)] = &counts[..] else { panic!("{counts:?}") };
        assert_eq!((name.as_str(), stats.launches, stats.fma), ("scale", 1, 1000));
        assert_eq!((stats.global_load_bytes, stats.global_store_bytes), (8000, 4000));

        let copy = gpu.stream.clone_dtod(&out).unwrap();
        assert_eq!(gpu.stream.clone_dtoh(&copy).unwrap(), result);
        let use_ = device.memory();
        assert_eq!((use_.in_use, use_.allocations), (12000, 3));
        assert_eq!(use_.allocated_ever, before.allocated_ever + 3);
    }
    let after = device.memory();
    assert_eq!((after.in_use, after.allocations, after.pinned, after.objects), (0, 0, 0, 0));
    assert_eq!(after.peak, 12000);
}

#[test]
fn every_thread_order() {
    let device = device();
    let gpu = Gpu::new();
    let mut out = gpu.stream.alloc_zeros::<u32>(100).unwrap();
    for order in Order::ALL {
        device.configure(&Settings { order, races: true, ..Settings::default() });
        gpu.stream.memset_zeros(&mut out).unwrap();
        gpu.fill_indices(&mut out, 100, 400).unwrap();
        assert!(gpu.stream.clone_dtoh(&out).unwrap().iter().copied().eq(0..100));
    }
}

#[test]
fn pinned_memory_and_events() {
    let device = device();
    let gpu = Gpu::new();
    let start = gpu.stream.record_event(Some(CU_EVENT_DEFAULT)).unwrap();
    // SAFETY: written before it is read.
    let mut pinned = unsafe { gpu.context.alloc_pinned_with_flags::<f32>(64, 0) }.unwrap();
    assert_eq!(device.memory().pinned, 256);
    pinned.as_mut_slice().unwrap().fill(3.0);
    let mut input = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    gpu.stream.memcpy_htod(&pinned, &mut input).unwrap();
    let out = gpu.stream.alloc_zeros::<f32>(64).unwrap();
    gpu.run(&out, &input, 64, 2.0).unwrap();
    gpu.stream.memcpy_dtoh(&out, &mut pinned).unwrap();
    let end = gpu.stream.record_event(Some(CU_EVENT_DEFAULT)).unwrap();
    assert!(start.elapsed_ms(&end).unwrap() > 0.0);
    assert!(end.is_complete());
    assert!(pinned.as_slice().unwrap().iter().all(|x| *x == 8.0));
    let untimed = gpu.stream.record_event(None).unwrap();
    assert_eq!(code(start.elapsed_ms(&untimed)), CUDA_ERROR_INVALID_HANDLE);
}

#[test]
fn graphs_run_when_they_are_launched() {
    let device = device();
    {
        let gpu = Gpu::new();
        let mut input = gpu.stream.alloc_zeros::<f32>(8).unwrap();
        let mut out = gpu.stream.alloc_zeros::<f32>(8).unwrap();
        gpu.stream.synchronize().unwrap();
        gpu.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        gpu.stream.memset_zeros(&mut out).unwrap();
        gpu.run(&out, &input, 4, 10.0).unwrap();
        let graph = gpu.stream.end_capture(CUgraphInstantiate_flags(0)).unwrap().unwrap();
        graph.upload().unwrap();
        assert!(device.counts().is_empty(), "recorded, not run");
        for value in [1.0, 2.0] {
            gpu.stream.memcpy_htod(&[value; 8], &mut input).unwrap();
            graph.launch().unwrap();
            let (y, rest) = (10.0 * value + 2.0, 0.0);
            assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), [y, y, y, y, rest, rest, rest, rest]);
        }
        assert_eq!(device.counts()[0].1.launches, 2);

        // A recording of one thread lets others load modules, which spoils that of all threads.
        for (mode, allowed) in [(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL, true), (CU_STREAM_CAPTURE_MODE_GLOBAL, false)] {
            gpu.stream.begin_capture(mode).unwrap();
            let load = || gpu.context.load_module(Ptx::from_src(TEXT)).is_ok();
            let loaded = std::thread::scope(|scope| scope.spawn(load).join().unwrap());
            assert_eq!(loaded, allowed, "{mode:?}");
            gpu.run(&out, &input, 4, 1.0).ok();
            assert_eq!(gpu.stream.end_capture(CUgraphInstantiate_flags(0)).is_ok(), allowed, "{mode:?}");
        }

        // What may not be recorded spoils the recording.
        gpu.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        assert_eq!(code(gpu.stream.synchronize()), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
        assert_eq!(code(gpu.run(&out, &input, 4, 1.0)), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        let end = gpu.stream.end_capture(CUgraphInstantiate_flags(0));
        assert_eq!(code(end), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
        assert_eq!(code(gpu.context.default_stream().begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)), {
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
        });
        let outside = gpu.stream.record_event(None).unwrap();
        gpu.stream.begin_capture(CU_STREAM_CAPTURE_MODE_THREAD_LOCAL).unwrap();
        assert_eq!(code(gpu.stream.wait(&outside)), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
        assert!(gpu.stream.end_capture(CUgraphInstantiate_flags(0)).is_err());
    }
    assert_eq!((device.memory().allocations, device.memory().objects), (0, 0));
}

#[test]
fn no_device_and_old_drivers() {
    let device = device();
    for error in [100, 34, 999] {
        device.set_init_error(error);
        assert_eq!(code(CudaContext::new(0)) as i32, error);
    }
    device.set_init_error(0);
    device.set_device_count(0);
    assert_eq!(CudaContext::device_count().unwrap(), 0);
    device.set_device_count(2);
    assert_eq!(code(CudaContext::new(2)), CUDA_ERROR_INVALID_DEVICE);
    device.set_driver_version(11080);
    let context = CudaContext::new(1).unwrap();
    assert_eq!(code(context.load_module(Ptx::from_src(TEXT))), CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    assert!(report(&device).contains("PTX ISA 8.2, but the driver understands 7.8"), "{}", report(&device));
    device.set_driver_version(12020);
    device.set_compute_capability(7, 5);
    assert_eq!(context.compute_capability().unwrap(), (7, 5));
    assert_eq!(code(context.load_module(Ptx::from_src(TEXT))), CUDA_ERROR_NO_BINARY_FOR_GPU);
}

#[test]
fn what_the_device_says_of_itself() {
    let _device = device();
    let gpu = Gpu::new();
    let attribute = |which| gpu.context.attribute(which).unwrap();
    assert_eq!(gpu.context.name().unwrap(), "CUDA emulator");
    assert_eq!(gpu.context.compute_capability().unwrap(), (9, 0));
    assert_eq!(attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT), 132);
    assert_eq!(attribute(CUdevice_attribute::CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN), 232_448);
    assert_eq!(gpu.context.total_mem().unwrap(), 8 << 30);
    assert_eq!(gpu.indices.occupancy_max_active_blocks_per_multiprocessor(256, 100 << 10, None).unwrap(), 2);
    assert_eq!(format!("{}", DriverError(CUDA_ERROR_NO_DEVICE)), {
        "DriverError(CUDA_ERROR_NO_DEVICE, \"no CUDA-capable device is detected\")"
    });
    assert_eq!(DriverError(CUDA_ERROR_STUB_LIBRARY).error_name().unwrap().to_str(), Ok("CUDA_ERROR_STUB_LIBRARY"));
}

#[test]
fn memory_runs_out() {
    let device = device();
    let gpu = Gpu::new();
    device.set_memory(10_000);
    assert_eq!(gpu.context.mem_get_info().unwrap(), (10_000, 10_000));
    let first = gpu.stream.alloc_zeros::<u8>(6000).unwrap();
    assert_eq!(code(gpu.stream.alloc_zeros::<u8>(6000)), CUDA_ERROR_OUT_OF_MEMORY);
    assert!(report(&device).contains("6000 bytes wanted, 4000 free"), "{}", report(&device));
    drop(first);
    assert!(gpu.stream.alloc_zeros::<u8>(6000).is_ok());
    device.fail_call("cuMemAllocAsync", 2, 2);
    let second = gpu.stream.alloc_zeros::<u8>(1).unwrap();
    assert_eq!(code(gpu.stream.alloc_zeros::<u8>(1)), CUDA_ERROR_OUT_OF_MEMORY);
    assert!(gpu.stream.alloc_zeros::<u8>(1).is_ok());
    drop(second);
    assert_eq!(device.memory().in_use, 0);
}

#[test]
fn ptx_that_is_not_understood() {
    let device = device();
    let gpu = Gpu::new();
    let broken = TEXT.replace("fma.rn.f32", "fma.sideways.f32");
    assert_eq!(code(gpu.context.load_module(Ptx::from_src(broken))), CUDA_ERROR_INVALID_PTX);
    let line = TEXT.lines().position(|line| line.contains("fma.rn")).unwrap() + 1;
    assert!(report(&device).contains(&format!("line {line}")), "{}", report(&device));
    let module = gpu.context.load_module(Ptx::from_src(TEXT)).unwrap();
    assert_eq!(code(module.load_function("nothing")), CUDA_ERROR_NOT_FOUND);
}

#[test]
fn launches_that_are_not_allowed() {
    let device = device();
    let gpu = Gpu::new();
    let mut out = gpu.stream.alloc_zeros::<u32>(2048).unwrap();
    assert_eq!(code(gpu.fill_indices(&mut out, 1025, 8192)), CUDA_ERROR_INVALID_VALUE);
    assert_eq!(code(gpu.fill_indices(&mut out, 32, 50_000)), CUDA_ERROR_INVALID_VALUE);
    assert!(report(&device).contains("50000 bytes of shared memory"), "{}", report(&device));
    let dynamic = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    assert_eq!(code(gpu.indices.set_attribute(dynamic, 232_449)), CUDA_ERROR_INVALID_VALUE);
    gpu.indices.set_attribute(dynamic, 232_448).unwrap();
    gpu.fill_indices(&mut out, 32, 50_000).unwrap();
    // Refused launches leave nothing behind.
    gpu.stream.synchronize().unwrap();
}

#[test]
fn a_kernel_that_leaves_its_buffer() {
    let device = device();
    {
        let gpu = Gpu::new();
        let input = gpu.stream.alloc_zeros::<f32>(300).unwrap();
        let out = gpu.stream.alloc_zeros::<f32>(261).unwrap();
        assert_eq!(code(gpu.run(&out, &input, 300, 1.0)), CUDA_ERROR_ILLEGAL_ADDRESS);
        let line = TEXT.lines().position(|line| line.contains("st.global.f32")).unwrap() + 1;
        let report = report(&device);
        for part in [
            "cuLaunchKernel",
            "OutOfBounds",
            "kernel scale",
            &format!("PTX line {line}: `st.global.f32"),
            "block (2, 0, 0)",
            "thread (5, 0, 0)",
            "1044 bytes into an allocation of 1044",
        ] {
            assert!(report.contains(part), "no `{part}` in: {report}");
        }
        // Everything fails from now on, with the first report kept.
        assert_eq!(code(gpu.stream.synchronize()), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(code(gpu.stream.clone_dtoh(&out)), CUDA_ERROR_ILLEGAL_ADDRESS);
        assert_eq!(device.last_report().as_deref(), Some(report.as_str()));
        device.reset();
        gpu.stream.synchronize().unwrap();
        assert_eq!(device.last_report(), None);
    }
    assert_eq!(device.memory().allocations, 0);
}

#[test]
fn memory_that_was_never_written() {
    let device = device();
    let gpu = Gpu::new();
    // SAFETY: any bits are numbers.
    let input = unsafe { gpu.stream.alloc::<f32>(4) }.unwrap();
    let out = gpu.stream.alloc_zeros::<f32>(4).unwrap();
    assert_eq!(code(gpu.run(&out, &input, 4, 1.0)), CUDA_ERROR_ILLEGAL_ADDRESS);
    assert!(report(&device).contains("Uninitialised"), "{}", report(&device));
    device.reset();
    // A copy does not write what its source lacks.
    let copy = gpu.stream.clone_dtod(&input).unwrap();
    assert_eq!(code(gpu.run(&out, &copy, 4, 1.0)), CUDA_ERROR_ILLEGAL_ADDRESS);
    device.reset();
    device.configure(&Settings { strict: false, ..Settings::default() });
    gpu.run(&out, &input, 4, 1.0).unwrap();
    assert!(gpu.stream.clone_dtoh(&out).unwrap().iter().all(|x| x.is_nan()));
}

#[test]
fn copies_outside_allocations_and_stale_handles() {
    let device = device();
    let gpu = Gpu::new();
    let slice = gpu.stream.alloc_zeros::<f32>(4).unwrap();
    // The copies below are on the default stream.
    gpu.stream.synchronize().unwrap();
    let (address, _guard) = slice.device_ptr(&gpu.stream);
    // SAFETY: the device checks every access.
    let copy = |address| unsafe { result::memcpy_dtoh_sync(&mut [0.0f32; 4], address) };
    assert_eq!(code(copy(address)), CUDA_SUCCESS);
    assert_eq!(code(copy(address + 4)), CUDA_ERROR_INVALID_VALUE);
    assert!(report(&device).contains("4 bytes into an allocation of 16"), "{}", report(&device));
    drop(_guard);
    drop(slice);
    assert_eq!(code(copy(address)), CUDA_ERROR_INVALID_VALUE);
    assert!(report(&device).contains("that was freed"), "{}", report(&device));
    // SAFETY: the device checks handles.
    unsafe {
        assert_eq!(code(result::free_sync(address)), CUDA_ERROR_INVALID_VALUE);
        assert_eq!(code(result::event::destroy(0x12345 as _)), CUDA_ERROR_INVALID_HANDLE);
        assert_eq!(code(result::stream::synchronize(0x12345 as _)), CUDA_ERROR_INVALID_HANDLE);
    }
}

#[test]
fn streams_need_events_between_them() {
    let device = device();
    let gpu = Gpu::new();
    let upload = gpu.context.new_stream().unwrap();
    let mut input = gpu.stream.alloc_zeros::<f32>(8).unwrap();
    let out = gpu.stream.alloc_zeros::<f32>(8).unwrap();
    assert_eq!(code(upload.memcpy_htod(&[1.0; 8], &mut input)), CUDA_ERROR_LAUNCH_FAILED);
    assert!(report(&device).contains("an event or a synchronisation is missing"), "{}", report(&device));
    upload.wait(&gpu.stream.record_event(None).unwrap()).unwrap();
    upload.memcpy_htod(&[1.0; 8], &mut input).unwrap();
    assert_eq!(code(gpu.run(&out, &input, 8, 1.0)), CUDA_ERROR_LAUNCH_FAILED);
    gpu.stream.wait(&upload.record_event(None).unwrap()).unwrap();
    gpu.run(&out, &input, 8, 1.0).unwrap();
    gpu.stream.synchronize().unwrap();
    upload.memcpy_htod(&[1.0; 8], &mut input).unwrap();
    upload.synchronize().unwrap();
}

#[test]
fn texts_can_be_replaced() {
    const VARIABLE: &str = "CONVPC_EMULATOR_PTX";
    if std::env::var_os(VARIABLE).is_none() {
        // Once more in a process of its own, with the variable.
        let folder = std::env::temp_dir().join(format!("emulator-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join("driver.ptx"), TEXT.replace("0f40000000", "0f40400000")).unwrap();
        let mut again = std::process::Command::new(std::env::current_exe().unwrap());
        again.args(["texts_can_be_replaced", "--exact"]).env(VARIABLE, &folder);
        let output = again.output().unwrap();
        std::fs::remove_dir_all(&folder).unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        return;
    }
    let _device = device();
    let gpu = Gpu::new();
    let input = gpu.stream.clone_htod(&[1.0f32]).unwrap();
    let out = gpu.stream.alloc_zeros::<f32>(1).unwrap();
    gpu.run(&out, &input, 1, 1.0).unwrap();
    assert_eq!(gpu.stream.clone_dtoh(&out).unwrap(), [4.0]);
}
