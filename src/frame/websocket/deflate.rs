//! Compression of single messages: each thread has one state of zlib for all connections.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::Violation;

/// What every compressed message ends with, and none is sent with.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Room that what is unpacked gets to begin with, for each byte that is packed.
const ROOM: usize = 4;
const ROOM_MIN: usize = 512;

/// Room that is kept for packing.
const SPARE_BYTES: usize = 64 * 1024;

/// The largest window, and the smallest that zlib makes.
pub(super) const WINDOW_BITS: u8 = 15;
const WINDOW_BITS_MIN: u8 = 9;

thread_local! {
    static UNPACK: RefCell<Option<Decompress>> = const { RefCell::new(None) };
    /// With the size of its window.
    static PACK: RefCell<Option<(u8, Compress)>> = const { RefCell::new(None) };
    static SPARE: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
    /// What was packed last, and to what: a message goes to many.
    static LAST: RefCell<Option<Last>> = const { RefCell::new(None) };
}

struct Last {
    window: u8,
    body: Bytes,
    packed: Bytes,
}

/// Unpacks a message, to at most `max` bytes.
pub(super) fn unpack(packed: &[u8], max: usize) -> Result<BytesMut, Violation> {
    UNPACK.with_borrow_mut(|state| {
        let state = state.get_or_insert_with(|| Decompress::new(false));
        state.reset(false);
        // One byte more than may be tells what is too much.
        let most = max.saturating_add(1);
        let room = packed.len().saturating_mul(ROOM).max(ROOM_MIN).min(most);
        let mut body = vec![0; room];
        let mut filled = 0;
        for mut input in [packed, &TAIL] {
            loop {
                let (before_in, before_out) = (state.total_in(), state.total_out());
                let status = state
                    .decompress(input, &mut body[filled..], FlushDecompress::Sync)
                    .map_err(|_| Violation::invalid("a compressed message that is none"))?;
                let taken = (state.total_in() - before_in) as usize;
                let made = (state.total_out() - before_out) as usize;
                input = &input[taken..];
                filled += made;
                if filled > max {
                    return Err(Violation::too_big(max));
                }
                if status == Status::StreamEnd {
                    // A block that says it is the last one; others may follow.
                    state.reset(false);
                    if input.is_empty() {
                        break;
                    }
                } else if filled == body.len() {
                    body.resize(body.len().saturating_mul(2).min(most), 0);
                } else if input.is_empty() || taken + made == 0 {
                    break;
                }
            }
            if !input.is_empty() {
                return Err(Violation::invalid("a compressed message that is none"));
            }
        }
        body.truncate(filled);
        Ok(BytesMut::from(Bytes::from(body)))
    })
}

/// Packs a message, and the next ones likewise if they are the same; nothing for windows that are
/// too small. All are packed, also those that do not become shorter: there are peers that take no
/// others (kosoku's cases of Autobahn do).
pub(super) fn pack(body: &[u8], shared: Option<&Bytes>, window: u8) -> Option<Bytes> {
    if window < WINDOW_BITS_MIN {
        return None;
    }
    let known = LAST.with_borrow(|last| {
        let last = last.as_ref().filter(|last| last.window == window)?;
        let is_same = std::ptr::eq(&*last.body, body) || *last.body == *body;
        is_same.then(|| last.packed.clone())
    });
    Some(known.unwrap_or_else(|| {
        let packed = Bytes::from(pack_anew(body, window));
        let body = shared.cloned().unwrap_or_else(|| Bytes::copy_from_slice(body));
        LAST.set(Some(Last { window, body, packed: packed.clone() }));
        packed
    }))
}

fn pack_anew(body: &[u8], window: u8) -> Vec<u8> {
    let mut room = SPARE.take();
    PACK.with_borrow_mut(|state| {
        let (_, state) = match state {
            Some(state) if state.0 == window => {
                state.1.reset();
                state
            }
            state => {
                let level = Compression::fast();
                state.insert((window, Compress::new_with_window_bits(level, false, window)))
            }
        };
        room.clear();
        loop {
            let input = &body[state.total_in() as usize..];
            room.reserve(input.len() / 2 + 64);
            // Only what was given wrongly fails.
            let _ = state.compress_vec(input, &mut room, FlushCompress::Sync);
            if state.total_in() as usize == body.len() && room.len() < room.capacity() {
                break;
            }
        }
    });
    let end = room.strip_suffix(&TAIL).map_or(room.len(), <[u8]>::len);
    let packed = room[..end].to_vec();
    if room.capacity() <= SPARE_BYTES {
        SPARE.set(room);
    }
    packed
}

/// Forgets what was packed last.
pub fn forget_packed() {
    LAST.set(None);
}
