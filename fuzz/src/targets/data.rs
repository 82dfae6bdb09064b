//! JSON and MessagePack as scripts have them: what `decode` makes in a VM is what `serde_json` and
//! `rmp-serde` find in the same bytes, with any options, wherever memory ends and whatever
//! finalisers do; and what `encode` writes is read as what it was.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ffi::c_int;
use std::fmt;

use node_lua::vm::stack::{Stack, function};
use node_lua::vm::state::State;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::message;
use super::program::{MEMORY, Program};

thread_local! {
    static PROGRAM: RefCell<Program> =
        const { RefCell::new(Program::new("@data.lua", include_str!("data.lua"))) };
}

/// Levels that the references are asked for.
const DEPTH_MAX: usize = 120;

/// Whole numbers beyond are not all exact as doubles.
const EXACT_MAX: u64 = 1 << 53;

/// A program for `data.lua`: options, what finalisers do, and the bytes, or how they are made.
pub(super) fn run(input: &[u8]) {
    PROGRAM.with_borrow_mut(|program| program.run(input, open));
}

/// Adds the modules' natives to the table of them, and to the globals what `data.lua` needs.
fn open(state: &State) {
    message::open(state);
    let lua = state.stack();
    lua.push_global(c"native_for_tests");
    for (name, native) in node_lua::lua::DATA_FUNCTIONS.iter().copied().flatten() {
        lua.push_function(*native);
        lua.set_field(-2, name);
    }
    lua.pop();
    for (name, function) in [
        (c"reference", function(reference)),
        (c"hold", function(hold)),
        (c"let_go", function(let_go)),
    ] {
        lua.push_function(function);
        lua.set_global(name);
    }
    lua.push_number(MEMORY as f64);
    lua.set_global(c"MEMORY");
}

/// The number that a text at this index says.
fn count(lua: Stack<'_>, index: c_int) -> usize {
    let text = lua.text(index).and_then(|text| std::str::from_utf8(text).ok());
    text.and_then(|text| text.parse().ok()).expect("a number")
}

/// `hold(bytes)`: counts so much as held outside of the VM
fn hold(lua: Stack<'_>) -> c_int {
    lua.push_boolean(lua.charge_for(count(lua, 1), 0));
    1
}

/// `let_go(bytes)`: takes that back
fn let_go(lua: Stack<'_>) -> c_int {
    lua.discharge(count(lua, 1));
    0
}

/// `reference(bytes, rules)`: what others find in bytes, as `data.lua` describes a value, and on
/// how many levels; nil and why if it is refused; nothing if it is too deep for them. In `rules`:
/// j for JSON; e and a if empty lists, or all, are marked; n if null is left out; i if all numbers
/// are doubles. More bytes may follow behind MessagePack.
fn reference(lua: Stack<'_>) -> c_int {
    let (bytes, rules) = (lua.text(1).unwrap_or_default(), lua.text(2).unwrap_or_default());
    let has = |rule: u8| rules.contains(&rule);
    let found = if has(b'j') {
        if bytes.iter().filter(|byte| matches!(byte, b'[' | b'{')).count() > DEPTH_MAX {
            return 0;
        }
        let mut from = serde_json::Deserializer::from_slice(bytes);
        let found = Seen::deserialize(&mut from).and_then(|seen| from.end().map(|()| seen));
        found.map_err(|error| error.to_string())
    } else {
        let mut from = rmp_serde::Deserializer::from_read_ref(bytes);
        from.set_max_depth(DEPTH_MAX);
        match Seen::deserialize(&mut from) {
            Err(rmp_serde::decode::Error::DepthLimitExceeded) => return 0,
            found => found.map_err(|error| error.to_string()),
        }
    };
    let mut described = Vec::new();
    match found.and_then(|seen| seen.describe(rules, &mut described)) {
        Ok(depth) => {
            lua.push_text(&described);
            lua.push_number(depth as f64);
        }
        Err(why) => {
            lua.push_nil();
            lua.push_text(why.as_bytes());
        }
    }
    2
}

/// What a reference has found.
enum Seen {
    Null,
    Bool(bool),
    Signed(i64),
    Unsigned(u64),
    Float(f64),
    Text(Vec<u8>),
    Bytes(Vec<u8>),
    List(Vec<Seen>),
    Map(Vec<(Seen, Seen)>),
    Extension(i8, Vec<u8>),
}

