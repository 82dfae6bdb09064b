//! Contestants written in Rust, run as `node-lua-bench serve NAME PORT WORKERS HEAD_BYTES`.

pub mod accessors;
pub mod async_echo;
pub mod epoll_echo;
pub mod fixed;
pub mod futex;
pub mod lua;
pub mod send_loop;

use std::io::Write;

/// Tells the runner that clients may connect.
pub fn say_ready() {
    let mut out = std::io::stdout();
    // A runner that is gone takes its contestants with it: nobody is left to tell.
    let _ = writeln!(out, "ready").and_then(|()| out.flush());
}

/// Length of the frame at the start of `bytes`, head included, as far as its head tells.
pub fn frame_length(bytes: &[u8], head_bytes: usize) -> Option<usize> {
    let head = bytes.get(..head_bytes)?;
    let body = match *head {
        [a] => usize::from(a),
        [a, b] => usize::from(u16::from_le_bytes([a, b])),
        [a, b, c, d] => u32::from_le_bytes([a, b, c, d]) as usize,
        _ => return None,
    };
    Some(head_bytes + body)
}

/// Copies each whole frame from `bytes` to `out`, head and body, and returns how far it got.
pub fn echo_frames(bytes: &[u8], head_bytes: usize, out: &mut Vec<u8>) -> usize {
    let mut at = 0;
    while let Some(length) = frame_length(&bytes[at..], head_bytes) {
        let Some(frame) = bytes.get(at..at + length) else { break };
        out.extend_from_slice(&((length - head_bytes) as u32).to_le_bytes()[..head_bytes]);
        out.extend_from_slice(&frame[head_bytes..]);
        at += length;
    }
    at
}
