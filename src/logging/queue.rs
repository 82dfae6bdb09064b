//! The log's way to standard error: a bounded queue, and a thread that writes it in pieces of many
//! entries. Who logs faster than that waits for room, as long as something is written now and
//! then. If nothing was written for a while, nobody seems to read: then nobody waits, and entries
//! that find no room are dropped and counted.

use std::collections::VecDeque;
use std::io::{ErrorKind, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::os::stdio::{patience, precede_error};
use crate::sync::lock;

/// Bytes of text that may wait; one larger entry is taken if nothing waits.
const BYTES_MAX: usize = 16 << 20;

/// Bytes that must have gone before those who wait for room are woken.
const BYTES_GONE: usize = 1 << 20;

/// Entries are put together up to this size, and written with one call.
const PIECE: usize = 1 << 16;

/// Between two small pieces: what is logged meanwhile leaves with the second.
const GATHERING: Duration = Duration::from_millis(1);

/// After so long without a byte written, nobody seems to read.
const PATIENCE: Duration = Duration::from_secs(5);

/// How long one entry, or the end of the process, waits at most for a reader that is slow.
const PATIENCE_IN_ALL: Duration = Duration::from_secs(30);

/// Whole entries that are written together.
#[derive(Debug, Default)]
struct Piece {
    text: Vec<u8>,
    entries: u64,
    /// Lost entries that it tells of.
    told: u64,
}

/// What waits to be written, and how many entries were lost.
#[derive(Debug)]
struct Queue {
    pieces: VecDeque<Piece>,
    /// Of all pieces, the one included that is being written.
    bytes: usize,
    /// What the thread has written so far.
    written: u64,
    /// Nothing was written for a while, though there was something to write.
    is_stuck: bool,
    dropped: u64,
    /// Of `dropped`, those that the log tells of already.
    told: u64,
    /// The last piece could not be written.
    has_failed: bool,
    is_started: bool,
    /// The thread has nothing to do, and waits.
    is_asleep: bool,
    /// Who waits for room; and those of them who fill the queue to a part only.
    waiting: usize,
    waiting_for_part: usize,
    /// The process ends, and waits until all is written.
    is_ending: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue::new());
/// Something was queued.
static FILLED: Condvar = Condvar::new();
/// There is room again, or nobody waits for it any more.
static ROOM: Condvar = Condvar::new();
/// Something was written, and the end of the process waits for that.
static WRITTEN: Condvar = Condvar::new();

impl Queue {
    const fn new() -> Queue {
        Queue {
            pieces: VecDeque::new(),
            bytes: 0,
            written: 0,
            is_stuck: false,
            dropped: 0,
            told: 0,
            has_failed: false,
            is_started: false,
            is_asleep: false,
            waiting: 0,
            waiting_for_part: 0,
            is_ending: false,
        }
    }

    fn has_room(&self, bytes: usize, max: usize) -> bool {
        self.bytes == 0 || self.bytes + bytes <= max
    }

    /// Takes an entry in, or counts it as dropped, if more than `max` bytes would wait.
    fn push(&mut self, entry: &[u8], max: usize) {
        if !self.has_room(entry.len(), max) {
            self.dropped += 1;
            return;
        }
        self.tell_of_losses();
        self.append(entry);
        if let Some(piece) = self.pieces.back_mut() {
            piece.entries += 1;
        }
    }

    fn append(&mut self, text: &[u8]) {
        self.bytes += text.len();
        match self.pieces.back_mut() {
            Some(piece) if piece.text.len() + text.len() <= PIECE => {
                piece.text.extend_from_slice(text);
            }
            _ => self.pieces.push_back(Piece { text: text.to_vec(), ..Piece::default() }),
        }
    }

    /// Says that some were lost, where they would have been.
    fn tell_of_losses(&mut self) {
        let lost = self.dropped - self.told;
        if lost > 0 {
            self.told = self.dropped;
            self.append(format!("node-lua: {lost} entries of the log were lost\n").as_bytes());
            if let Some(piece) = self.pieces.back_mut() {
                piece.told += lost;
            }
        }
    }

    fn is_done(&self) -> bool {
        self.bytes == 0 && (self.dropped == self.told || self.has_failed)
    }
}

/// Bytes of the log that wait to be written, and entries that were dropped.
pub fn stat() -> (usize, u64) {
    let queue = lock(&QUEUE);
    (queue.bytes, queue.dropped)
}

/// Has an entry written. Whoever has a share waits for room if there is none, or if more than that
/// waits already.
pub(super) fn enter(entry: &[u8], share: Option<usize>) {
    let mut queue = lock(&QUEUE);
    let max = share.map_or(BYTES_MAX, |share| share.min(BYTES_MAX));
    if share.is_some() && !queue.is_stuck && !queue.has_room(entry.len(), max) {
        queue = wait_for_room(queue, entry.len(), max);
    }
    queue.push(entry, max);
    if queue.is_started {
        if std::mem::take(&mut queue.is_asleep) {
            FILLED.notify_one();
        }
        return;
    }
    queue.is_started = true;
    drop(queue);
    let started = std::thread::Builder::new().name("log".to_owned()).spawn(write_all);
    if started.is_err() {
        // Without a thread whoever logs writes, and the next one tries again.
        let mut queue = lock(&QUEUE);
        queue.is_started = false;
        while let Some(piece) = queue.pieces.pop_front() {
            queue = write(queue, &piece);
        }
    }
}

fn wait_for_room(
    mut queue: MutexGuard<'static, Queue>,
    bytes: usize,
    max: usize,
) -> MutexGuard<'static, Queue> {
    let began = Instant::now();
    let part = usize::from(max < BYTES_MAX);
    queue.waiting += 1;
    queue.waiting_for_part += part;
    while !queue.is_stuck && !queue.has_room(bytes, max) {
        let before = queue.written;
        let is_over = |queue: &mut Queue| queue.is_stuck || queue.has_room(bytes, max);
        let waited = ROOM.wait_timeout_while(queue, PATIENCE, |queue| !is_over(queue));
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        let is_stuck = queue.written == before || began.elapsed() > PATIENCE_IN_ALL;
        if !queue.has_room(bytes, max) && is_stuck && !queue.is_stuck {
            queue.is_stuck = true;
            ROOM.notify_all();
        }
    }
    queue.waiting -= 1;
    queue.waiting_for_part -= part;
    queue
}

