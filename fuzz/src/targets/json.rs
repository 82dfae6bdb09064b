//! Texts, read by node-lua and by `serde_json`: both accept the same, and find the same in it, also
//! in what node-lua writes of it.

use node_lua::codec::json::{Reader, Style, Writer};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Levels that `serde_json` reads.
const DEPTH_MAX: usize = 120;

/// What stands in a text, and its end.
fn read(text: &str) -> Result<Value, String> {
    let mut reader = Reader::new(text);
    let value = Value::deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    value.map_err(|error| {
        let place = reader.place();
        assert!(place.byte <= text.len() + 1 && place.line >= 1 && place.column >= 1, "{place}");
        format!("{error} at {place}")
    })
}

pub(super) fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    if text.bytes().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEPTH_MAX {
        return;
    }
    match (read(text), serde_json::from_str::<Value>(text)) {
        (Ok(ours), Ok(theirs)) => {
            assert_eq!(ours, theirs, "{text:?}");
            let mut written = Vec::new();
            for escapes_slash in [false, true] {
                written.clear();
                let style = Style { digits: 0, escapes_slash };
                ours.serialize(&mut Writer::new(&mut written, style))
                    .expect("values can be written");
                let read = serde_json::from_slice::<Value>(&written);
                assert!(read.is_ok_and(|read| is_same(&read, &ours)), "{text:?}: {written:?}");
            }
        }
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{text:?}: {ours:?}, {theirs:?}"),
    }
}

/// Whether two values are the same, with numbers as doubles, which is what scripts have.
fn is_same(one: &Value, other: &Value) -> bool {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (Value::Array(one), Value::Array(other)) => {
            one.len() == other.len()
                && one.iter().zip(other).all(|(one, other)| is_same(one, other))
        }
        (Value::Object(one), Value::Object(other)) => {
            one.len() == other.len()
                && one
                    .iter()
                    .zip(other)
                    .all(|(one, other)| one.0 == other.0 && is_same(one.1, other.1))
        }
        (one, other) => one == other,
    }
}
