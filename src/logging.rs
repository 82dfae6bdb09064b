//! The log's way to standard error: a bounded queue, written by a thread of its own, so that
//! nobody waits for a slow reader or a full disk. What finds no room is dropped, and counted.

use std::collections::VecDeque;
use std::io::{IsTerminal, Write};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::thread;

/// Bytes of text that may wait; one larger entry is taken if nothing waits.
const BYTES_MAX: usize = 1 << 20;

/// How long the process waits, at its end, for what is in the queue to be written.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// Entries that wait, and how many were lost.
#[derive(Debug, Default)]
struct Queue {
    entries: VecDeque<Vec<u8>>,
    bytes: usize,
    dropped: u64,
    /// Of `dropped`, those that the log tells of already.
    told: u64,
    is_started: bool,
    /// An entry is being written.
    is_writing: bool,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue {
    entries: VecDeque::new(),
    bytes: 0,
    dropped: 0,
    told: 0,
    is_started: false,
    is_writing: false,
});
/// Something was queued.
static FILLED: Condvar = Condvar::new();
/// All is written.
static EMPTIED: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Queue {
    /// Takes an entry in, or counts it as dropped.
    fn push(&mut self, entry: Vec<u8>) {
        if self.bytes > 0 && self.bytes + entry.len() > BYTES_MAX {
            self.dropped += 1;
        } else {
            self.bytes += entry.len();
            self.entries.push_back(entry);
        }
    }

    /// The next entry to write. That some were lost is told where they would have been.
    fn pop(&mut self) -> Option<Vec<u8>> {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.len();
            return Some(entry);
        }
        let lost = self.dropped - self.told;
        self.told = self.dropped;
        (lost > 0).then(|| format!("node-lua: {lost} entries of the log were lost\n").into_bytes())
    }
}

/// Bytes of the log that wait to be written, and entries that were dropped.
pub fn stat() -> (usize, u64) {
    let queue = queue();
    (queue.bytes, queue.dropped)
}

/// What the logger writes to: one call, one entry.
struct Entrance;

impl Write for Entrance {
    fn write(&mut self, entry: &[u8]) -> std::io::Result<usize> {
        let mut queue = queue();
        queue.push(entry.to_vec());
        if queue.is_started {
            FILLED.notify_one();
        } else {
            queue.is_started = true;
            drop(queue);
            std::thread::Builder::new().name("log".to_owned()).spawn(write_all)?;
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn write_all() {
    let mut queue = queue();
    loop {
        let Some(entry) = queue.pop() else {
            EMPTIED.notify_all();
            queue = FILLED.wait(queue).unwrap_or_else(PoisonError::into_inner);
            continue;
        };
        queue.is_writing = true;
        drop(queue);
        // There is nobody to tell that standard error is closed.
        let _ = std::io::stderr().write_all(&entry);
        queue = self::queue();
        queue.is_writing = false;
    }
}

/// Waits until all is written, for a while.
extern "C" fn finish() {
    let deadline = Instant::now() + END_PATIENCE;
    let mut queue = queue();
    while queue.is_started && (queue.is_writing || queue.bytes > 0 || queue.dropped > queue.told) {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            break;
        }
        let waited = EMPTIED.wait_timeout(queue, left);
        queue = waited.unwrap_or_else(PoisonError::into_inner).0;
    }
}

/// What makes a log as RUST_LOG says.
pub fn builder() -> env_logger::Builder {
    let default = env_logger::Env::default().default_filter_or("warn,script=info");
    env_logger::Builder::from_env(default)
}

/// Starts the log. Call once.
pub fn init() {
    let mut builder = builder();
    builder.format_timestamp_millis().target(env_logger::Target::Pipe(Box::new(Entrance)));
    // The logger does not know that the pipe leads to a terminal.
    let is_unset = |name| std::env::var_os(name).is_none();
    if std::io::stderr().is_terminal() && is_unset("RUST_LOG_STYLE") && is_unset("NO_COLOR") {
        builder.write_style(env_logger::WriteStyle::Always);
    }
    builder.init();
    thread::at_exit(finish);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_finds_no_room_is_counted_and_told_of() {
        let mut queue = Queue::default();
        queue.push(vec![b'x'; 2 * BYTES_MAX]);
        assert_eq!((queue.bytes, queue.dropped), (2 * BYTES_MAX, 0), "if nothing waits, any");
        queue.push(b"lost".to_vec());
        assert_eq!(queue.dropped, 1);
        assert_eq!(queue.pop().map(|entry| entry.len()), Some(2 * BYTES_MAX));
        queue.push(vec![b'y'; BYTES_MAX - 1]);
        queue.push(b"z".to_vec());
        queue.push(b"lost too".to_vec());
        assert_eq!((queue.bytes, queue.dropped), (BYTES_MAX, 2));
        assert_eq!(queue.pop().map(|entry| entry[0]), Some(b'y'));
        assert_eq!(queue.pop(), Some(b"z".to_vec()));
        assert_eq!(queue.pop(), Some(b"node-lua: 2 entries of the log were lost\n".to_vec()));
        assert_eq!((queue.pop(), queue.bytes), (None, 0));
    }
}
