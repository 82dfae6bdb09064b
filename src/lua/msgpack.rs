//! MessagePack, as scripts write and read it: the module `msgpack`.

use std::ffi::c_int;

use serde::Serialize;

use super::buffer::userdata::push_bytes;
use super::data::{self, Input, READ, WRITE};
use crate::codec::msgpack;
use crate::vm::blame::Raised;
use crate::vm::data::{Builder, Keys, ReadRules, Source, Sparse, WriteRules, write};
use crate::vm::stack::{Results, Stack, function};

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions =
    &[(c"msgpack_encode", function(encode)), (c"msgpack_decode", function(decode))];

/// msgpack.encode(value[, options])
fn encode(lua: Stack<'_>) -> Result<c_int, Raised> {
    let mut rules = WriteRules {
        keys: Keys::Any,
        has_bytes: true,
        has_infinity: true,
        sparse: Sparse { convert: true, ..WRITE.sparse },
        object: "msgpack.object",
        ..WRITE
    };
    let bytes_max = data::write_options(lua, &mut rules, "", |_, _, _| false);
    let source = Source::new(lua, &rules);
    let written = write(lua, bytes_max, |output| {
        let written = source.top().serialize(&mut msgpack::Writer::new(&mut *output));
        output.failure = output.failure.or(source.take_shortage());
        written
    });
    written.map(|()| 1).map_err(|(error, failure)| {
        Raised(format!("encode: {}", data::why(&source, failure, bytes_max, error)))
    })
}

/// msgpack.decode(bytes[, options])
fn decode(lua: Stack<'_>) -> Result<c_int, Raised> {
    let input = Input::new(lua, 1, "decode");
    let (mut rules, mut from) = (READ, 0);
    let bytes_max =
        data::read_options(lua, &mut rules, ", binary, from", |options, name, rules| {
            match name {
                b"binary" => {
                    let is_buffer = options.word(name, ["string", "buffer"]);
                    rules.push_bytes = is_buffer.then_some(push_bytes);
                }
                b"from" => from = options.bytes(name),
                _ => return false,
            }
            true
        });
    let result = match input.get(from.saturating_sub(1)..) {
        Some(bytes) if bytes.len() > bytes_max => Err(data::too_long(bytes.len(), bytes_max)),
        Some(bytes) => read(lua, bytes, rules, from.max(1), from > 0),
        None => Err(format!("position {from} is behind the end ({} bytes)", input.len())),
    };
    let next = result.map_err(|why| Raised(format!("decode: {why}")))?;
    Ok(1 + Some(next).filter(|_| from > 0).give(lua))
}

/// Pushes what `bytes` say; the position behind it, if the first of them has the position `first`.
fn read(
    lua: Stack<'_>,
    bytes: &[u8],
    rules: ReadRules,
    first: usize,
    may_go_on: bool,
) -> Result<usize, String> {
    let mut from = msgpack::Reader::new(bytes);
    let result = Builder::new(lua, rules, bytes).push(&mut from);
    let (next, left) = (first + from.position(), bytes.len() - from.position());
    match result {
        Ok(()) if left > 0 && !may_go_on => {
            Err(format!("{left} bytes behind the value, from byte {next} on (option from)"))
        }
        Ok(()) => Ok(next),
        Err(error) => Err(format!("{error} in the value at byte {}", first + from.start())),
    }
}
