//! Texts, read by node-lua and by `serde_json`: both accept the same, and find the same in it.

use node_lua::codec::json::Reader;
use serde::Deserialize;
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
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{text:?}"),
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{text:?}: {ours:?}, {theirs:?}"),
    }
}
