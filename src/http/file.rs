//! Conditional requests and ranges of files (RFC 9110, 13 and 14).

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::header::{
    ACCEPT_RANGES, CONTENT_RANGE, ETAG, IF_MATCH, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE,
    IF_UNMODIFIED_SINCE, LAST_MODIFIED, RANGE,
};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};

use super::date::text_of;

/// The response for a file.
#[derive(Debug, PartialEq, Eq)]
pub struct Chosen {
    /// The status.
    pub status: StatusCode,
    /// Headers about the file.
    pub headers: HeaderMap,
    /// Offset and length of the part, in bytes; `None` for an answer without a body.
    pub part: Option<(u64, u64)>,
}

/// The response to a request with headers `asked` for a file of `length` bytes, last changed at
/// `modified`; its ETag is `tag`, or one that is made of both.
pub fn choose(
    method: &Method,
    asked: &HeaderMap,
    tag: Option<&str>,
    length: u64,
    modified: SystemTime,
) -> Chosen {
    let since = modified.duration_since(UNIX_EPOCH).unwrap_or_default();
    let tag = match tag {
        Some(tag) => tag.to_owned(),
        None => format!("\"{:x}-{length:x}\"", since.as_nanos()),
    };
    // Dates in headers have no fractions.
    let modified = UNIX_EPOCH + Duration::from_secs(since.as_secs());
    let mut headers = HeaderMap::new();
    let mut say = |name: HeaderName, text: &str| {
        if let Ok(value) = HeaderValue::from_str(text) {
            headers.insert(name, value);
        }
    };
    say(ETAG, &tag);
    say(LAST_MODIFIED, &text_of(modified));
    say(ACCEPT_RANGES, "bytes");
    let is_read = *method == Method::GET || *method == Method::HEAD;
    if let Some(status) = precondition(is_read, asked, &tag, modified) {
        return Chosen { status, headers, part: None };
    }
    let whole = (0, length);
    match range(method, asked, &tag, modified, length) {
        Some(Ok(part)) => {
            say(CONTENT_RANGE, &format!("bytes {}-{}/{length}", part.0, part.0 + part.1 - 1));
            Chosen { status: StatusCode::PARTIAL_CONTENT, headers, part: Some(part) }
        }
        Some(Err(())) => {
            say(CONTENT_RANGE, &format!("bytes */{length}"));
            Chosen { status: StatusCode::RANGE_NOT_SATISFIABLE, headers, part: None }
        }
        None => Chosen { status: StatusCode::OK, headers, part: Some(whole) },
    }
}

fn text(asked: &HeaderMap, name: HeaderName) -> Option<&str> {
    asked.get(name)?.to_str().ok()
}

fn time(asked: &HeaderMap, name: HeaderName) -> Option<SystemTime> {
    httpdate::parse_http_date(text(asked, name)?).ok()
}

fn names(asked: &HeaderMap, name: HeaderName, tag: &str, is_weak: bool) -> bool {
    asked.get_all(name).iter().filter_map(|list| list.to_str().ok()).any(|list| {
        list.split(',')
            .map(str::trim)
            .any(|one| one == "*" || one == tag || is_weak && one.strip_prefix("W/") == Some(tag))
    })
}

/// The status of a response without the file, if the conditions ask for that; in the order of RFC
/// 9110, 13.2.2.
fn precondition(
    is_read: bool,
    asked: &HeaderMap,
    tag: &str,
    modified: SystemTime,
) -> Option<StatusCode> {
    if asked.contains_key(IF_MATCH) {
        if !names(asked, IF_MATCH, tag, false) {
            return Some(StatusCode::PRECONDITION_FAILED);
        }
    } else if time(asked, IF_UNMODIFIED_SINCE).is_some_and(|time| modified > time) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    let is_known = if asked.contains_key(IF_NONE_MATCH) {
        names(asked, IF_NONE_MATCH, tag, true)
    } else {
        is_read && time(asked, IF_MODIFIED_SINCE).is_some_and(|time| modified <= time)
    };
    let status = if is_read { StatusCode::NOT_MODIFIED } else { StatusCode::PRECONDITION_FAILED };
    is_known.then_some(status)
}

