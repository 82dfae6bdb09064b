//! Files at the limit of descriptors: what nobody refers to is collected, then the call goes on.

use std::sync::OnceLock;

use super::FILE;
use crate::os::errno::{errno, set_errno};

/// Collects what the thread's context does not refer to; false if that is of no use.
static RELIEVE: OnceLock<fn() -> bool> = OnceLock::new();

/// Sets what makes room for descriptors. Called on threads that open files for scripts.
pub fn on_shortage(relieve: fn() -> bool) {
    RELIEVE.get_or_init(|| relieve);
}

/// Opens something, a second time if the first found no free descriptor and some were let go;
/// `failed` tells from the result whether it was not opened.
pub(super) fn with_room<R>(failed: impl Fn(&R) -> bool, mut open: impl FnMut() -> R) -> R {
    let opened = open();
    if !failed(&opened) {
        return opened;
    }
    let error = errno();
    let is_shortage = matches!(error, libc::EMFILE | libc::ENFILE);
    if is_shortage && RELIEVE.get().is_some_and(|relieve| relieve()) {
        return open();
    }
    // The collection may have changed it.
    set_errno(error);
    opened
}

/// The same for streams.
pub(super) fn stream_with_room(open: impl FnMut() -> *mut FILE) -> *mut FILE {
    super::files::open(|| with_room(|stream: &*mut FILE| stream.is_null(), open))
}
