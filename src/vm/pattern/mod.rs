//! Lua's patterns, matched in steps that are counted: every so many of them whoever wants the match
//! is asked, and may give it up by unwinding.
//!
//! LuaJIT's own cannot be interrupted, and there are patterns that take it years. This one finds
//! what that one finds, and finds the same faults where that one does. No VM; `strings.rs` has the
//! functions of `string` that use it.

mod captures;
mod classes;

use std::cell::Cell;
use std::ffi::CStr;

use captures::{Capture, Captures};
use classes::{Members, is_in_set, is_of_class};

/// Pairs of parentheses in a pattern, at most.
const CAPTURES_MAX: usize = 32;

/// Calls of [`Matcher::item`] within each other, at most.
const DEPTH_MAX: u32 = 200;

/// Steps, of a nanosecond or a few, between two calls.
const STEPS: usize = 1 << 17;

/// Longer sets are not gone through for each byte.
const SET_MAX: usize = 32;

/// Instead of its length, what an unfinished capture has, and one of a position.
const UNFINISHED: i32 = -1;
const POSITION: i32 = -2;

/// What is wrong with a pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Bracket,
    Capture,
    End,
    Missing,
    Unbalanced,
    Complex,
    Index,
    Many,
    Unfinished,
}

impl Fault {
    /// LuaJIT's words for it, as a format.
    pub(crate) fn text(self) -> &'static CStr {
        match self {
            Fault::Bracket => c"missing '[' after '%%f' in pattern",
            Fault::Capture => c"invalid pattern capture",
            Fault::End => c"malformed pattern (ends with '%%')",
            Fault::Missing => c"malformed pattern (missing ']')",
            Fault::Unbalanced => c"unbalanced pattern",
            Fault::Complex => c"pattern too complex",
            Fault::Index => c"invalid capture index",
            Fault::Many => c"too many captures",
            Fault::Unfinished => c"unfinished capture",
        }
    }
}

/// What a pair of parentheses stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Captured<'a> {
    Text(&'a [u8]),
    /// A position, counted from 1.
    Position(usize),
}

/// Whom a matcher serves.
pub(crate) trait Caller {
    /// Called from time to time.
    fn pause(&self);
    /// Called when the pattern is wrong.
    fn fail(&self, fault: Fault) -> !;
}

/// What is known of what a part of the pattern matches: it begins with the single character that
/// is from here to there in the pattern.
#[derive(Clone, Copy)]
enum Lead {
    /// Nobody has looked.
    Unknown,
    Anything,
    Single(usize, usize),
}

/// Matches a pattern against a subject.
pub(crate) struct Matcher<'a, C> {
    subject: &'a [u8],
    /// Ends with a zero.
    pattern: &'a [u8],
    caller: C,
    steps: Cell<usize>,
    /// Where the long set begins that was asked for last, and what is in it.
    set: Cell<(usize, Members)>,
    level: usize,
    captures: Captures,
}

