//! What scripts log, and what is logged of their failures.

use log::Level;

use super::host::Host;
use super::quota::LINE_BYTES_MAX;
use crate::logging::{self, TEXT_BYTES_MAX, shorten};
use crate::lua::host;
use crate::os::stdio;
use crate::vm::stack::{Stack, function};

/// Functions for the table of natives.
pub(super) const FUNCTIONS: super::native::Functions = &[(c"log", function(log))];

/// Bytes that the log shows of one entry of a context with this memory limit: on its way it is
/// copied some times, and may get longer.
fn log_max(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { (limit / 64).max(TEXT_BYTES_MAX / 16) }
}

/// native.log(text): what a script wants to be logged.
pub(super) fn log(lua: Stack<'_>) {
    let text = lua.text(1).unwrap_or_default();
    if !log::log_enabled!(target: logging::SCRIPT, log::Level::Info) {
        return;
    }
    let admitted = host::with(|host| {
        let limit = host.context.limits().memory;
        let bytes_max = if host.deny.is_any() { LINE_BYTES_MAX } else { usize::MAX };
        let (shown, rest) = shorten(text, log_max(limit).min(bytes_max));
        let is_admitted = !host.deny.is_any() || host.quota.admits_line(shown.len(), &host.context);
        is_admitted.then(|| (host.context.label(), limit, shown, rest))
    });
    let Some((context, limit, shown, rest)) = admitted else { return };
    stdio::flush();
    // Other contexts go on meanwhile, on other threads.
    logging::patiently(log_share(limit), || {
        log::info!(target: logging::SCRIPT, "{context}: {}{rest}", logging::text_of(shown));
    });
}

/// Logs the failure of a script.
pub(super) fn report(host: &mut Host, level: Level, text: &[u8]) {
    let context = &host.context;
    let (text, rest) = shorten(text, TEXT_BYTES_MAX);
    if !host.quota.admits_error(text.len(), context) {
        return;
    }
    let text = logging::text_of(text);
    // Who reads both finds what was printed before.
    crate::os::stdio::flush();
    logging::patiently(log_share(context.limits().memory), || match context.parent() {
        None => log::log!(target: logging::MAIN, level, "{text}{rest}"),
        Some(_) => log::log!(target: logging::SCRIPT, level, "{}: {text}{rest}", context.label()),
    });
}

/// Bytes of the log's queue up to which a context with this memory limit fills it.
pub(super) fn log_share(limit: usize) -> usize {
    if limit == 0 { usize::MAX } else { (limit / 4).max(TEXT_BYTES_MAX) }
}
