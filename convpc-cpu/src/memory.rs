/// Values of four bytes that begin on a cache line: the SIMD loops run up to a third slower on buffers that do not.
#[derive(Debug, Default)]
pub(crate) struct Aligned<T = f32> {
    values: Vec<T>,
    start: usize,
    len: usize,
}

impl<T: Copy + Default> Aligned<T> {
    pub(crate) fn zeros(len: usize) -> Self {
        let values = vec![T::default(); len + 16];
        let start = values.as_ptr().align_offset(64).min(16);
        Aligned { values, start, len }
    }

    /// A buffer of at least `len` values; what it holds is unspecified.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Aligned::zeros(len);
        }
        &mut self.as_mut()[..len]
    }

    pub(crate) fn as_mut(&mut self) -> &mut [T] {
        &mut self.values[self.start..self.start + self.len]
    }

    pub(crate) fn as_ref(&self) -> &[T] {
        &self.values[self.start..self.start + self.len]
    }
}
