use cudarc::driver::{CudaSlice, DevicePtr, DeviceRepr, DriverError, PinnedHostSlice, ValidAsZeroBits, sys};

use super::{device::failed, queue::Queue};
use crate::error::CudaError;

/// What a buffer holds: plain numbers and structs of them, valid whatever their bits.
pub(crate) trait Word: DeviceRepr + ValidAsZeroBits + Copy {}

impl Word for f32 {}
impl Word for u32 {}
impl Word for u64 {}
impl Word for f64 {}

/// What memory is needed for.
#[derive(Clone, Copy)]
pub(crate) enum Need {
    /// Parameters and tables: as many whatever the batch.
    Circuit,
    /// The data and activations of so many rows.
    Rows(usize),
}

impl Need {
    /// The error where `needed` bytes are not there.
    pub(crate) fn unmet(self, needed: u64, free: u64) -> CudaError {
        let (what, advice) = match self {
            Need::Circuit => ("the circuit's parameters".into(), "choose a smaller circuit".into()),
            Need::Rows(rows) => {
                let fit = (rows as u64).saturating_mul(free) / needed.max(1);
                let advice =
                    if fit == 0 { "choose a smaller circuit".into() } else { format!("give at most {fit} rows") };
                (format!("a batch of {rows} rows"), advice)
            }
        };
        CudaError::OutOfMemory { what, needed, free, advice }
    }
}

/// Device memory.
pub(crate) struct Buffer<T: Word>(CudaSlice<T>);

/// Host memory that the device copies from and to by itself.
pub(crate) struct Pinned<T: Word>(PinnedHostSlice<T>);

impl Queue {
    /// Memory whose contents are unspecified until something is written to it.
    pub(crate) fn allocate<T: Word>(&self, len: usize, need: Need) -> Result<Buffer<T>, CudaError> {
        // SAFETY: any bits are a valid T, and every launch and copy writes before it reads.
        let slice = unsafe { self.compute().alloc::<T>(len.max(1)) };
        let slice = slice.map_err(|error| self.no_memory(error, len * size_of::<T>(), need))?;
        // Allocation is ordered in the stream of kernels; uploads come from another.
        self.upload_after_compute()?;
        Ok(Buffer(slice))
    }

    /// Memory with a copy of `values`.
    pub(crate) fn upload_new<T: Word>(&self, values: &[T], need: Need) -> Result<Buffer<T>, CudaError> {
        let mut buffer = self.allocate(values.len(), need)?;
        self.replace(&mut buffer, values)?;
        Ok(buffer)
    }

    /// Copies `values` to the beginning of a buffer, after what runs now and before what is launched next.
    pub(crate) fn replace<T: Word>(&self, buffer: &mut Buffer<T>, values: &[T]) -> Result<(), CudaError> {
        let mut to = buffer.0.slice_mut(..values.len());
        self.compute().memcpy_htod(values, &mut to).map_err(failed("copy to the device"))
    }

    /// Sets all values to zero, after what runs now and before what is launched next.
    pub(crate) fn clear<T: Word>(&self, buffer: &mut Buffer<T>) -> Result<(), CudaError> {
        self.compute().memset_zeros(&mut buffer.0).map_err(failed("clear memory"))
    }

    /// Copies pinned memory to the beginning of a buffer, beside the kernels that run.
    pub(crate) fn upload_pinned<T: Word>(
        &self,
        buffer: &mut Buffer<T>,
        from: &Pinned<T>,
        len: usize,
    ) -> Result<(), CudaError> {
        let mut to = buffer.0.slice_mut(..len);
        // cudarc copies as much as the source has; the destination is cut to what there is.
        let from = from.0.as_slice().map_err(failed("wait for a copy"))?;
        self.upload().memcpy_htod(&from[..len], &mut to).map_err(failed("copy to the device"))
    }

    /// Copies the beginning of a buffer to the host, and waits for it.
    pub(crate) fn download<T: Word>(&self, buffer: &Buffer<T>, len: usize) -> Result<Vec<T>, CudaError> {
        let view = buffer.0.slice(..len);
        let values = self.compute().clone_dtoh(&view).map_err(failed("copy from the device"))?;
        self.compute().synchronize().map_err(failed("finish a computation"))?;
        Ok(values)
    }

    /// Copies the beginning of a buffer into pinned memory at `start`, after what was launched; wait for a mark to read it.
    pub(crate) fn download_pinned<T: Word>(
        &self,
        buffer: &Buffer<T>,
        to: &mut Pinned<T>,
        start: usize,
        len: usize,
    ) -> Result<(), CudaError> {
        let to = to.0.as_mut_slice().map_err(failed("wait for a copy"))?;
        let view = buffer.0.slice(..len);
        self.compute().memcpy_dtoh(&view, &mut to[start..start + len]).map_err(failed("copy from the device"))
    }

    /// Pinned host memory, set to zero.
    pub(crate) fn pinned<T: Word>(&self, len: usize) -> Result<Pinned<T>, CudaError> {
        // SAFETY: any bits are a valid T, and the values are set below.
        let slice = unsafe { self.context().alloc_pinned_with_flags::<T>(len.max(1), 0) };
        let mut pinned = Pinned(slice.map_err(failed("reserve pinned host memory"))?);
        // SAFETY: all-zero bits are a T, says the bound.
        pinned.0.as_mut_slice().map_err(failed("wait for a copy"))?.fill(unsafe { std::mem::zeroed() });
        Ok(pinned)
    }

    fn no_memory(&self, error: DriverError, bytes: usize, need: Need) -> CudaError {
        if error.0 != sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY {
            return failed("reserve memory")(error);
        }
        need.unmet(bytes as u64, self.free_memory().unwrap_or(0))
    }
}

impl<T: Word> Buffer<T> {
    /// The address that kernels are given.
    pub(crate) fn address(&self) -> u64 {
        // Without event tracking the guard has nothing to record.
        let (address, _guard) = self.0.device_ptr(self.0.stream());
        address
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

impl<T: Word> Pinned<T> {
    /// The values; no copy to or from them may be under way.
    pub(crate) fn values(&mut self) -> Result<&mut [T], CudaError> {
        self.0.as_mut_slice().map_err(failed("wait for a copy"))
    }
}
