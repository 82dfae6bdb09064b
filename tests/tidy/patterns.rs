//! Patterns in the library cost no more than the texts they look at are long, which peers choose:
//! what a pattern has gone through once it does not go through again.

use super::{assert_none, sources};

/// One part of a pattern: what it takes, and how often.
#[derive(Clone, Debug)]
struct Part {
    set: [bool; 256],
    /// `*`, `+`, `-`, `?`, or a space for once.
    times: char,
}

impl Part {
    fn varies(&self) -> bool {
        matches!(self.times, '*' | '+' | '-')
    }

    fn may_be_nothing(&self) -> bool {
        matches!(self.times, '*' | '-' | '?')
    }

    fn meets(&self, other: &Part) -> bool {
        self.set.iter().zip(&other.set).any(|(one, other)| *one && *other)
    }

    /// Takes all that is left, and so never fails before the end.
    fn takes_all(&self) -> bool {
        self.times == '*' && self.set.iter().all(|taken| *taken)
    }
}

/// What a class takes: `%a` and its like.
fn class(letter: u8, byte: u8) -> bool {
    let is = match letter.to_ascii_lowercase() {
        b'a' => byte.is_ascii_alphabetic(),
        b'c' => byte.is_ascii_control(),
        b'd' => byte.is_ascii_digit(),
        b'l' => byte.is_ascii_lowercase(),
        b'p' => byte.is_ascii_punctuation(),
        b's' => byte.is_ascii_whitespace() || byte == 11,
        b'u' => byte.is_ascii_uppercase(),
        b'w' => byte.is_ascii_alphanumeric(),
        b'x' => byte.is_ascii_hexdigit(),
        b'z' => byte == 0,
        _ => return byte == letter,
    };
    is != letter.is_ascii_uppercase()
}

fn set_of(takes: impl Fn(u8) -> bool) -> [bool; 256] {
    std::array::from_fn(|byte| takes(byte as u8))
}

/// The parts of a pattern, and whether it holds at the start, and at the end, of the text.
fn parts_of(pattern: &[u8]) -> (Vec<Part>, bool, bool) {
    let is_anchored = pattern.first() == Some(&b'^');
    let (mut at, mut parts, mut ends) = (usize::from(is_anchored), Vec::new(), false);
    while at < pattern.len() {
        let set = match pattern[at] {
            b'(' | b')' => {
                at += 1;
                continue;
            }
            b'$' if at + 1 == pattern.len() => {
                ends = true;
                break;
            }
            b'.' => {
                at += 1;
                [true; 256]
            }
            b'%' => {
                at += 2;
                set_of(|byte| class(pattern[at - 1], byte))
            }
            b'[' => {
                let is_other = pattern[at + 1] == b'^';
                let start = at + 1 + usize::from(is_other);
                let (mut end, mut set) = (start, [false; 256]);
                while pattern[end] != b']' || end == start {
                    match pattern[end..] {
                        [b'%', letter, ..] => {
                            set.iter_mut().zip(0..=255).for_each(|(taken, byte)| {
                                *taken |= class(letter, byte);
                            });
                            end += 2;
                        }
                        [first, b'-', last, ..] if last != b']' => {
                            (first..=last).for_each(|byte| set[usize::from(byte)] = true);
                            end += 3;
                        }
                        _ => {
                            set[usize::from(pattern[end])] = true;
                            end += 1;
                        }
                    }
                }
                at = end + 1;
                set_of(|byte| set[usize::from(byte)] != is_other)
            }
            byte => {
                at += 1;
                set_of(|other| other == byte)
            }
        };
        let times = match pattern.get(at) {
            Some(times @ (b'*' | b'+' | b'-' | b'?')) => {
                at += 1;
                char::from(*times)
            }
            _ => ' ',
        };
        parts.push(Part { set, times });
    }
    (parts, is_anchored, ends)
}

