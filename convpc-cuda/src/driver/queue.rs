use std::{ops::Deref, sync::Arc};

use cudarc::driver::{CudaEvent, CudaStream, DeviceRepr, LaunchConfig, PushKernelArg};

use super::device::{Device, failed};
use crate::{error::CudaError, params};

/// The parameters of a kernel, passed by value.
///
/// # Safety
/// The layout is that of the C struct that the kernel takes.
pub(crate) unsafe trait Arguments: Copy {}

macro_rules! arguments {
    ($($name:ident),*) => { $(
        // SAFETY: generated from the header that the kernel includes, sizes and offsets asserted at compile time.
        unsafe impl Arguments for params::$name {}
    )* };
}

arguments!(
    ConvpcFused,
    ConvpcRows,
    ConvpcDown,
    ConvpcRootFlow,
    ConvpcLabelFlow,
    ConvpcCounts,
    ConvpcAddParts,
    ConvpcAddRows,
    ConvpcFoldLeaves,
    ConvpcLeafCounts,
    ConvpcLayLeaves,
    ConvpcLeafUpdate,
    ConvpcWeightUpdate,
    ConvpcAverage,
    ConvpcSquares,
    ConvpcTopDown,
    ConvpcPoolTopDown,
    ConvpcChoose,
    ConvpcDraw,
    ConvpcTranspose,
    ConvpcPack
);

/// Passes a struct through cudarc, which wants its own trait.
#[derive(Clone, Copy)]
#[repr(transparent)]
struct Passed<A>(A);

// SAFETY: the layout is that of `A`, which is the kernel's.
unsafe impl<A: Arguments> DeviceRepr for Passed<A> {}

/// A device with streams of its own: what one executable launches and copies is ordered among itself only, and no other thread
/// gets in between while a graph is recorded.
pub(crate) struct Queue {
    device: Arc<Device>,
    /// Kernels run here.
    compute: Arc<CudaStream>,
    /// Data arrive here, so that they can do so while kernels run.
    upload: Arc<CudaStream>,
}

impl Deref for Queue {
    type Target = Device;

    fn deref(&self) -> &Device {
        &self.device
    }
}

impl Queue {
    pub(crate) fn new(device: Arc<Device>) -> Result<Self, CudaError> {
        let stream = || device.context().new_stream().map_err(failed("make a stream"));
        Ok(Queue { compute: stream()?, upload: stream()?, device })
    }

    pub(super) fn compute(&self) -> &Arc<CudaStream> {
        &self.compute
    }

    pub(super) fn upload(&self) -> &Arc<CudaStream> {
        &self.upload
    }

    /// Starts a kernel. The caller passes addresses of buffers that are large enough for the launch; the tests run every
    /// launch on a device that checks each access.
    pub(crate) fn launch<A: Arguments>(
        &self,
        kernel: &str,
        arguments: A,
        blocks: usize,
        shared_bytes: usize,
    ) -> Result<(), CudaError> {
        let function = self.function(kernel);
        let blocks = u32::try_from(blocks).ok().filter(|&n| n <= i32::MAX as u32);
        let blocks = blocks.ok_or(CudaError::TooLarge { what: "the number of blocks" })?;
        let config = LaunchConfig {
            grid_dim: (blocks, 1, 1),
            block_dim: (params::CONVPC_THREADS, 1, 1),
            shared_mem_bytes: shared_bytes as u32,
        };
        // SAFETY: the kernel takes one struct, of the type that `Arguments` vouches for; see above for the addresses.
        unsafe { self.compute.launch_builder(function).arg(&Passed(arguments)).launch(config) }
            .map_err(failed("launch a kernel"))?;
        Ok(())
    }

    /// Kernels that start from now on wait for the uploads up to now.
    pub(crate) fn compute_after_upload(&self) -> Result<(), CudaError> {
        let event = self.upload.record_event(None).map_err(failed("record an event"))?;
        self.compute.wait(&event).map_err(failed("order streams"))
    }

    /// Uploads that start from now on wait for the kernels up to now.
    pub(crate) fn upload_after_compute(&self) -> Result<(), CudaError> {
        let event = self.compute.record_event(None).map_err(failed("record an event"))?;
        self.upload.wait(&event).map_err(failed("order streams"))
    }

    /// A mark in the stream of kernels and downloads.
    pub(crate) fn mark(&self) -> Result<Mark, CudaError> {
        Ok(Mark(self.compute.record_event(None).map_err(failed("record an event"))?))
    }

    /// Waits for everything.
    pub(crate) fn synchronize(&self) -> Result<(), CudaError> {
        self.upload.synchronize().and_then(|()| self.compute.synchronize()).map_err(failed("finish a computation"))
    }
}

/// A point in the stream that can be waited for.
pub(crate) struct Mark(CudaEvent);

impl Mark {
    pub(crate) fn wait(&self) -> Result<(), CudaError> {
        self.0.synchronize().map_err(failed("finish a computation"))
    }
}
