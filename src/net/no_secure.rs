//! In place of `secure` where TLS is left out: there is none.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;

use crate::rt::Stream;

#[derive(Debug)]
pub(super) enum Secure {}

impl Secure {
    pub(super) fn is_handshaking(&self) -> bool {
        match *self {}
    }

    pub(super) fn is_held(&self) -> bool {
        match *self {}
    }

    pub(super) fn has_more(&self) -> bool {
        match *self {}
    }

    pub(super) fn receive(&self, _: &Stream, _: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        match *self {}
    }

    pub(super) fn send(&self, _: &Stream, _: &[IoSlice<'_>]) -> io::Result<Option<usize>> {
        match *self {}
    }

    pub(super) fn finish(&self, _: &Stream, _: bool) -> bool {
        match *self {}
    }

    pub(super) fn shrink(&self) {
        match *self {}
    }
}
