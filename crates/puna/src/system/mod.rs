//! What the operating system says about memory, and when a mapped file is gone. This is the only place of the
//! program that calls it directly.

#[cfg(unix)]
mod lost_file;
#[cfg(unix)]
pub(crate) use lost_file::report_lost_files;

#[cfg(not(unix))]
/// Nothing to do: such systems let nobody shorten a file that is mapped.
pub(crate) fn report_lost_files() {}

#[cfg(any(target_os = "linux", target_os = "android"))]
mod linux;
#[cfg(any(target_os = "linux", target_os = "android"))]
pub(crate) use linux::{available_memory, peak_memory};

#[cfg(target_os = "macos")]
mod macos;
#[cfg(target_os = "macos")]
pub(crate) use macos::{available_memory, peak_memory};

#[cfg(windows)]
mod windows;
#[cfg(windows)]
pub(crate) use windows::{available_memory, peak_memory};

#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
mod unknown {
    /// Not known on this system.
    pub(crate) fn available_memory() -> Option<u64> {
        None
    }

    /// Not known on this system.
    pub(crate) fn peak_memory() -> Option<u64> {
        None
    }
}
#[cfg(not(any(target_os = "linux", target_os = "android", target_os = "macos", windows)))]
pub(crate) use unknown::{available_memory, peak_memory};
