//! Bytes, read by node-lua and by `rmp-serde`: both accept the same, and find the same in them.

use node_lua::codec::msgpack::Reader;
use serde::Deserialize;
use serde_json::Value;

pub(super) fn run(input: &[u8]) {
    let mut reader = Reader::new(input);
    let ours = Value::deserialize(&mut reader);
    assert!(reader.position() <= input.len() && reader.start() <= reader.position());
    match (ours, rmp_serde::from_slice::<Value>(input)) {
        (Ok(ours), Ok(theirs)) => assert_eq!(ours, theirs, "{input:02x?}"),
        (Err(_), Err(_)) => {}
        (ours, theirs) => panic!("{input:02x?}: {ours:?}, {theirs:?}"),
    }
}
