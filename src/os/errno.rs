//! Why a call of the C library has failed.

use std::cell::Cell;
use std::ffi::c_int;

// SAFETY: the address of this thread's number; the cell does not leave the thread.
unsafe extern "C" {
    safe fn __errno_location() -> &'static Cell<c_int>;
}

/// The number of this thread.
pub(crate) fn errno() -> c_int {
    __errno_location().get()
}

/// Sets it, for who is told by it that a call has failed.
pub(crate) fn set_errno(number: c_int) {
    __errno_location().set(number);
}
