//! Dates in headers.

use std::cell::RefCell;
use std::ops::Range;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use crate::rt;

thread_local! {
    /// The date of the last response, and the nanoseconds of the monotonic clock that it is good
    /// for.
    static LAST: RefCell<Option<(Range<u64>, HeaderValue)>> = const { RefCell::new(None) };
}

/// The value of header `date` for now.
pub fn date() -> HeaderValue {
    with_date(rt::now(), HeaderValue::clone)
}

/// Calls `body` with the value of header `date`; `now` is the current time in nanoseconds.
pub(super) fn with_date<R>(now: u64, body: impl FnOnce(&HeaderValue) -> R) -> R {
    LAST.with_borrow_mut(|last| {
        if last.as_ref().is_none_or(|(times, _)| !times.contains(&now)) {
            *last = None;
        }
        let (_, value) = last.get_or_insert_with(|| {
            let time = rt::wall_clock();
            let since = now.saturating_sub(u64::from(time.subsec_nanos()));
            let text = text_of(UNIX_EPOCH + Duration::from_secs(time.as_secs()));
            let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
            (since..since + 1_000_000_000, value)
        });
        body(value)
    })
}

pub(super) fn text_of(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}
