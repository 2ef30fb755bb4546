//! Floats that begin on a cache line, so that no vector of them reaches over two: to read or write such a vector takes
//! twice as long, and what training does is mostly that or products.

use std::ops::{Deref, DerefMut};

use memmap2::MmapMut;

/// Bytes of a cache line, and of the widest vector.
const LINE: usize = 64;

/// Bytes of a huge page, and of what is worth some.
const HUGE_PAGE: usize = 2 << 20;

/// As many floats as it was made with, the first at the beginning of a cache line.
#[derive(Debug, Default)]
pub struct Buffer(Memory);

#[derive(Debug)]
enum Memory {
    /// The floats, and before and behind them what lacks to whole lines.
    Heap { data: Vec<f32>, start: usize, len: usize },
    /// Of the system itself, where it takes advice: with huge pages a program waits less for addresses to be looked up.
    Pages(MmapMut),
}

impl Default for Memory {
    fn default() -> Self {
        Self::Heap { data: Vec::new(), start: 0, len: 0 }
    }
}

impl Buffer {
    /// Zeros, in memory that the system need not have given before it is written.
    #[must_use]
    pub fn zeros(len: usize) -> Self {
        if let Some(pages) = huge_pages(len * size_of::<f32>()) {
            return Self(Memory::Pages(pages));
        }
        let data = vec![0.0; len + LINE / size_of::<f32>() - 1];
        // Memory that cannot be aligned, as under an interpreter, is as good as any other.
        let start = data.as_ptr().align_offset(LINE).min(data.len() - len);
        Self(Memory::Heap { data, start, len })
    }
}

/// Memory of zeros in huge pages as far as the system has them; `None` where that is not to be had.
#[cfg(target_os = "linux")]
fn huge_pages(n_bytes: usize) -> Option<MmapMut> {
    if n_bytes < HUGE_PAGE || cfg!(miri) {
        return None;
    }
    let pages = MmapMut::map_anon(n_bytes).ok()?;
    pages.advise(memmap2::Advice::HugePage).ok()?;
    Some(pages)
}

/// Other systems are not asked.
#[cfg(not(target_os = "linux"))]
fn huge_pages(_: usize) -> Option<MmapMut> {
    None
}

impl Deref for Buffer {
    type Target = [f32];

    fn deref(&self) -> &[f32] {
        match &self.0 {
            Memory::Heap { data, start, len } => &data[*start..start + len],
            Memory::Pages(pages) => bytemuck::cast_slice(pages),
        }
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [f32] {
        match &mut self.0 {
            Memory::Heap { data, start, len } => &mut data[*start..*start + *len],
            Memory::Pages(pages) => bytemuck::cast_slice_mut(pages),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_begin_on_a_line() {
        for len in [0, 1, 15, 16, 17, 100_000, HUGE_PAGE / 4 - 1, HUGE_PAGE / 4, 1_000_003] {
            let mut buffer = Buffer::zeros(len);
            assert_eq!((buffer.len(), buffer.iter().sum::<f32>()), (len, 0.0));
            buffer.fill(2.0);
            assert_eq!(buffer.as_ptr() as usize % LINE, 0, "{len} floats");
        }
    }
}
