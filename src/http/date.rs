//! The date in answers.

use std::cell::RefCell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::HeaderValue;

use crate::rt;

thread_local! {
    /// The second that was written last, and how.
    static LAST: RefCell<Option<(u64, HeaderValue)>> = const { RefCell::new(None) };
}

/// Now, as the header `date` has it.
pub fn date() -> HeaderValue {
    let second = rt::wall_clock().as_secs();
    LAST.with_borrow_mut(|last| match last {
        Some((known, value)) if *known == second => value.clone(),
        _ => {
            let text = text_of(UNIX_EPOCH + Duration::from_secs(second));
            let value = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
            *last = Some((second, value.clone()));
            value
        }
    })
}

/// A time as headers have it.
pub(super) fn text_of(time: SystemTime) -> String {
    httpdate::fmt_http_date(time)
}