impl<'a, C: Caller> Matcher<'a, C> {
    /// A matcher for a pattern that ends with a zero.
    #[inline]
    pub(crate) fn new(subject: &'a [u8], pattern: &'a [u8], caller: C) -> Matcher<'a, C> {
        debug_assert_eq!(pattern.last(), Some(&0));
        let set = Cell::new((usize::MAX, Members::default()));
        let (steps, captures) = (Cell::new(0), Captures::default());
        Matcher { subject, pattern, caller, steps, set, level: 0, captures }
    }

    /// Matches the pattern from its byte `from` at the first place of the subject that it matches
    /// at, or only at `start`; returns where that begins and ends.
    #[inline]
    pub(crate) fn find(
        &mut self,
        start: usize,
        from: usize,
        is_anchored: bool,
    ) -> Option<(usize, usize)> {
        self.level = 0;
        if is_anchored {
            return self.item(start, from, 1).map(|end| (start, end));
        }
        let lead = self.lead(from, 1);
        let mut at = start;
        while at <= self.subject.len() {
            self.level = 0;
            let found = match lead {
                Lead::Single(p, end) => {
                    at = self.seek(at, p, end)?;
                    self.begin(at, from, p, end)
                }
                _ => self.item(at, from, 1),
            };
            if let Some(end) = found {
                return Some((at, end));
            }
            self.step(1);
            at += 1;
        }
        None
    }

    /// [`Matcher::item`] for the whole pattern, from `from`, whose lead, from `p` to `end`, matches
    /// at `s`.
    #[inline]
    fn begin(&mut self, s: usize, from: usize, p: usize, end: usize) -> Option<usize> {
        let depth = if p > from {
            // What else could be in between is no lead.
            self.captures.set(0, Capture { start: s as u32, len: UNFINISHED });
            self.level = 1;
            2
        } else {
            1
        };
        self.step(end - p);
        let found = match self.pattern[end] {
            b'+' => self.most(s + 1, p, end, depth),
            _ => self.item(s + 1, end, depth),
        };
        if found.is_none() {
            self.level = 0;
        }
        found
    }

    #[inline]
    pub(crate) fn whole(&self, start: usize, end: usize) -> &'a [u8] {
        &self.subject[start..end]
    }

    /// How many values a match has: its captures, or itself.
    #[inline]
    pub(crate) fn values(&self) -> usize {
        self.level.max(1)
    }

    /// How many captures a match has.
    #[inline]
    pub(crate) fn captures(&self) -> usize {
        self.level
    }

    /// One of the values of the match from `start` to `end`.
    #[inline]
    pub(crate) fn value(&self, index: usize, start: usize, end: usize) -> Captured<'a> {
        if index >= self.level {
            if index > 0 {
                self.caller.fail(Fault::Index);
            }
            return Captured::Text(self.whole(start, end));
        }
        let Capture { start, len } = self.captures.get(index);
        let start = start as usize;
        match len {
            UNFINISHED => self.caller.fail(Fault::Unfinished),
            POSITION => Captured::Position(start + 1),
            len => Captured::Text(self.whole(start, start + len as usize)),
        }
    }

    #[inline]
    fn step(&mut self, count: usize) {
        self.count(count);
        if self.steps.get() >= STEPS {
            self.pause();
        }
    }

    /// The same where nobody can be asked.
    #[inline]
    fn count(&self, count: usize) {
        self.steps.set(self.steps.get() + count);
    }

    #[cold]
    fn pause(&mut self) {
        self.steps.set(0);
        self.caller.pause();
    }

    /// Where the single character of the pattern ends that begins at `p`.
    #[inline]
    fn class_end(&self, p: usize) -> usize {
        match self.pattern[p] {
            b'%' if self.pattern[p + 1] == 0 => self.caller.fail(Fault::End),
            b'%' => p + 2,
            b'[' => self.set_end(p),
            _ => p + 1,
        }
    }

    fn set_end(&self, p: usize) -> usize {
        let mut at = p + 1 + usize::from(self.pattern[p + 1] == b'^');
        // The first may be a `]`.
        loop {
            match self.pattern[at] {
                0 => self.caller.fail(Fault::Missing),
                b'%' if self.pattern[at + 1] != 0 => at += 2,
                _ => at += 1,
            }
            if self.pattern[at] == b']' {
                return at + 1;
            }
        }
    }

    /// Whether a byte matches the single character from `p` to `end`.
    #[inline(always)]
    fn is_single(&self, byte: u8, p: usize, end: usize) -> bool {
        match self.pattern[p] {
            b'.' => true,
            b'%' => is_of_class(byte, self.pattern[p + 1]),
            b'[' => self.is_in_set(byte, p, end),
            one => one == byte,
        }
    }

    #[inline]
    fn is_in_set(&self, byte: u8, p: usize, end: usize) -> bool {
        match &self.pattern[p..end - 1] {
            set if set.len() <= SET_MAX => is_in_set(byte, set),
            set => self.is_in_long_set(byte, p, set),
        }
    }

    fn is_in_long_set(&self, byte: u8, p: usize, set: &[u8]) -> bool {
        if self.set.get().0 != p {
            self.count(set.len());
            self.set.set((p, Members::of(set)));
        }
        self.set.get().1.has(byte)
    }

    /// The single character that whatever matches the pattern from `p` begins with, if there is
    /// one, and [`Matcher::item`] would find no fault before it.
    fn lead(&self, mut p: usize, depth: u32) -> Lead {
        if depth + 1 >= DEPTH_MAX {
            return Lead::Anything;
        }
        match self.pattern[p] {
            b'(' if self.level < CAPTURES_MAX => p += 1,
            b')' if self.innermost().is_some() => p += 1,
            _ => {}
        }
        match self.pattern[p] {
            0 | b'(' | b')' => return Lead::Anything,
            b'$' if self.pattern[p + 1] == 0 => return Lead::Anything,
            b'%' if matches!(self.pattern[p + 1], b'b' | b'f' | b'0'..=b'9') => {
                return Lead::Anything;
            }
            _ => {}
        }
        let end = self.class_end(p);
        match self.pattern[end] {
            b'*' | b'?' | b'-' => Lead::Anything,
            _ => Lead::Single(p, end),
        }
    }

    /// Where the subject, from `s` on, has the first byte that matches a single character.
    fn seek(&mut self, s: usize, p: usize, end: usize) -> Option<usize> {
        let subject = self.subject;
        let rest = subject.get(s..)?;
        let found = match self.pattern[p] {
            b'.' => (!rest.is_empty()).then_some(0),
            b'[' => self.seek_set(rest, p, end, true),
            b'%' => {
                let class = self.pattern[p + 1];
                rest.iter().position(|byte| is_of_class(*byte, class))
            }
            one => memchr::memchr(one, rest),
        };
        self.step(found.unwrap_or(rest.len()));
        found.map(|at| s + at)
    }

    /// Where the first byte is that is in a set, or is not.
    #[inline]
    fn seek_set(&mut self, rest: &[u8], p: usize, end: usize, is_in: bool) -> Option<usize> {
        let set = &self.pattern[p..end - 1];
        if let [_, b'^', one] = *set {
            // What separators are kept from.
            return rest.iter().position(|byte| (*byte != one) == is_in);
        }
        for (index, part) in rest.chunks(STEPS / 64).enumerate() {
            let found = part.iter().position(|byte| self.is_in_set(*byte, p, end) == is_in);
            self.step(found.unwrap_or(part.len()) * set.len().min(SET_MAX));
            if let Some(at) = found {
                return Some(index * (STEPS / 64) + at);
            }
        }
        None
    }

    /// Where what matches the rest of the pattern, from `p`, ends; it begins at `s`.
    fn item(&mut self, mut s: usize, mut p: usize, depth: u32) -> Option<usize> {
        if depth > DEPTH_MAX {
            self.caller.fail(Fault::Complex);
        }
        loop {
            match self.pattern[p] {
                0 => return Some(s),
                b'(' if self.pattern[p + 1] == b')' => return self.open(s, p + 2, POSITION, depth),
                b'(' => return self.open(s, p + 1, UNFINISHED, depth),
                b')' => return self.close(s, p + 1, depth),
                b'$' if self.pattern[p + 1] == 0 => return (s == self.subject.len()).then_some(s),
                b'%' => match self.pattern[p + 1] {
                    b'b' => {
                        s = self.balanced(s, p + 2)?;
                        p += 4;
                        continue;
                    }
                    b'f' => {
                        p = self.frontier(s, p + 2)?;
                        continue;
                    }
                    digit @ b'0'..=b'9' => {
                        s = self.again(s, digit)?;
                        p += 2;
                        continue;
                    }
                    _ => {}
                },
                _ => {}
            }
            let end = self.class_end(p);
            self.step(end - p);
            let is_match = match self.subject.get(s) {
                Some(byte) => self.is_single(*byte, p, end),
                None => false,
            };
            match self.pattern[end] {
                b'?' => {
                    if is_match && let Some(found) = self.item(s + 1, end + 1, depth + 1) {
                        return Some(found);
                    }
                    p = end + 1;
                }
                b'*' => return self.most(s, p, end, depth),
                b'+' if is_match => return self.most(s + 1, p, end, depth),
                b'-' => return self.least(s, p, end, depth),
                _ if is_match => {
                    s += 1;
                    p = end;
                }
                _ => return None,
            }
        }
    }

    /// Whether what follows, which begins with this character, cannot match at `s`.
    #[inline]
    fn is_off(&self, s: usize, lead: Lead) -> bool {
        let Lead::Single(p, end) = lead else { return false };
        self.subject.get(s).is_none_or(|byte| !self.is_single(*byte, p, end))
    }

    /// As many as there are, then fewer.
    fn most(&mut self, s: usize, p: usize, end: usize, depth: u32) -> Option<usize> {
        let mut count = self.run(s, p, end);
        match self.pattern[end + 1] {
            _ if depth == DEPTH_MAX => {}
            0 => return Some(s + count),
            // With fewer it is not the end either.
            b'$' if self.pattern[end + 2] == 0 => {
                return (s + count == self.subject.len()).then_some(s + count);
            }
            _ => {}
        }
        let mut lead = Lead::Unknown;
        loop {
            if !self.is_off(s + count, lead)
                && let Some(found) = self.item(s + count, end + 1, depth + 1)
            {
                return Some(found);
            }
            self.step(1);
            count = count.checked_sub(1)?;
            if let Lead::Unknown = lead {
                lead = self.lead(end + 1, depth);
            }
        }
    }

    /// How many bytes from `s` on match a single character.
    fn run(&mut self, s: usize, p: usize, end: usize) -> usize {
        let rest = &self.subject[s..];
        let other = match self.pattern[p] {
            b'.' => return rest.len(),
            b'[' => self.seek_set(rest, p, end, false),
            b'%' => {
                let class = self.pattern[p + 1];
                rest.iter().position(|byte| !is_of_class(*byte, class))
            }
            one => rest.iter().position(|byte| *byte != one),
        };
        let count = other.unwrap_or(rest.len());
        self.step(count);
        count
    }

    /// None, then more.
    fn least(&mut self, mut s: usize, p: usize, end: usize, depth: u32) -> Option<usize> {
        if let Some(first) = self.least_before_tail(s, end + 1, depth) {
            // Less than that would leave something between it and the tail.
            self.step(first - s);
            let between = &self.subject[s..first];
            let is_match = |byte: &u8| self.is_single(*byte, p, end);
            if self.pattern[p] != b'.' && !between.iter().all(is_match) {
                return None;
            }
            return self.item(first, end + 1, depth + 1);
        }
        let mut lead = Lead::Unknown;
        loop {
            if !self.is_off(s, lead) {
                if let Some(found) = self.item(s, end + 1, depth + 1) {
                    return Some(found);
                }
                if let Lead::Unknown = lead {
                    lead = self.lead(end + 1, depth);
                }
            }
            self.step(end - p);
            let byte = self.subject.get(s)?;
            if !self.is_single(*byte, p, end) {
                return None;
            }
            s += 1;
        }
    }

    /// If the rest of the pattern, from `p`, is one character, as often as it occurs, up to the end
    /// of the subject, perhaps behind the end of a capture (as in `(.-)%s*$`): the first place from
    /// which on the subject has nothing else.
    fn least_before_tail(&mut self, s: usize, mut p: usize, depth: u32) -> Option<usize> {
        if self.pattern[p] == b')' && self.innermost().is_some() {
            p += 1;
        }
        let end = match self.pattern[p] {
            b'%' if self.pattern[p + 1].is_ascii_alphabetic() => p + 2,
            b' ' => p + 1,
            _ => return None,
        };
        let is_tail = self.pattern[end..].starts_with(b"*$\0") && depth + 3 < DEPTH_MAX;
        if !is_tail || matches!(self.pattern[p + 1], b'b' | b'f') {
            return None;
        }
        let rest = &self.subject[s..];
        let other = rest.iter().rposition(|byte| !self.is_single(*byte, p, end));
        self.step(rest.len());
        Some(other.map_or(s, |at| s + at + 1))
    }

    fn open(&mut self, s: usize, p: usize, len: i32, depth: u32) -> Option<usize> {
        let level = self.level;
        if level == CAPTURES_MAX {
            self.caller.fail(Fault::Many);
        }
        self.captures.set(level, Capture { start: s as u32, len });
        self.level = level + 1;
        let found = self.item(s, p, depth + 1);
        if found.is_none() {
            self.level -= 1;
        }
        found
    }

    /// The innermost capture that is not finished.
    #[inline]
    fn innermost(&self) -> Option<usize> {
        (0..self.level).rfind(|index| self.captures.get(*index).len == UNFINISHED)
    }

    fn close(&mut self, s: usize, p: usize, depth: u32) -> Option<usize> {
        let Some(index) = self.innermost() else { self.caller.fail(Fault::Capture) };
        let start = self.captures.get(index).start;
        self.captures.set(index, Capture { start, len: (s - start as usize) as i32 });
        let found = self.item(s, p, depth + 1);
        if found.is_none() {
            self.captures.set(index, Capture { start, len: UNFINISHED });
        }
        found
    }

    /// Where a balanced text ends.
    #[inline(never)]
    fn balanced(&mut self, s: usize, p: usize) -> Option<usize> {
        let opens = self.pattern[p];
        if opens == 0 || self.pattern[p + 1] == 0 {
            self.caller.fail(Fault::Unbalanced);
        }
        let closes = self.pattern[p + 1];
        let rest = &self.subject[s..];
        if rest.first() != Some(&opens) {
            return None;
        }
        let mut depth = 1;
        let end = rest.iter().skip(1).position(|byte| {
            depth += i32::from(*byte == opens && *byte != closes) - i32::from(*byte == closes);
            depth == 0
        });
        self.step(end.unwrap_or(rest.len()));
        end.map(|end| s + end + 2)
    }

    /// Where the set of a frontier ends, if there is one at `s`.
    #[inline(never)]
    fn frontier(&mut self, s: usize, p: usize) -> Option<usize> {
        if self.pattern[p] != b'[' {
            self.caller.fail(Fault::Bracket);
        }
        let end = self.set_end(p);
        self.step(end - p);
        let before = s.checked_sub(1).map_or(0, |before| self.subject[before]);
        let after = self.subject.get(s).copied().unwrap_or(0);
        (!self.is_in_set(before, p, end) && self.is_in_set(after, p, end)).then_some(end)
    }

    /// Where a capture that occurs once more ends.
    #[inline(never)]
    fn again(&mut self, s: usize, digit: u8) -> Option<usize> {
        let index = usize::from(digit).wrapping_sub(usize::from(b'1'));
        if index >= self.level || self.captures.get(index).len == UNFINISHED {
            self.caller.fail(Fault::Index);
        }
        let Capture { start, len } = self.captures.get(index);
        // That of a position is longer than any subject.
        let len = usize::try_from(len).ok()?;
        self.step(len);
        let text = self.whole(start as usize, start as usize + len);
        self.subject[s..].starts_with(text).then_some(s + len)
    }
}
