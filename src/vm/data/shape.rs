//! Whether a table is a list, or keys and values.

use std::cmp::Ordering;

use super::marks::Mark;
use super::walk::{Keys, Sparse, WriteRules, number_text};
pub(super) use crate::vm::layout::Table;
use crate::vm::layout::{self, NIL, STRING, Slot, tag};
use crate::vm::stack::slots;

/// What a table is written as, and how many entries that has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// What is at 1, 2 and so on; holes among them are null.
    List(u32),
    Map(u32),
    /// The same with text and numbers as keys, which are all to be text.
    Mixed(u32),
}

/// How many keys of each sort a table has.
#[derive(Default)]
struct Census {
    /// Whole numbers from 1 on, and the largest of them.
    places: u32,
    last: f64,
    texts: u32,
    /// Other numbers, and one of them.
    numbers: u32,
    number: f64,
    /// Keys that are no text and no number.
    others: u32,
}

impl Table {
    /// What is at these places, none of which is in the array part.
    pub(super) fn behind(&self, first: u32, last: u32) -> impl Iterator<Item = (Slot, Slot)> {
        let places = f64::from(first)..=f64::from(last);
        let is_there = move |key: f64| is_place(key) && places.contains(&key);
        let found = self.hash().iter().filter(|node| node.value != NIL);
        let found = found.filter(move |node| slots::number(node.key).is_some_and(&is_there));
        found.map(|node| (node.key, node.value))
    }

    pub(super) fn entries(&self) -> impl Iterator<Item = (Slot, Slot)> {
        let listed = self.array().iter().enumerate();
        let listed = listed.map(|(index, slot)| ((index as f64).to_bits(), *slot));
        let hashed = self.hash().iter().map(|node| (node.key, node.value));
        listed.chain(hashed).filter(|(_, value)| *value != NIL)
    }

    /// What most tables are: a list without holes and nothing else, or text keys and nothing else.
    #[inline]
    pub(super) fn plain_shape(&self) -> Option<Shape> {
        if self.array_len == 0 {
            let (mut count, mut are_texts) = (0, true);
            for node in self.hash() {
                let is_there = node.value != NIL;
                count += u32::from(is_there);
                are_texts &= tag(node.key) == STRING || !is_there;
            }
            return (are_texts && count > 0).then_some(Shape::Map(count));
        }
        let (zero, list) = self.array().split_first()?;
        let len = list.iter().rposition(|slot| *slot != NIL)? + 1;
        let has_hole = list[..len].iter().fold(false, |any, slot| any | (*slot == NIL));
        let is_plain = *zero == NIL && !has_hole;
        let has_keys = || self.hash().iter().any(|node| node.value != NIL);
        (is_plain && !has_keys()).then_some(Shape::List(len as u32))
    }

    fn census(&self) -> Census {
        let mut census = Census::default();
        let mut last = 0;
        for (index, slot) in self.array().iter().enumerate() {
            if *slot != NIL {
                census.places += 1;
                last = index;
            }
        }
        census.last = last as f64;
        if self.array().first().is_some_and(|zero| *zero != NIL) {
            census.places -= 1;
            census.numbers += 1;
        }
        for node in self.hash().iter().filter(|node| node.value != NIL) {
            match tag(node.key) {
                STRING => census.texts += 1,
                _ => match slots::number(node.key) {
                    Some(number) => census.count_number(number),
                    None => census.others += 1,
                },
            }
        }
        census
    }
}

/// Which of two keys comes first: numbers before text, and that before others.
pub(super) fn compare(a: Slot, b: Slot) -> Ordering {
    match (slots::number(a), slots::number(b)) {
        (Some(a), Some(b)) => a.total_cmp(&b),
        (None, None) => text(a).cmp(&text(b)),
        (a, b) => a.is_none().cmp(&b.is_none()),
    }
}

/// A key that is the same as text as one of these numbers, which are in order, if there is one.
pub(super) fn find_twin(numbers: &[(Slot, Slot)], texts: &[(Slot, Slot)]) -> Option<f64> {
    let number = |key: Slot| slots::number(key).unwrap_or(f64::NAN);
    texts.iter().find_map(|(key, _)| {
        let text = std::str::from_utf8(text(*key)?).ok()?;
        let value = text.parse().ok()?;
        numbers.binary_search_by(|(key, _)| number(*key).total_cmp(&value)).ok()?;
        (number_text(value) == text).then_some(value)
    })
}

fn text<'a>(key: Slot) -> Option<&'a [u8]> {
    // SAFETY: the key of a live entry of a table that is being written.
    (tag(key) == STRING).then(|| unsafe { layout::text(key) })
}

fn is_place(number: f64) -> bool {
    number >= 1.0 && number <= f64::from(i32::MAX) && number.fract() == 0.0
}

impl Census {
    #[inline]
    fn count_number(&mut self, number: f64) {
        if is_place(number) {
            self.places += 1;
            self.last = self.last.max(number);
        } else {
            self.numbers += 1;
            self.number = number;
        }
    }
}

/// What any table is; in words, why it is nothing.
#[cold]
pub(super) fn shape(
    table: &Table,
    mark: Option<Mark>,
    rules: &WriteRules,
) -> Result<Shape, String> {
    let Census { places, last, texts, numbers, others, number } = table.census();
    let count = places + texts + numbers + others;
    if count == 0 {
        let is_list = match mark {
            Some(Mark::Array | Mark::EmptyArray) => true,
            Some(Mark::Object) => false,
            _ => rules.empty_is_list,
        };
        return Ok(if is_list { Shape::List(0) } else { Shape::Map(0) });
    }
    if mark == Some(Mark::Array) {
        if texts + numbers + others > 0 {
            return Err("is marked as an array, but has other keys than 1, 2 and so on".to_owned());
        }
        return Ok(Shape::List(last as u32));
    }
    if others > 0 && rules.keys == Keys::Text {
        return Err("has a key that is neither a string nor a number".to_owned());
    }
    if mark == Some(Mark::Object) {
        let is_mixed = rules.keys == Keys::Text && texts > 0 && texts < count;
        return Ok(if is_mixed { Shape::Mixed(count) } else { Shape::Map(count) });
    }
    let object = rules.object;
    if texts + numbers + others == 0 {
        let Sparse { safe, ratio, convert } = rules.sparse;
        let is_dense =
            last <= f64::from(safe) || ratio == 0 || last <= f64::from(places) * f64::from(ratio);
        return match (is_dense, convert) {
            (true, _) => Ok(Shape::List(last as u32)),
            (false, true) => Ok(Shape::Map(count)),
            (false, false) => Err(format!(
                "is an array of {last} places with {places} values; {object}(t) writes its keys"
            )),
        };
    }
    if rules.mixes || texts == count {
        return Ok(Shape::Map(count));
    }
    if texts > 0 && places > 0 {
        return Err(format!("has both string and array keys; {object}(t) writes them as keys"));
    }
    if rules.keys == Keys::Any {
        return Ok(Shape::Map(count));
    }
    Err(format!(
        "has the key {}, which is neither a string nor an array key; {object}(t) writes it as text",
        number_text(number)
    ))
}