fn write_all() {
    let mut queue = lock(&QUEUE);
    loop {
        let Some(piece) = queue.pieces.pop_front() else {
            if queue.told < queue.dropped && !queue.has_failed {
                queue.tell_of_losses();
                continue;
            }
            WRITTEN.notify_all();
            queue.is_asleep = true;
            let waited = FILLED.wait_while(queue, |queue| queue.is_asleep);
            queue = waited.unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue = write(queue, &piece);
        if queue.bytes < PIECE && !queue.is_ending {
            drop(queue);
            std::thread::sleep(GATHERING);
            queue = lock(&QUEUE);
        }
    }
}

/// Writes a piece without the lock. What cannot be written is lost, and counted.
fn write(mut queue: MutexGuard<'static, Queue>, piece: &Piece) -> MutexGuard<'static, Queue> {
    let mut rest = &piece.text[..];
    drop(queue);
    // Until all is written, so that no line of either is torn.
    let _shared = precede_error();
    queue = lock(&QUEUE);
    while !rest.is_empty() {
        drop(queue);
        let result = std::io::stderr().write(rest);
        if let Err(error) = &result
            && error.kind() == ErrorKind::WouldBlock
        {
            await_reader();
        }
        queue = lock(&QUEUE);
        let gone = match result {
            Ok(bytes @ 1..) => bytes,
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                continue;
            }
            // Closed, or its disk full: that is told once something can be written again.
            Ok(_) | Err(_) => {
                queue.dropped += piece.entries;
                queue.told -= piece.told;
                queue.has_failed = true;
                queue.bytes -= rest.len();
                queue.is_stuck = false;
                ROOM.notify_all();
                return queue;
            }
        };
        queue.has_failed = false;
        rest = &rest[gone..];
        let had_room = queue.bytes + BYTES_GONE <= BYTES_MAX;
        queue.bytes -= gone;
        queue.written += gone as u64;
        queue.is_stuck = false;
        let has_changed = (queue.bytes + BYTES_GONE <= BYTES_MAX) != had_room;
        if queue.waiting > 0 && (has_changed || queue.waiting_for_part > 0) {
            ROOM.notify_all();
        }
        if queue.is_ending {
            WRITTEN.notify_all();
        }
    }
    queue
}

/// Waits until standard error, which somebody has set not to block, takes more.
fn await_reader() {
    use rustix::event::{PollFd, PollFlags, poll};
    let stderr = std::io::stderr();
    // If this fails, or is interrupted, the next try to write tells.
    let _ = poll(&mut [PollFd::new(&stderr, PollFlags::OUT)], None);
}

/// Waits until all is written, as long as something is now and then.
pub(super) fn finish() {
    let began = Instant::now();
    let mut queue = lock(&QUEUE);
    queue.is_ending = true;
    while queue.is_started && !queue.is_done() {
        let before = queue.written;
        let is_left = |queue: &mut Queue| !queue.is_done() && queue.written == before;
        let waited = WRITTEN.wait_timeout_while(queue, patience(PATIENCE), is_left);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        if queue.written == before || began.elapsed() > PATIENCE_IN_ALL {
            break;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn pop(queue: &mut Queue) -> Option<Vec<u8>> {
        let piece = queue.pieces.pop_front()?;
        queue.bytes -= piece.text.len();
        Some(piece.text)
    }

    #[test]
    fn what_finds_no_room_is_counted_and_told_of_in_its_place() {
        let mut queue = Queue::new();
        queue.push(&vec![b'x'; 2 * BYTES_MAX], BYTES_MAX);
        assert_eq!((queue.bytes, queue.dropped), (2 * BYTES_MAX, 0), "if nothing waits, any");
        queue.push(b"lost", BYTES_MAX);
        assert_eq!(queue.dropped, 1);
        assert_eq!(pop(&mut queue).map(|text| text.len()), Some(2 * BYTES_MAX));
        queue.push(b"next", BYTES_MAX);
        let told = b"node-lua: 1 entries of the log were lost\nnext";
        assert_eq!(pop(&mut queue).as_deref(), Some(&told[..]));
        assert_eq!((pop(&mut queue), queue.bytes, queue.is_done()), (None, 0, true));
    }

    #[test]
    fn entries_are_put_together_and_large_ones_left_alone() {
        let mut queue = Queue::new();
        for _ in 0..1000 {
            queue.push(&[b'x'; 100], BYTES_MAX);
        }
        queue.push(&vec![b'y'; 3 * PIECE], BYTES_MAX);
        queue.push(b"z", BYTES_MAX);
        let found: Vec<_> =
            queue.pieces.iter().map(|piece| (piece.text.len(), piece.entries)).collect();
        assert_eq!(found, [(65500, 655), (34500, 345), (3 * PIECE, 1), (1, 1)]);
    }
}
