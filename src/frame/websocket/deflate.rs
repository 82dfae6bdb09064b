//! Compression of single messages: each thread has one state of zlib for all connections, and lends
//! it to a message that is unpacked.

use std::cell::{Cell, RefCell};

use bytes::{Bytes, BytesMut};
use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};

use super::{NoFrame, Violation};

/// What every compressed message ends with, and none is sent with.
const TAIL: [u8; 4] = [0, 0, 0xff, 0xff];

/// Room that what is unpacked gets to begin with, for each byte that is packed.
const ROOM: usize = 4;
const ROOM_MIN: usize = 512;

/// What is packed, or unpacked and made room for, at once.
const PART_BYTES: usize = 64 * 1024;

/// About what the state of zlib takes.
const STATE_BYTES: usize = 48 * 1024;

/// Room that is kept for packing.
const SPARE_BYTES: usize = 64 * 1024;

/// Longer messages are not copied to be known again.
const KEPT_MAX: usize = 1 << 20;

/// Binary logarithms of the largest window in bytes, and of the smallest that zlib makes.
pub(super) const WINDOW_BITS: u8 = 15;
const WINDOW_BITS_MIN: u8 = 9;

thread_local! {
    static UNPACK: Cell<Option<Decompress>> = const { Cell::new(None) };
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

/// A message that is unpacked, a part at a time.
#[derive(Debug)]
pub(super) struct Unpacking {
    state: Decompress,
    packed: BytesMut,
    /// This many bytes of it, and of what follows each, were taken.
    taken: usize,
    body: Vec<u8>,
    filled: usize,
    max: usize,
}

impl Unpacking {
    /// Begins with a message of at most `max` bytes.
    pub(super) fn new(packed: BytesMut, max: usize) -> Unpacking {
        let state = UNPACK.take().unwrap_or_else(|| Decompress::new(false));
        Unpacking { state, packed, taken: 0, body: Vec::new(), filled: 0, max }
    }

    pub(super) fn held_bytes(&self) -> usize {
        STATE_BYTES + self.packed.capacity() + self.body.capacity()
    }

    /// What is done so far.
    pub(super) fn done(&self) -> &[u8] {
        &self.body[..self.filled]
    }

    /// Unpacks as much as there is credit for, in bytes taken or made; whether that is all. No more
    /// memory than `room` is held for it.
    pub(super) fn go_on(&mut self, credit: &mut usize, room: usize) -> Result<bool, Violation> {
        let all = self.packed.len() + TAIL.len();
        while *credit > 0 {
            if self.filled == self.body.len() {
                self.grow(room)?;
            }
            let input = match self.packed.get(self.taken..) {
                Some(rest) if !rest.is_empty() => &rest[..rest.len().min(PART_BYTES)],
                _ => &TAIL[self.taken - self.packed.len()..],
            };
            let (before_in, before_out) = (self.state.total_in(), self.state.total_out());
            let status = self
                .state
                .decompress(input, &mut self.body[self.filled..], FlushDecompress::Sync)
                .map_err(|_| Violation::invalid("a compressed message that is none"))?;
            let taken = (self.state.total_in() - before_in) as usize;
            let made = (self.state.total_out() - before_out) as usize;
            *credit = credit.saturating_sub(taken + made + 1);
            self.taken += taken;
            self.filled += made;
            if self.filled > self.max {
                return Err(Violation::too_big(self.max));
            }
            let has_ended = status == Status::StreamEnd;
            if has_ended {
                // A block that says it is the last one; others may follow.
                self.state.reset(false);
            }
            if has_ended || self.filled < self.body.len() {
                if self.taken == all {
                    return Ok(true);
                }
                if !has_ended && taken + made == 0 {
                    return Err(Violation::invalid("a compressed message that is none"));
                }
            }
        }
        Ok(false)
    }

    /// Makes room for the next part, of which one byte more than may be tells what is too much.
    fn grow(&mut self, room: usize) -> Result<(), Violation> {
        let most = self.max.saturating_add(1);
        let part = match self.filled {
            0 => self.packed.len().saturating_mul(ROOM).clamp(ROOM_MIN, PART_BYTES),
            _ => self.filled.min(PART_BYTES),
        };
        let wanted = (self.filled + part).min(most);
        if wanted > self.body.capacity() {
            // Others may have come to hold memory since the last part.
            let room = room.saturating_sub(STATE_BYTES + self.packed.capacity());
            if wanted > room {
                return Err(Violation::no_room());
            }
            let capacity = wanted.max(2 * self.filled).min(most).min(room);
            self.body.reserve_exact(capacity - self.filled);
        }
        self.body.resize(wanted, 0);
        Ok(())
    }

    pub(super) fn finish(mut self) -> BytesMut {
        self.state.reset(false);
        UNPACK.set(Some(self.state));
        self.body.truncate(self.filled);
        BytesMut::from(Bytes::from(self.body))
    }
}

/// Packs a message, and the next ones likewise if they are the same; nothing for windows that are
/// too small. All are packed, also those that do not become shorter: there are peers that take no
/// others (kosoku's cases of Autobahn do).
///
/// # Errors
/// `is_over` says, between two parts, that nobody wants it any more.
pub(super) fn pack(
    body: &[u8],
    shared: Option<&Bytes>,
    window: u8,
    is_over: fn() -> bool,
) -> Result<Option<Bytes>, NoFrame> {
    if window < WINDOW_BITS_MIN {
        return Ok(None);
    }
    let known = LAST.with_borrow(|last| {
        let last = last.as_ref().filter(|last| last.window == window)?;
        let is_same = std::ptr::eq(&*last.body, body) || *last.body == *body;
        is_same.then(|| last.packed.clone())
    });
    if known.is_some() {
        return Ok(known);
    }
    let packed = Bytes::from(pack_anew(body, window, is_over)?);
    let copy = || (body.len() <= KEPT_MAX).then(|| Bytes::copy_from_slice(body));
    if let Some(body) = shared.cloned().or_else(copy) {
        LAST.set(Some(Last { window, body, packed: packed.clone() }));
    }
    Ok(Some(packed))
}

fn pack_anew(body: &[u8], window: u8, is_over: fn() -> bool) -> Result<Vec<u8>, NoFrame> {
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
        let mut end = 0;
        loop {
            let done = state.total_in() as usize;
            if done == end {
                if done > 0 && is_over() {
                    return Err(NoFrame::Over);
                }
                end = body.len().min(done + PART_BYTES);
            }
            if room.len() == room.capacity() {
                // No more than it takes: of what is long, twice as much is a lot.
                room.reserve_exact((body.len() - done) / 2 + 64);
            }
            let flush = match end == body.len() {
                true => FlushCompress::Sync,
                false => FlushCompress::None,
            };
            // Only what was given wrongly fails.
            let _ = state.compress_vec(&body[done..end], &mut room, flush);
            if state.total_in() as usize == body.len() && room.len() < room.capacity() {
                return Ok(());
            }
        }
    })?;
    let end = room.strip_suffix(&TAIL).map_or(room.len(), <[u8]>::len);
    if room.capacity() > SPARE_BYTES {
        room.truncate(end);
        room.shrink_to_fit();
        return Ok(room);
    }
    let packed = room[..end].to_vec();
    SPARE.set(room);
    Ok(packed)
}

/// Forgets what was packed last.
pub fn forget_packed() {
    LAST.set(None);
}