impl Seen {
    /// Adds a description, and returns how many levels of tables it has.
    fn describe(&self, rules: &[u8], to: &mut Vec<u8>) -> Result<usize, String> {
        let has = |rule: u8| rules.contains(&rule);
        let add_bytes = |kind: u8, bytes: &[u8], to: &mut Vec<u8>| {
            to.push(kind);
            to.extend_from_slice(format!("{}:", bytes.len()).as_bytes());
            to.extend_from_slice(bytes);
        };
        match self {
            Seen::Null => to.push(b'n'),
            Seen::Bool(value) => to.push(if *value { b't' } else { b'f' }),
            Seen::Signed(value) if value.unsigned_abs() <= EXACT_MAX || has(b'i') => {
                add_number(*value as f64, to);
            }
            Seen::Signed(value) => to.extend_from_slice(format!("i{value}").as_bytes()),
            Seen::Unsigned(value) => match i64::try_from(*value) {
                Ok(value) => return Seen::Signed(value).describe(rules, to),
                Err(_) if has(b'i') => add_number(*value as f64, to),
                Err(_) => to.extend_from_slice(format!("u{value}").as_bytes()),
            },
            Seen::Float(value) => add_number(*value, to),
            Seen::Text(bytes) | Seen::Bytes(bytes) => add_bytes(b's', bytes, to),
            Seen::Extension(kind, data) => {
                to.extend_from_slice(format!("x{kind}").as_bytes());
                add_bytes(b',', data, to);
            }
            Seen::List(values) => {
                let is_marked = has(b'a') || has(b'e') && values.is_empty();
                let keys = (1..=values.len()).map(|place| Seen::Float(place as f64));
                let entries = keys.zip(values);
                return describe_table(is_marked, entries, rules, to);
            }
            Seen::Map(pairs) => {
                let entries = pairs.iter().map(|(key, value)| (key.as_key(), value));
                return describe_table(false, entries, rules, to);
            }
        }
        Ok(0)
    }

    /// The same as a key, where all numbers are doubles, and bytes are text.
    fn as_key(&self) -> Seen {
        match self {
            Seen::Signed(value) => Seen::Float(*value as f64),
            Seen::Unsigned(value) => Seen::Float(*value as f64),
            Seen::Float(value) => Seen::Float(*value + 0.0),
            Seen::Text(text) | Seen::Bytes(text) => Seen::Text(text.clone()),
            Seen::Bool(value) => Seen::Bool(*value),
            _ => Seen::Null,
        }
    }
}

fn add_number(number: f64, to: &mut Vec<u8>) {
    let text = match number.is_nan() {
        true => "dnan".to_owned(),
        false => format!("d{:016x}", number.to_bits()),
    };
    to.extend_from_slice(text.as_bytes());
}

/// Describes a table: its entries in the order of what their keys are described as.
fn describe_table<'a>(
    is_marked: bool,
    entries: impl Iterator<Item = (Seen, &'a Seen)>,
    rules: &[u8],
    to: &mut Vec<u8>,
) -> Result<usize, String> {
    let (mut sorted, mut depth) = (BTreeMap::new(), 0);
    for (key, value) in entries {
        match key {
            Seen::Null => return Err("a key of another kind".to_owned()),
            Seen::Float(number) if number.is_nan() => return Err("NaN as a key".to_owned()),
            _ => {}
        }
        let (mut described_key, mut described) = (Vec::new(), Vec::new());
        key.describe(b"", &mut described_key)?;
        depth = depth.max(value.describe(rules, &mut described)?);
        // The last of several counts.
        sorted.insert(described_key, described);
    }
    to.push(if is_marked { b'[' } else { b'(' });
    let leaves_out = rules.contains(&b'n');
    for (key, value) in sorted.iter().filter(|(_, value)| !leaves_out || **value != b"n") {
        to.extend_from_slice(key);
        to.extend_from_slice(value);
    }
    to.push(b')');
    Ok(depth + 1)
}

/// Takes whatever comes.
struct Any;

impl<'de> Deserialize<'de> for Seen {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Seen, D::Error> {
        from.deserialize_any(Any)
    }
}

impl<'de> Visitor<'de> for Any {
    type Value = Seen;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E: Error>(self) -> Result<Seen, E> {
        Ok(Seen::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Seen, E> {
        Ok(Seen::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Seen, E> {
        Ok(Seen::Signed(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Seen, E> {
        Ok(Seen::Unsigned(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Seen, E> {
        Ok(Seen::Float(value))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Seen, E> {
        Ok(Seen::Text(value.as_bytes().to_vec()))
    }

    fn visit_bytes<E: Error>(self, value: &[u8]) -> Result<Seen, E> {
        Ok(Seen::Bytes(value.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Seen, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element()? {
            values.push(value);
        }
        Ok(Seen::List(values))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Seen, A::Error> {
        let mut pairs = Vec::new();
        while let Some(pair) = map.next_entry()? {
            pairs.push(pair);
        }
        Ok(Seen::Map(pairs))
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, from: D) -> Result<Seen, D::Error> {
        match from.deserialize_any(Any)? {
            Seen::List(parts) => match parts.as_slice() {
                [Seen::Signed(kind), Seen::Bytes(data)] => {
                    Ok(Seen::Extension(*kind as i8, data.clone()))
                }
                _ => Err(D::Error::custom("no extension")),
            },
            _ => Err(D::Error::custom("no extension")),
        }
    }
}