/// Offset and length of the range that is asked for; `None` for the whole file, an error for a
/// range that is not in it. Several ranges, and malformed ones, get the whole file, as is allowed.
fn range(
    method: &Method,
    asked: &HeaderMap,
    tag: &str,
    modified: SystemTime,
    length: u64,
) -> Option<Result<(u64, u64), ()>> {
    let wanted = text(asked, RANGE).filter(|_| *method == Method::GET)?.strip_prefix("bytes=")?;
    if let Some(condition) = text(asked, IF_RANGE) {
        let time = httpdate::parse_http_date(condition).ok();
        if condition != tag && time != Some(modified) {
            return None;
        }
    }
    let (first, last) = wanted.trim().split_once('-')?;
    let number = |text: &str| {
        let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        // Too large a number is beyond any file.
        is_number.then(|| text.parse().unwrap_or(u64::MAX))
    };
    let (first, last) = match (number(first), number(last)) {
        (Some(first), Some(last)) if first > last => return None,
        (Some(first), Some(last)) => (first, last.min(length.saturating_sub(1))),
        (Some(first), None) if last.is_empty() => (first, length.saturating_sub(1)),
        (None, Some(0)) if first.is_empty() => return Some(Err(())),
        (None, Some(count)) if first.is_empty() => {
            (length.saturating_sub(count), length.saturating_sub(1))
        }
        _ => return None,
    };
    if first >= length {
        return Some(Err(()));
    }
    Some(Ok((first, last - first + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(second)
    }

    /// Status and part that a request with these headers gets of 100 bytes.
    fn ask(method: Method, lines: &[(&'static str, &str)]) -> (u16, Option<(u64, u64)>) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        let chosen = choose(&method, &headers, None, 100, at(1_000_000));
        (chosen.status.as_u16(), chosen.part)
    }

    #[test]
    fn ranges_are_those_of_the_rfc() {
        let all = (200, Some((0, 100)));
        for (range, found) in [
            ("bytes=0-0", (206, Some((0, 1)))),
            ("bytes=0-99", (206, Some((0, 100)))),
            ("bytes=10-", (206, Some((10, 90)))),
            ("bytes=90-1000", (206, Some((90, 10)))),
            ("bytes=99-99999999999999999999999", (206, Some((99, 1)))),
            ("bytes=-1", (206, Some((99, 1)))),
            ("bytes=-1000", (206, Some((0, 100)))),
            ("bytes=100-", (416, None)),
            ("bytes=-0", (416, None)),
            ("bytes=2-1", all),
            ("bytes=0-1,5-6", all),
            ("bytes=", all),
            ("bytes=-", all),
            ("bytes=+1-2", all),
            ("lines=1-2", all),
        ] {
            assert_eq!(ask(Method::GET, &[("range", range)]), found, "{range}");
        }
        assert_eq!(ask(Method::HEAD, &[("range", "bytes=0-0")]), all);
    }

    #[test]
    fn conditions_are_weighed_in_order() {
        let modified = text_of(at(1_000_000));
        let before = text_of(at(999_999));
        let tag = "\"38d7ea4c68000-64\"";
        let weak = format!("W/{tag}");
        let (all, known, failed) = ((200, Some((0, 100))), (304, None), (412, None));
        for (lines, found) in [
            (vec![("if-none-match", tag)], known),
            (vec![("if-none-match", "\"a\", *")], known),
            (vec![("if-none-match", weak.as_str())], known),
            (vec![("if-none-match", "\"a\"")], all),
            (vec![("if-modified-since", modified.as_str())], known),
            (vec![("if-modified-since", before.as_str())], all),
            (vec![("if-modified-since", modified.as_str()), ("if-none-match", "\"a\"")], all),
            (vec![("if-match", tag)], all),
            (vec![("if-match", weak.as_str())], failed),
            (vec![("if-unmodified-since", before.as_str())], failed),
            (vec![("if-range", tag), ("range", "bytes=1-1")], (206, Some((1, 1)))),
            (vec![("if-range", modified.as_str()), ("range", "bytes=1-1")], (206, Some((1, 1)))),
            (vec![("if-range", "\"a\""), ("range", "bytes=1-1")], all),
        ] {
            assert_eq!(ask(Method::GET, &lines), found, "{lines:?}");
        }
        assert_eq!(ask(Method::POST, &[("if-none-match", "*")]), failed);
    }
}
