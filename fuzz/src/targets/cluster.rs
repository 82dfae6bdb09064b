//! Bytes from other processes: what can be read is written and read again the same, and nothing
//! that comes brings a process down.

use std::sync::{Arc, LazyLock};

use node_lua::cluster::Node;
use node_lua::cluster::wire::{Frame, Reader, VERSION};
use node_lua::sched::Scheduler;

static NODE: LazyLock<Arc<Node>> = LazyLock::new(|| {
    let node = Node::new("fuzz".to_owned(), &Scheduler::new(1));
    node.on_connected(1 << 20);
    node
});

/// Reads frames, and compares each with what is read from it when it is written.
fn compare(bytes: &[u8]) {
    let Ok((_, mut reader)) = Reader::new(bytes) else { return };
    while !reader.is_empty() {
        let Ok(frame) = reader.frame() else { return };
        if matches!(frame, Frame::Message { value: Err(_), .. }) {
            continue;
        }
        let mut again = vec![VERSION, 0, 0, 0, 0, 0, 0, 0, 0];
        frame.put(&mut again);
        let (_, mut copy) = Reader::new(&again).expect("a head");
        let read = copy.frame();
        // By their texts: NaN is not the same as itself.
        assert_eq!(format!("{read:?}"), format!("{:?}", Ok::<_, ()>(&frame)));
        assert!(copy.is_empty());
    }
}

pub(super) fn run(input: &[u8]) {
    let Some((&kind, rest)) = input.split_first() else { return };
    // Most inputs are of this version, and of one of few processes.
    let mut bytes = vec![VERSION, kind >> 6, 0, 0, 0, 0, 0, 0, 0];
    match kind & 3 {
        0 => {
            compare(rest);
            NODE.on_all(rest);
            NODE.on_node(rest);
        }
        1 => {
            bytes.extend_from_slice(rest);
            compare(&bytes);
            NODE.on_all(&bytes);
        }
        2 => {
            bytes.extend_from_slice(&[0, 0, 0, 0, kind >> 2 & 15, 0, 0, 0]);
            bytes.extend_from_slice(rest);
            NODE.on_node(&bytes);
        }
        _ => {
            bytes.extend_from_slice(&[0; 8]);
            bytes.extend_from_slice(rest);
            NODE.on_topic(b"topic", &bytes);
        }
    }
    // What would be sent is thrown away.
    let waker = std::task::Waker::noop();
    let _ = NODE.poll_parcels(&std::task::Context::from_waker(waker));
}
