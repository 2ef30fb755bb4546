//! macOS: `sysctl` and `getrusage`.

use std::ffi::CStr;
use std::mem::{MaybeUninit, size_of};

/// Bytes that can be had without swapping: the share of memory that the kernel reports as free
/// (`kern.memorystatus_level`, in per cent; what `memory_pressure` prints) of all of it.
pub(crate) fn available_memory() -> Option<u64> {
    let total: u64 = sysctl(c"hw.memsize")?;
    let free_percent: u32 = sysctl(c"kern.memorystatus_level")?;
    Some(total / 100 * u64::from(free_percent.min(100)))
}

/// The most memory this process has held, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the pointer is valid for writes of one `rusage`, which the call fills when it returns 0.
    let status = unsafe { libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) };
    if status != 0 {
        return None;
    }
    // SAFETY: the call returned 0, so it filled the structure.
    let usage = unsafe { usage.assume_init() };
    u64::try_from(usage.ru_maxrss).ok()
}

/// An integer of the kernel's, if its size is that of `T`.
fn sysctl<T: Copy + Default + Into<u64>>(name: &CStr) -> Option<T> {
    let mut value = T::default();
    let mut len = size_of::<T>();
    // SAFETY: `name` ends in NUL; `value` is writable for `len` bytes and every bit pattern is a valid
    // integer; a null new value of length 0 only reads.
    let status = unsafe {
        libc::sysctlbyname(
            name.as_ptr(),
            (&raw mut value).cast(),
            &raw mut len,
            std::ptr::null_mut(),
            0,
        )
    };
    (status == 0 && len == size_of::<T>()).then_some(value)
}
