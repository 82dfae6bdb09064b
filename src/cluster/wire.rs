//! What processes of a cluster tell each other, as bytes: `docs/PROTOCOL.md`. Reading is safe on
//! any bytes: all is bounded by what is there, and nothing that only a VM would notice gets
//! through.

use crate::buf::Piece;
use crate::error::Code;
use crate::message::{Encoded, Ending, Failure, Malformed, SESSION_BITS, Text, Value, check};

/// The first byte of everything that is sent. Whoever sees another one does not read on.
pub const VERSION: u8 = 2;

/// Bytes of what is said of an end, at most.
const DETAIL_MAX: usize = 4096;

/// What can be said of an end.
const REASONS: [&str; 6] = ["gone", "normal", "error", "killed", "memory", "time"];

/// Bytes of a buffer up to which it is copied in place.
const SMALL_BUFFER: usize = 256;

/// Whom a message is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target<'a> {
    /// One of those who answer under a name.
    Name(&'a [u8]),
    /// A context, by the number that it has there.
    Context(u64),
}

/// One thing that is told. Contexts are numbers of the process that they are in.
#[derive(Debug, PartialEq)]
#[expect(missing_docs, reason = "fields are named in docs/PROTOCOL.md as they are here")]
pub enum Frame<'a> {
    /// The sender is there, is called so, and its list of names has this state. New ones ask for
    /// everybody's list.
    Alive { state: u64, node: &'a [u8], is_new: bool },
    /// Somebody there answers under a name: the list of names is in this state now.
    Came { state: u64, name: &'a [u8] },
    /// Nobody there does any more.
    Went { state: u64, name: &'a [u8], ending: Ending },
    /// The sender ends in order.
    Bye,
    /// A context there has ended that the receiver may know.
    Ended { context: u64, ending: Ending },
    /// Asks for the list of names.
    Ask,
    /// A part of that, in this state, and of the list of those that the sender knows.
    Names { part: u8, state: u64, node: &'a [u8], nodes: Vec<u64>, names: Vec<&'a [u8]> },
    /// A message, or a query if the session is above 0.
    Message { from: u64, session: u64, to: Target<'a>, value: Result<Value, Malformed> },
    /// The answer to one.
    Reply { to: u64, session: u64, result: Result<Value, Failure> },
    /// Nobody waits for that answer any more.
    Forget { from: u64, session: u64 },
    /// Asks for a sign of life, in turn with all else.
    Poll,
    /// The sign.
    Pong,
    /// Something that the receiver has sent did not get here.
    Gap,
    /// Are these queries still being dealt with?
    Check(Vec<(u64, u64)>),
    /// These are not.
    Unknown(Vec<(u64, u64)>),
}

/// Marks of [`Frame::Names`]: the first part of a list, and the last one.
pub(super) const FIRST: u8 = 1;
pub(super) const LAST: u8 = 2;

const ALIVE: u8 = 1;
const CAME: u8 = 2;
const WENT: u8 = 3;
const BYE: u8 = 4;
const ENDED: u8 = 5;
const ASK: u8 = 6;
const NAMES: u8 = 7;
const TO_NAME: u8 = 8;
const TO_CONTEXT: u8 = 9;
const REPLY: u8 = 10;
const FORGET: u8 = 11;
const POLL: u8 = 12;
const PONG: u8 = 13;
const GAP: u8 = 14;
const CHECK: u8 = 15;
const UNKNOWN: u8 = 16;

const NIL: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const NUMBER: u8 = 3;
const INT64: u8 = 4;
const UINT64: u8 = 5;
const STRING: u8 = 6;
const BUFFER: u8 = 7;
const TABLE: u8 = 8;

/// Writes a number in as many bytes as it needs: seven bits in each, the lowest first.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// Writes bytes behind their number.
pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes the version and who sends.
pub(super) fn put_head(out: &mut Vec<u8>, node: u64) {
    out.push(VERSION);
    out.extend_from_slice(&node.to_le_bytes());
}

/// What publications are put in order by: their process, and the number of the parcel there.
pub(super) fn order(bytes: &[u8]) -> Option<(u64, u64)> {
    let mut reader = Reader(bytes.get(1..)?);
    let [node, number] = [reader.take().ok()?, reader.take().ok()?].map(u64::from_le_bytes);
    Some((node, number))
}

/// Whether what everybody is told ends a name: what was published before comes first.
pub(super) fn ends_a_name(bytes: &[u8]) -> bool {
    let Ok((_, mut reader)) = Reader::new(bytes) else { return false };
    let mut frames = std::iter::from_fn(|| (!reader.is_empty()).then(|| reader.frame()));
    frames.any(|frame| !matches!(frame, Ok(Frame::Alive { .. } | Frame::Came { .. })))
}

fn put_ending(out: &mut Vec<u8>, ending: &Ending) {
    let reason = REASONS.iter().position(|reason| *reason == ending.reason).unwrap_or(0);
    out.push(reason as u8);
    let detail = ending.detail.as_deref().unwrap_or_default();
    out.push(u8::from(ending.detail.is_some()));
    put_bytes(out, &detail[..detail.len().min(DETAIL_MAX)]);
}

fn put_queries(out: &mut Vec<u8>, kind: u8, queries: &[(u64, u64)]) {
    out.push(kind);
    put_number(out, queries.len() as u64);
    for (context, session) in queries {
        put_number(out, *context);
        put_number(out, *session);
    }
}

/// Writes a value; on failure what was written before it stays.
///
/// # Errors
/// It has an address in memory in it, or is more than its sender may hold.
pub fn put_value(out: &mut Vec<u8>, value: &Value) -> Result<(), Malformed> {
    match value {
        Value::Nil => out.push(NIL),
        Value::Bool(value) => out.push(if *value { TRUE } else { FALSE }),
        Value::Number(value) => {
            out.push(NUMBER);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::Int64(value) => {
            out.push(INT64);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::UInt64(value) => {
            out.push(UINT64);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Value::String(text) => {
            out.push(STRING);
            put_bytes(out, text.as_bytes());
        }
        Value::SmallBuffer(bytes) => {
            out.push(BUFFER);
            put_bytes(out, bytes);
        }
        Value::Buffer(piece) => {
            out.push(BUFFER);
            put_bytes(out, piece);
        }
        Value::Table(table) => {
            check(table.bytes(), table.buffers().len())?;
            out.push(TABLE);
            put_bytes(out, table.bytes());
            put_number(out, table.buffers().len() as u64);
            for piece in table.buffers() {
                put_bytes(out, piece);
            }
        }
        Value::Counted(inner) => return put_value(out, &inner.0),
        Value::LightUserdata(_) | Value::TooMuch => return Err(Malformed::Tag(u8::MAX)),
    }
    Ok(())
}

/// Writes an answer, whose value is written already.
pub(super) fn put_reply(out: &mut Vec<u8>, to: u64, session: u64, result: Result<&[u8], &Failure>) {
    out.push(REPLY);
    put_number(out, to);
    put_number(out, session);
    match result {
        Ok(value) => {
            out.push(0);
            out.extend_from_slice(value);
        }
        Err(Failure { code, text }) => {
            put_number(out, u64::from(code.0));
            put_bytes(out, text.as_deref().unwrap_or_default().as_bytes());
        }
    }
}

/// Writes a message, whose value is written already. It stands behind its length, so that who
/// cannot read it goes on with what follows.
pub(super) fn put_message(
    out: &mut Vec<u8>,
    from: u64,
    session: u64,
    to: Target<'_>,
    value: &[u8],
) {
    match to {
        Target::Name(name) => {
            out.push(TO_NAME);
            put_bytes(out, name);
        }
        Target::Context(context) => {
            out.push(TO_CONTEXT);
            put_number(out, context);
        }
    }
    put_number(out, from);
    put_number(out, session);
    put_bytes(out, value);
}

impl<'a> Frame<'a> {
    /// Writes it; values that do not travel are left out.
    pub fn put(&self, out: &mut Vec<u8>) {
        match self {
            Frame::Alive { state, node, is_new } => {
                out.push(ALIVE);
                put_number(out, *state);
                put_bytes(out, node);
                out.push(u8::from(*is_new));
            }
            Frame::Came { state, name } => {
                out.push(CAME);
                put_number(out, *state);
                put_bytes(out, name);
            }
            Frame::Went { state, name, ending } => {
                out.push(WENT);
                put_number(out, *state);
                put_bytes(out, name);
                put_ending(out, ending);
            }
            Frame::Bye => out.push(BYE),
            Frame::Ended { context, ending } => {
                out.push(ENDED);
                put_number(out, *context);
                put_ending(out, ending);
            }
            Frame::Ask => out.push(ASK),
            Frame::Names { part, state, node, nodes, names } => {
                out.extend_from_slice(&[NAMES, *part]);
                put_number(out, *state);
                put_bytes(out, node);
                put_number(out, nodes.len() as u64);
                nodes.iter().for_each(|node| out.extend_from_slice(&node.to_le_bytes()));
                put_number(out, names.len() as u64);
                names.iter().for_each(|name| put_bytes(out, name));
            }
            Frame::Message { from, session, to, value } => {
                let mut bytes = Vec::new();
                let _ = value.as_ref().map(|value| put_value(&mut bytes, value));
                put_message(out, *from, *session, *to, &bytes);
            }
            Frame::Reply { to, session, result } => {
                let mut bytes = Vec::new();
                let result = result.as_ref().map(|value| put_value(&mut bytes, value));
                put_reply(out, *to, *session, result.map(|_| &bytes[..]));
            }
            Frame::Forget { from, session } => {
                out.push(FORGET);
                put_number(out, *from);
                put_number(out, *session);
            }
            Frame::Poll => out.push(POLL),
            Frame::Pong => out.push(PONG),
            Frame::Gap => out.push(GAP),
            Frame::Check(queries) => put_queries(out, CHECK, queries),
            Frame::Unknown(queries) => put_queries(out, UNKNOWN, queries),
        }
    }
}

/// Reads what [`Frame::put`] and its like have written, and any other bytes.
#[derive(Clone, Debug)]
pub struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    /// Reads what follows the head; and who has sent it. None if it has another version, or no
    /// head: then the version, if there is one, and the sender.
    ///
    /// # Errors
    /// The version, and the sender, if there are such.
    pub fn new(bytes: &'a [u8]) -> Result<(u64, Reader<'a>), Option<(u8, u64)>> {
        let mut reader = Reader(bytes);
        let (Ok([version]), Ok(node)) = (reader.take(), reader.take()) else { return Err(None) };
        let node = u64::from_le_bytes(node);
        if version == VERSION { Ok((node, reader)) } else { Err(Some((version, node))) }
    }

    /// Whether there is nothing more.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The next `N` bytes.
    pub(super) fn take<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (bytes, rest) = self.0.split_first_chunk().ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(*bytes)
    }

    /// What [`put_number`] has written.
    pub(super) fn number(&mut self) -> Result<u64, Malformed> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.take()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(Malformed::Truncated)
    }

    /// The session of a query, which scripts have as a Lua number, or 0.
    fn session(&mut self) -> Result<u64, Malformed> {
        let session = self.number()?;
        if session < 1 << SESSION_BITS { Ok(session) } else { Err(Malformed::Truncated) }
    }

    /// What [`put_bytes`] has written.
    pub(super) fn bytes(&mut self) -> Result<&'a [u8], Malformed> {
        let length = self.number()?;
        let length = usize::try_from(length).map_err(|_| Malformed::Truncated)?;
        let (bytes, rest) = self.0.split_at_checked(length).ok_or(Malformed::Truncated)?;
        self.0 = rest;
        Ok(bytes)
    }

    /// How many follow, each of which takes a byte at least.
    fn count(&mut self) -> Result<usize, Malformed> {
        let count = self.number()?;
        if count > self.0.len() as u64 { Err(Malformed::Truncated) } else { Ok(count as usize) }
    }

    fn ending(&mut self) -> Result<Ending, Malformed> {
        let [reason, has_detail] = self.take()?;
        let reason = REASONS.get(usize::from(reason)).copied().unwrap_or(REASONS[0]);
        let detail = self.bytes()?;
        let detail = &detail[..detail.len().min(DETAIL_MAX)];
        Ok(Ending { reason, detail: (has_detail != 0).then(|| detail.to_vec()) })
    }

    fn queries(&mut self) -> Result<Vec<(u64, u64)>, Malformed> {
        let count = self.count()?;
        (0..count).map(|_| Ok((self.number()?, self.number()?))).collect()
    }

    /// A value.
    ///
    /// # Errors
    /// No writer has made it.
    pub fn value(&mut self) -> Result<Value, Malformed> {
        let [tag] = self.take()?;
        Ok(match tag {
            NIL => Value::Nil,
            FALSE => Value::Bool(false),
            TRUE => Value::Bool(true),
            NUMBER => Value::Number(f64::from_le_bytes(self.take()?)),
            INT64 => Value::Int64(i64::from_le_bytes(self.take()?)),
            UINT64 => Value::UInt64(u64::from_le_bytes(self.take()?)),
            STRING => Value::String(Text::new(self.bytes()?)),
            BUFFER => match self.bytes()? {
                bytes if bytes.len() <= SMALL_BUFFER => Value::SmallBuffer(bytes.into()),
                bytes => Value::Buffer(Box::new(Piece::copy(bytes))),
            },
            TABLE => {
                let wire = self.bytes()?;
                let count = self.count()?;
                let mut buffers = Vec::new();
                for _ in 0..count {
                    buffers.push(Piece::copy(self.bytes()?));
                }
                check(wire, count)?;
                Value::Table(Encoded::new(wire, buffers))
            }
            tag => return Err(Malformed::Tag(tag)),
        })
    }

    /// What comes next.
    ///
    /// # Errors
    /// No process of this version has written it. What follows cannot be read then.
    pub fn frame(&mut self) -> Result<Frame<'a>, Malformed> {
        let [kind] = self.take()?;
        Ok(match kind {
            ALIVE => {
                let (state, node, [is_new]) = (self.number()?, self.bytes()?, self.take()?);
                Frame::Alive { state, node, is_new: is_new != 0 }
            }
            CAME => Frame::Came { state: self.number()?, name: self.bytes()? },
            WENT => {
                let (state, name, ending) = (self.number()?, self.bytes()?, self.ending()?);
                Frame::Went { state, name, ending }
            }
            BYE => Frame::Bye,
            ENDED => Frame::Ended { context: self.number()?, ending: self.ending()? },
            ASK => Frame::Ask,
            NAMES => {
                let ([part], state, node) = (self.take()?, self.number()?, self.bytes()?);
                let count = self.count()?;
                let nodes = (0..count).map(|_| self.take().map(u64::from_le_bytes));
                let nodes = nodes.collect::<Result<_, _>>()?;
                let count = self.count()?;
                let names = (0..count).map(|_| self.bytes()).collect::<Result<_, _>>()?;
                Frame::Names { part, state, node, nodes, names }
            }
            TO_NAME | TO_CONTEXT => {
                let to = match kind {
                    TO_NAME => Target::Name(self.bytes()?),
                    _ => Target::Context(self.number()?),
                };
                let (from, session) = (self.number()?, self.session()?);
                let mut inner = Reader(self.bytes()?);
                let value = inner.value().and_then(|value| match inner.is_empty() {
                    true => Ok(value),
                    false => Err(Malformed::Truncated),
                });
                Frame::Message { from, session, to, value }
            }
            REPLY => {
                let (to, session) = (self.number()?, self.number()?);
                let result = match self.number()? {
                    0 => Ok(self.value()?),
                    code => {
                        let code = Code(u16::try_from(code).unwrap_or(Code::NO_REPLY.0));
                        let text = match self.bytes()? {
                            [] => None,
                            text => Some(String::from_utf8_lossy(text).into()),
                        };
                        Err(Failure { code, text })
                    }
                };
                Frame::Reply { to, session, result }
            }
            FORGET => Frame::Forget { from: self.number()?, session: self.number()? },
            POLL => Frame::Poll,
            PONG => Frame::Pong,
            GAP => Frame::Gap,
            CHECK => Frame::Check(self.queries()?),
            UNKNOWN => Frame::Unknown(self.queries()?),
            kind => return Err(Malformed::Tag(kind)),
        })
    }
}
