//! Windows: `GlobalMemoryStatusEx` and `K32GetProcessMemoryInfo`.

use std::mem::size_of;

use windows_sys::Win32::System::ProcessStatus::{K32GetProcessMemoryInfo, PROCESS_MEMORY_COUNTERS};
use windows_sys::Win32::System::SystemInformation::{GlobalMemoryStatusEx, MEMORYSTATUSEX};
use windows_sys::Win32::System::Threading::GetCurrentProcess;

/// Bytes of physical memory that can be had without paging.
pub(crate) fn available_memory() -> Option<u64> {
    let mut status =
        MEMORYSTATUSEX { dwLength: size_of::<MEMORYSTATUSEX>() as u32, ..Default::default() };
    // SAFETY: the pointer is valid for writes and `dwLength` holds the structure's size, as required.
    let ok = unsafe { GlobalMemoryStatusEx(&raw mut status) };
    (ok != 0).then_some(status.ullAvailPhys)
}

/// The most memory this process has held, in bytes.
pub(crate) fn peak_memory() -> Option<u64> {
    let size = size_of::<PROCESS_MEMORY_COUNTERS>() as u32;
    let mut counters = PROCESS_MEMORY_COUNTERS { cb: size, ..Default::default() };
    // SAFETY: takes no arguments and returns a pseudo-handle that need not be closed.
    let process = unsafe { GetCurrentProcess() };
    // SAFETY: the handle is valid, the pointer is valid for writes of `size` bytes.
    let ok = unsafe { K32GetProcessMemoryInfo(process, &raw mut counters, size) };
    (ok != 0).then_some(counters.PeakWorkingSetSize as u64)
}
