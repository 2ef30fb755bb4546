//! Floats that begin on a cache line, so that no vector of them reaches over two: to read or write such a vector takes
//! twice as long, and what training does is mostly that or products.

use std::ops::{Deref, DerefMut};

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// As many floats as it was made with, the first at the beginning of a cache line.
#[derive(Debug, Default)]
pub struct Buffer {
    /// The floats, and before and behind them what lacks to whole lines.
    data: Vec<f32>,
    start: usize,
    len: usize,
}

impl Buffer {
    /// Zeros, in memory that the system need not have given before it is written.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        let data = vec![0.0; len + LINE / size_of::<f32>() - 1];
        // Memory that cannot be aligned, as under an interpreter, is as good as any other.
        let start = data.as_ptr().align_offset(LINE).min(data.len() - len);
        Self { data, start, len }
    }
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        &self.data[self.start..self.start + self.len]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        &mut self.data[self.start..self.start + self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_on_a_line() {
        for len in [0, 1, 15, 16, 17, 100_000] {
            let mut buffer = Buffer::zeros(len);
            assert_eq!((buffer.len(), buffer.iter().sum::<f32>()), (len, 0.0));
            buffer.fill(2.0);
            assert_eq!(buffer.as_ptr() as usize % LINE, 0, "{len} floats");
        }
    }
}