/// Why matching may take longer than the text is.
fn fault_of(pattern: &str) -> Option<&'static str> {
    let (parts, is_anchored, ends) = parts_of(pattern.as_bytes());
    // Whether something behind a part can fail, so that others before it are tried again.
    let may_fail = |at: usize| {
        let rest = &parts[at + 1..];
        let rest_fails = rest.iter().any(|part| !part.may_be_nothing());
        rest_fails || ends && !parts[at..].iter().any(Part::takes_all)
    };
    for (first, part) in parts.iter().enumerate().filter(|(_, part)| part.varies()) {
        for (behind, other) in parts.iter().enumerate().skip(first + 1) {
            if other.varies() && part.meets(other) && may_fail(behind) {
                return Some("two parts that take the same, behind which something can fail");
            }
            if !other.may_be_nothing() && !part.meets(other) {
                break;
            }
        }
    }
    if is_anchored {
        return None;
    }
    // It is tried at every place: what begins it must not be in what the others go through.
    let (first, rest) = parts.split_first()?;
    let starts_anew = |at: usize| parts[at].varies() && first.meets(&parts[at]) && may_fail(at);
    (0..=rest.len()).any(starts_anew).then_some("it begins anew within what it has gone through")
}

/// The text of a literal, and what is behind it.
fn literal(text: &str) -> Option<(String, &str)> {
    let quote = text.chars().next().filter(|one| matches!(one, '"' | '\''))?;
    let (mut found, mut chars) = (String::new(), text[1..].char_indices());
    while let Some((at, one)) = chars.next() {
        match one {
            '\\' => {
                let (_, escaped) = chars.next()?;
                found.push(match escaped {
                    'n' => '\n',
                    'r' => '\r',
                    't' => '\t',
                    // Codes of bytes: controls.
                    '0'..='9' => '\x01',
                    other => other,
                });
            }
            one if one == quote => return Some((found, &text[at + 2..])),
            one => found.push(one),
        }
    }
    None
}

/// The patterns of a source, each with its line.
fn patterns(source: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for call in ["match(", "find(", "gsub("] {
        for (at, _) in source.match_indices(call) {
            let arguments = &source[at + call.len()..];
            let mut depth = 0;
            let comma = arguments.char_indices().find(|(_, one)| {
                depth += i32::from(matches!(one, '(' | '{' | '['));
                depth -= i32::from(matches!(one, ')' | '}' | ']'));
                depth < 0 || depth == 0 && *one == ','
            });
            let Some((comma, ',')) = comma else { continue };
            if let Some((pattern, rest)) = literal(arguments[comma + 1..].trim_start())
                && !rest.starts_with(", 1, true")
            {
                found.push((source[..at].lines().count(), pattern));
            }
        }
    }
    found
}

#[test]
fn patterns_of_the_library_take_no_longer_than_texts_are() {
    for bad in [
        "^(.-)%s*$",
        "[^/]*$",
        "^([^:@]+):?(%d*)$",
        "(.-)\r\n",
        "^(.-) ?(%S+)$",
        "x*y",
        "a.-b.-c",
        "^[ \t]*(.-)[ \t]*$",
    ] {
        assert!(fault_of(bad).is_some(), "{bad}");
    }
    for good in [
        "^(.*%S)",
        "^([^=]*)=(.*)$",
        "@[^@]*$",
        "#.*$",
        "[^,%s][^,]*",
        "/$",
        "^(.*/)",
        "[^/]*/?",
        "^%[([%x:.]+)%]:?(%d*)$",
        "%%(%x%x)",
        "^[%w+/]+==$",
        "^(%a[%w+.-]*)://(.*)$",
    ] {
        assert_eq!(fault_of(good), None, "{good}");
    }
    let (mut wrong, mut count) = (Vec::new(), 0);
    // What the library has written itself is short.
    let is_looked_at = |path: &str| path.starts_with("lua/") && path != "lua/init.lua";
    for (path, source) in sources(&["lua"]).iter().filter(|(path, _)| is_looked_at(path)) {
        for (line, pattern) in patterns(source) {
            count += 1;
            if let Some(why) = fault_of(&pattern) {
                wrong.push(format!("{path}:{line}: {pattern:?}: {why}"));
            }
        }
    }
    assert!(count > 40, "{count} patterns");
    assert_none(&wrong);
}
