//! One output slice written by many tasks.

use std::marker::PhantomData;
use std::ops::Range;

/// A mutable slice of which tasks on several threads take disjoint parts.
///
/// # Safety contract of this module
/// The caller of [`DisjointMut::part`] guarantees that no two live parts overlap. Everything else is
/// checked: parts lie within the slice, and none outlives it.
#[derive(Debug)]
pub struct DisjointMut<'a, T> {
    start: *mut T,
    len: usize,
    slice: PhantomData<&'a mut [T]>,
}

// SAFETY: sharing it gives other threads `&mut T` to elements, each to one thread at a time by the
// contract of `part`: what sending `&mut [T]` piecewise would do.
unsafe impl<T: Send> Sync for DisjointMut<'_, T> {}
// SAFETY: as above.
unsafe impl<T: Send> Send for DisjointMut<'_, T> {}

impl<'a, T> DisjointMut<'a, T> {
    /// Borrows `slice` for as long as parts of it are written.
    pub fn new(slice: &'a mut [T]) -> Self {
        Self { start: slice.as_mut_ptr(), len: slice.len(), slice: PhantomData }
    }

    /// Elements of the whole slice.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether the slice has no elements.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The elements of `range`.
    ///
    /// # Safety
    /// No other part that is alive at the same time, on any thread, overlaps `range`.
    ///
    /// # Panics
    /// When `range` leaves the slice.
    #[must_use]
    #[expect(clippy::mut_from_ref, reason = "parts are disjoint by the contract")]
    pub unsafe fn part(&self, range: Range<usize>) -> &mut [T] {
        assert!(
            range.start <= range.end && range.end <= self.len,
            "{range:?} of {} elements",
            self.len
        );
        // SAFETY: the range was just checked, `start` borrows the slice for `'a`, and the caller
        // guarantees that nothing else refers to these elements.
        unsafe { std::slice::from_raw_parts_mut(self.start.add(range.start), range.len()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn tasks_write_columns_of_a_matrix() {
        let (rows, cols, width) = (5, 12, 3);
        let mut matrix = vec![0; rows * cols];
        let out = DisjointMut::new(&mut matrix);
        Pool::new(3).run(cols / width, &|task| {
            for row in 0..rows {
                let start = row * cols + task * width;
                // SAFETY: each task has columns of its own.
                unsafe { out.part(start..start + width) }.fill(task);
            }
        });
        for (i, &value) in matrix.iter().enumerate() {
            assert_eq!(value, i % cols / width);
        }
    }

    #[test]
    #[should_panic(expected = "2..4 of 3 elements")]
    fn a_part_stays_within_the_slice() {
        let mut slice = [0; 3];
        let out = DisjointMut::new(&mut slice);
        // SAFETY: it is the only part.
        let _ = unsafe { out.part(2..4) };
    }
}
