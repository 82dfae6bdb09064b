//! Files of C at the limit of descriptors: see [`descriptors::with_room`].

use std::io;

use super::FILE;
use crate::os::descriptors;
use crate::os::errno::{errno, set_errno};

/// The same for what C opens, and says in `errno` why not; `failed` tells from the result whether
/// it was not opened.
pub(super) fn with_room<R>(failed: impl Fn(&R) -> bool, mut open: impl FnMut() -> R) -> R {
    let mut last = None;
    let opened = descriptors::with_room(|| {
        let opened = open();
        if !failed(&opened) {
            return Ok(opened);
        }
        let error = errno();
        last = Some((opened, error));
        Err(io::Error::from_raw_os_error(error))
    });
    opened.unwrap_or_else(|_| {
        let (opened, error) = last.expect("what has failed");
        // A collection may have changed it.
        set_errno(error);
        opened
    })
}

/// The same for streams.
pub(super) fn stream_with_room(open: impl FnMut() -> *mut FILE) -> *mut FILE {
    super::files::open(|| with_room(|stream: &*mut FILE| stream.is_null(), open))
}
