//! The C headers in `ffi/`, as text for `ffi.cdef`. Their mirrors are `repr(C)` types elsewhere:
//! `nl_buffer` is [`NlBuffer`](crate::buf::NlBuffer). `tests/abi.rs` compares the two.

/// Name and text of each header, for the `headers` table of the natives.
pub const HEADERS: &[(&str, &str)] = &[("buffer.h", include_str!("../../../ffi/buffer.h"))];
