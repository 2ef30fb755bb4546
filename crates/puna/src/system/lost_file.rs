//! A mapped file that someone shortens: reading what is gone raises SIGBUS, whose usual end is a silent one.

use libc::{SIGBUS, STDERR_FILENO, c_int};

const MESSAGE: &[u8] =
    b"\nerror: a file that was in use has become shorter, or cannot be read any more: \
expected all bytes of the model, found some missing; copy the model again\n";

/// Ends the program with a message when a mapped file turns out to be shorter than it was.
pub(crate) fn report_lost_files() {
    extern "C" fn report(_: c_int) {
        // SAFETY: both calls are allowed in a signal handler, and the bytes are static. A message that cannot be
        // written changes nothing.
        unsafe {
            let _ = libc::write(STDERR_FILENO, MESSAGE.as_ptr().cast(), MESSAGE.len());
            libc::_exit(1);
        }
    }
    let handler: extern "C" fn(c_int) = report;
    // SAFETY: the handler calls only what handlers may call, and does not return. Should the system refuse it, the
    // usual end stays.
    unsafe { libc::signal(SIGBUS, handler as libc::sighandler_t) };
}
