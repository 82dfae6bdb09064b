//! What tests of frames have in common.

#![allow(clippy::unwrap_used, reason = "tests")]

use super::length::{Decoder, Step};

/// Feeds `stream` in pieces of the given sizes (then the rest) and collects the bodies.
pub(super) fn bodies(decoder: &Decoder, stream: &[u8], sizes: &[usize]) -> Vec<Vec<u8>> {
    let (mut held, mut rest, mut found) = (Vec::new(), stream, Vec::new());
    for size in sizes.iter().copied().chain([usize::MAX]) {
        let (piece, later) = rest.split_at(size.min(rest.len()));
        rest = later;
        held.extend_from_slice(piece);
        loop {
            match decoder.next(&held).unwrap() {
                Step::Frame { head, body, tail } => {
                    found.push(held[head..head + body].to_vec());
                    held.drain(..head + body + tail);
                }
                Step::Incomplete { need } => {
                    assert!(need > held.len());
                    break;
                }
            }
        }
    }
    assert!(held.is_empty());
    found
}
