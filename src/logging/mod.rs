//! The log: what is let through, how an entry looks, and who may write how much.
//!
//! `log::error!` and its like are the way in. What scripts log, and fail with, has the target
//! `script`.

mod filter;
mod queue;
mod text;
mod throttle;

use std::cell::Cell;
use std::ffi::c_int;
use std::fmt::Write as _;
use std::io::Write;
use std::sync::OnceLock;

use env_logger::fmt::Formatter;
use log::{Level, Log, Metadata, Record};

use crate::{os, rt};
use filter::Filter;

pub use queue::stat;
pub use text::{TEXT_BYTES_MAX, bounded, shorten, text_of, write_name};
pub use throttle::{Seldom, Throttle};

/// The target of what scripts log.
pub const SCRIPT: &str = "script";

/// The target of what the main script fails with: such an entry looks like one of a compiler.
pub const MAIN: &str = "script::main";

thread_local! {
    /// If this thread waits for room in the log: bytes up to which it fills the queue.
    static SHARE: Cell<Option<usize>> = const { Cell::new(None) };
    /// The entry that this thread is about to have written.
    static ENTRY: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// Has what `body` logs wait for room, where other threads drop it; and that as long as the queue
/// holds more than `share` bytes, if its bound is not less.
pub fn patiently<R>(share: usize, body: impl FnOnce() -> R) -> R {
    let before = SHARE.replace(Some(share));
    let result = body();
    SHARE.set(before);
    result
}

/// What all entries go through.
struct Logger {
    filter: Filter,
    inner: env_logger::Logger,
    /// Whoever logs writes to standard error itself.
    is_direct: bool,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= self.filter.level(metadata.target())
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let is_failure = record.level() == Level::Error && record.target().starts_with(SCRIPT);
        if !is_failure && !self.filter.has_pattern(&record.args().to_string()) {
            return;
        }
        // The inner one holds a lock while it writes: that goes to memory.
        self.inner.log(record);
        let Ok(mut entry) = ENTRY.try_with(Cell::take) else { return };
        if os::stdio::fork::is_child() {
            os::stdio::fork::write_error(&entry);
        } else if self.is_direct {
            let _shared = os::stdio::precede_error();
            // There is nobody to tell that standard error is closed.
            let _ = std::io::stderr().write_all(&entry);
        } else if !entry.is_empty() {
            queue::enter(&entry, SHARE.get());
        }
        entry.clear();
        if entry.capacity() <= ENTRY_KEPT {
            ENTRY.set(entry);
        }
    }

    fn flush(&self) {}
}

/// Bytes that a thread keeps for its next entry.
const ENTRY_KEPT: usize = 1 << 16;

/// Where the inner logger writes: one call, one entry.
struct Entrance;

impl Write for Entrance {
    fn write(&mut self, entry: &[u8]) -> std::io::Result<usize> {
        let kept = ENTRY.try_with(|kept| {
            let mut all = kept.take();
            all.extend_from_slice(entry);
            kept.set(all);
        });
        if kept.is_err() {
            // The thread ends, and the process with it: `exit` was called on it.
            match rt::is_simulated() {
                true => std::io::stderr().write_all(entry)?,
                false => queue::enter(entry, None),
            }
        }
        Ok(entry.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

fn format(to: &mut Formatter, record: &Record<'_>) -> std::io::Result<()> {
    let mut text = String::new();
    let (level, target) = (record.level(), record.target());
    let written = match target {
        MAIN => write!(text, "node-lua: "),
        _ if rt::is_simulated() => {
            write!(text, "[{:.6} {level} {target}] ", rt::now() as f64 / 1e9)
        }
        _ => write!(text, "[{} {level:<5} {target}] ", to.timestamp_millis()),
    };
    written.map_err(std::io::Error::other)?;
    let is_own: fn(&str) -> bool = match target {
        MAIN => |line| line.starts_with('\t') || line == "stack traceback:",
        _ => |_| false,
    };
    match record.args().as_str() {
        Some(args) => text::append(&mut text, args, is_own),
        None => text::append(&mut text, &record.args().to_string(), is_own),
    }
    to.write_all(text.as_bytes())
}

static LOGGER: OnceLock<Logger> = OnceLock::new();

/// Starts the log. Call once.
pub fn init() {
    start(false);
}

/// The same for a simulation: entries bear its time, and nothing else writes them.
pub fn init_simulated() {
    start(true);
}

fn start(is_direct: bool) {
    let variable = |name| std::env::var_os(name).map(|value| value.to_string_lossy().into_owned());
    let (filter, mut complaints) = Filter::new(variable("RUST_LOG").as_deref());
    complaints.extend(variable("RUST_LOG_STYLE").and_then(|style| filter::check_style(&style)));
    for complaint in complaints {
        // That standard error may be closed changes nothing.
        let _ = writeln!(std::io::stderr(), "node-lua: {complaint}");
    }
    os::exit::at_exit(finish);
    let level = filter.max_level();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(log::LevelFilter::Trace);
    builder.format(format).target(env_logger::Target::Pipe(Box::new(Entrance)));
    let logger = LOGGER.get_or_init(|| Logger { filter, inner: builder.build(), is_direct });
    // Set before only by tests.
    if log::set_logger(logger).is_ok() {
        log::set_max_level(level);
    }
}

extern "C" fn finish(_status: c_int) {
    // What waits is the other process's.
    if os::stdio::fork::is_child() {
        return;
    }
    throttle::tell_all();
    queue::finish();
}
