//! Working memory of a thread, kept from one task to the next so that hot entry points do not allocate.

use std::cell::RefCell;

use crate::Buffer;

thread_local! {
    /// Buffers that nobody has, the outermost last: each call gets the one that it had before.
    static SCRATCH: RefCell<Vec<Buffer>> = const { RefCell::new(Vec::new()) };
}

/// Lends `f` a buffer of `len` floats that starts on a cache line. It holds what earlier tasks left there.
/// A nested call gets a buffer of its own.
pub fn with_scratch<R>(len: usize, f: impl FnOnce(&mut [f32]) -> R) -> R {
    let mut buffer = SCRATCH.with_borrow_mut(Vec::pop).unwrap_or_default();
    if buffer.len() < len {
        buffer = Buffer::zeros(len);
    }
    let result = f(&mut buffer[..len]);
    SCRATCH.with_borrow_mut(|buffers| buffers.push(buffer));
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_kept_and_nest() {
        let both = || {
            with_scratch(100, |outer| {
                assert_eq!(outer.len(), 100);
                assert_eq!(outer.as_ptr() as usize % 64, 0);
                outer.fill(1.0);
                let inner = with_scratch(5, |inner| {
                    inner.fill(2.0);
                    inner.as_ptr()
                });
                assert_eq!(outer, [1.0; 100]);
                [outer.as_ptr(), inner]
            })
        };
        assert_eq!(both(), both(), "the same buffers again");
    }
}
