//! Frames: reading and writing sockets.
//!
//! This is what scripts do for every message: an event of a socket brings the frames that are
//! waited for, many at once, and plain writes have functions that compiled code calls through the
//! FFI.

use std::cell::Cell;
use std::ffi::c_int;
use std::ops::Range;

use super::buffer::userdata::{buffer_at, charge_frames, collect, push_frames};
use super::buffer::values::{with_buffer, with_text};
use super::confine::Deny;
use crate::buf::{NlBuffer, ReadBuffer};
use crate::error::Code;
use crate::frame::{Decoder, Delimiter, FrameError};
use crate::hint::rarely;
use crate::lua;
use crate::lua::host::{self, Host};
use crate::message::Held;
use crate::net::{Body, Connection, Read, SharedWriter, WriteBatch};
use crate::vm::coroutine::refuse_wait;
use crate::vm::hook;
use crate::vm::stack::{Nil, Results, Stack, function};

pub(super) const FUNCTIONS: super::native::Functions = &[
    (c"read", function(read)),
    (c"write", function(write)),
    (c"read_piece", function(read_piece)),
    (c"restore", function(restore)),
    (c"stage_pointers", function(stage_pointers)),
];

/// A block that is read into, once one is needed.
type Scratch = Option<Box<ReadBuffer>>;

thread_local! {
    /// The block that this worker reads sockets into.
    static SCRATCH: Cell<Scratch> = const { Cell::new(None) };
}

/// Takes that block, or a new one if it is in use.
#[inline]
fn take_scratch() -> Box<ReadBuffer> {
    SCRATCH.take().unwrap_or_default()
}

/// Gives it back. If an error is raised instead, the next use makes one.
#[inline]
fn keep_scratch(block: Box<ReadBuffer>) {
    if let Some(other) = SCRATCH.replace(Some(block)) {
        free_scratch(other);
    }
}

/// A block that was made meanwhile is dropped.
#[cold]
fn free_scratch(block: Box<ReadBuffer>) {
    drop(block);
}

/// Calls `body` with that block. Calls inside it get another.
pub(super) fn with_scratch<R>(body: impl FnOnce(&mut ReadBuffer) -> R) -> R {
    let mut block = take_scratch();
    let result = body(&mut block);
    keep_scratch(block);
    result
}

/// The most frames that are handed out at once.
const FRAMES_MAX: usize = 16;

/// Calls `body`, which may run finalisers, while frames of a socket are being handed out: meanwhile
/// reads of the same socket find nothing, since they would take frames out of order.
pub(super) fn while_reading(key: u64, body: impl FnOnce()) {
    let before = host::with(|host| std::mem::replace(&mut host.sockets.reading, key));
    body();
    host::with(|host| host.sockets.reading = before);
}

/// Takes the next frames, whose bodies are at `places`, or one into `buffer`. If there are none,
/// the event that tells of some brings as many as `awaited`.
fn take(
    host: &mut Host,
    key: u64,
    awaited: usize,
    read: impl FnOnce(&mut Connection) -> Read,
) -> Read {
    let has_time = host.turn.charge(1);
    if host.sockets.reading == key {
        return Read::Wait;
    }
    let Some(stream) = host.sockets.stream(key) else { return Read::Failed(Code::SOCKET_CLOSED) };
    if !has_time {
        stream.read_later(awaited);
        return Read::Wait;
    }
    let read = read(stream);
    if let Read::Frames(count, _) = read {
        host.turn.charge(count - 1);
    }
    read
}

/// Takes the next frames and pushes a buffer with the first of them; the others are now in the
/// table at index `table`, from 1 on. Returns how many these are; otherwise nothing is pushed.
fn push_next(lua: Stack<'_>, key: u64, table: c_int) -> Result<usize, Option<Code>> {
    push_read::<FRAMES_MAX>(lua, key, table, FRAMES_MAX, |stream, scratch, places| {
        if stream.is_dry(FRAMES_MAX) {
            return Read::Wait;
        }
        stream.read(scratch.get_or_insert_with(take_scratch), places, FRAMES_MAX)
    })
}

/// The same for whatever `read` finds.
#[inline(always)]
fn push_read<const MAX: usize>(
    lua: Stack<'_>,
    key: u64,
    table: c_int,
    awaited: usize,
    read: impl FnOnce(&mut Connection, &mut Scratch, &mut [Range<usize>; MAX]) -> Read,
) -> Result<usize, Option<Code>> {
    // Only who asks the kernel needs it.
    let mut scratch = None;
    let mut places = [const { 0..0 }; MAX];
    let found = host::with(|host| {
        take(host, key, awaited, |stream| read(stream, &mut scratch, &mut places))
    });
    let result = match found {
        Read::Frames(count, piece) => {
            let (places, bytes) = (&places[..count], piece.as_deref());
            let bytes = bytes.or(scratch.as_deref().map(ReadBuffer::content)).unwrap_or_default();
            collect(lua, |work| while_reading(key, work));
            charge_frames(lua, places, piece.as_ref(), |work| while_reading(key, work));
            push_frames(lua, table, places, bytes, piece.as_ref());
            Ok(count - 1)
        }
        Read::Wait => Err(None),
        Read::Failed(code) => Err(Some(code)),
    };
    if let Some(block) = scratch {
        keep_scratch(block);
    }
    result
}

/// native.read(root, resume, key, stock): a buffer, and how many more, which follow it, are now in
/// the table `stock` from index 1 on; `false, code`; `nil, why` if there is nothing yet and a wait
/// does not get up to the root, unless that is nil (see `may_wait`); nothing if there is nothing
/// yet: then the event that tells of more brings it.
fn read(lua: Stack<'_>) -> c_int {
    match push_next(lua, lua.key(3), 4) {
        Ok(more) => lua.push_number(more as f64),
        Err(Some(code)) => return (false, code.0).give(lua),
        Err(None) if lua.is_nil(1) => return 0,
        Err(None) => return refuse_wait(lua).unwrap_or(0),
    }
    2
}

/// native.read_piece(key, number, count | delimiter, max): a buffer with this many bytes, or all up
/// to the delimiter; `false, code`; nothing if there are not this many yet: then an event tells of
/// more, and who asks for the same piece again gives the same number.
fn read_piece(lua: Stack<'_>) -> Result<c_int, Option<Code>> {
    let (key, number, max) = (lua.key(1), lua.key(2), lua.number(4) as u32);
    let decoder = match lua.text(3) {
        Some(bytes) if !lua.is_number(3) => Decoder::until(Delimiter { bytes: bytes.into(), max }),
        _ => Decoder::exact(lua.number(3) as usize),
    };
    let read = |stream: &mut Connection, scratch: &mut Scratch, place: &mut _| {
        stream.read_piece(scratch.get_or_insert_with(take_scratch), place, decoder, number)
    };
    push_read::<1>(lua, key, 0, 0, read).map(|_| 1)
}

/// native.restore(key, frames, first, last): takes these frames back, the last that were read.
fn restore(lua: Stack<'_>) {
    let (key, first, last) = (lua.key(1), lua.number(3) as i64, lua.number(4) as i64);
    let mut bodies: Vec<Vec<u8>> = Vec::new();
    for at in first..=last {
        lua.entry(2, at);
        bodies.extend(buffer_at(lua, -1).map(|buffer| buffer.as_slice().to_vec()));
        lua.pop();
    }
    host::with(|host| {
        host.sockets.stream(key).map(|stream| stream.restore(bodies.iter().map(Vec::as_slice)))
    });
}

/// For native.next_event: pushes `kind`, the key of a connection that is ready, and what
/// [`read`] returns; without a wait for frames only the first two. None, and nothing is pushed, if
/// there is nothing yet. The table for the others is at index 1; with some, the key is in it at 0.
pub(super) fn push_ready(lua: Stack<'_>, kind: f64, key: u64, awaited: usize) -> Option<c_int> {
    lua.push_number(kind);
    lua.push_whole(key);
    if awaited == 0 {
        return Some(2);
    }
    match push_next(lua, key, 1) {
        Ok(more) => {
            if more > 0 {
                lua.push_whole(key);
                lua.set_entry(1, 0);
            }
            lua.push_whole(more as u64);
        }
        Err(None) => {
            lua.set_top(1);
            return None;
        }
        Err(Some(code)) => {
            lua.push_boolean(false);
            lua.push_number(f64::from(code.0));
        }
    }
    Some(4)
}

/// Reads the next frame into a buffer. Returns 0 if it did, 1 if there is nothing yet, but an event
/// tells of it, 2 if nothing was done: then native.read says why.
fn read_into(key: i64, buffer: &mut NlBuffer) -> c_int {
    if !buffer.is_live() {
        return 2;
    }
    let before = buffer.charged;
    let work = |host: &mut Host| {
        take(host, key as u64, 0, |stream| {
            with_scratch(|scratch| stream.read_into(scratch, buffer))
        })
    };
    let result = match lua::fault::attempt(work) {
        Some(Read::Frames(..)) => 0,
        Some(Read::Wait) => 1,
        _ => 2,
    };
    let now = buffer.charged;
    if now != before {
        hook::with_account(|account| account.recharge(before as usize, now as usize));
    }
    result
}

/// native.stage_pointers(): the addresses of [`stage_buffer`], [`stage_text`],
/// [`stage_shared_buffer`] and [`read_into`], for the FFI: nothing may be raised in these.
fn stage_pointers(lua: Stack<'_>) -> c_int {
    let buffer = with_buffer(stage_buffer);
    let text = with_text(stage_text);
    let shared = with_buffer(stage_shared_buffer);
    let into = with_buffer(read_into);
    lua.push_address(buffer);
    lua.push_address(text);
    lua.push_address(shared);
    lua.push_address(into);
    4
}

/// Where a frame is written to: a connection of the context's own, by its key, or one of any
/// context, by what native.fd returned for it.
#[derive(Clone, Copy)]
pub(super) enum Target {
    Own(u64),
    Shared(u64),
}

/// Why a frame is not staged.
pub(super) enum Refused {
    /// The connection cannot be written to.
    Closed(Code),
    /// The frame cannot be one.
    NoFrame(FrameError),
}

impl Refused {
    const CLOSED: Refused = Refused::Closed(Code::SOCKET_CLOSED);
}

/// Stages a frame, and with a token that is not 0, tells when it is out.
fn stage(host: &mut Host, target: Target, body: Body<'_>, token: u64) -> Result<(), Refused> {
    let target = resolve(host, target)?;
    stage_with(host, target, body, |host, body| match target {
        Target::Own(key) => host.sockets.write(key, body, token),
        Target::Shared(fd) => host.sockets.shared.write(fd, body, token),
    })
}

/// The same for what `write` makes of the body.
#[inline(always)]
pub(super) fn stage_with<'a>(
    host: &mut Host,
    target: Target,
    mut body: Body<'a>,
    write: impl FnOnce(&mut Host, Body<'a>) -> Option<Result<bool, FrameError>>,
) -> Result<(), Refused> {
    let bytes = body.held_bytes();
    let held = host.hold_large(bytes);
    if rarely(held.is_none()) {
        overflow(host, target).ok_or(Refused::CLOSED)?;
        body = Body::Lost;
    }
    let staged = write(host, body);
    let is_full = staged.ok_or(Refused::CLOSED)?.map_err(Refused::NoFrame)?;
    if let Some(held) = held.flatten() {
        keep_held(host, target, held);
    }
    if is_full {
        host.flush();
    }
    host.note_staged(bytes);
    Ok(())
}

/// What has just been staged was counted before.
#[cold]
fn keep_held(host: &mut Host, target: Target, held: Held) {
    match target {
        Target::Own(key) => {
            if let Some(stream) = host.sockets.stream(key) {
                stream.staged.keep_held(held);
            }
        }
        Target::Shared(fd) => host.sockets.shared.keep_held(fd, held),
    }
}

/// Makes a connection that is named by its number one that can be written to: writes to one of this
/// context go to the same queue as its others, so that their order is kept.
#[inline]
fn resolve(host: &mut Host, target: Target) -> Result<Target, Refused> {
    let Target::Shared(fd) = target else { return Ok(target) };
    // What allowed others of this turn allows this.
    if host.sockets.shared.is_dirty(fd) {
        return Ok(target);
    }
    // Compiled code comes here without the native that confined contexts have in its place.
    if host.deny.withholds(Deny::NETWORK) {
        return Err(Refused::Closed(Code::NOT_PERMITTED));
    }
    let known = host.sockets.shared.get(fd).or_else(|| SharedWriter::get(fd));
    let shared = known.ok_or(Refused::CLOSED)?;
    let encoder = shared.encoder().ok_or(Refused::Closed(Code::NOT_PERMITTED))?;
    if shared.owner() == host.context.id() {
        return Ok(Target::Own(shared.key()));
    }
    host.sockets.shared.begin(fd, &shared, encoder);
    Ok(target)
}

/// Ends a connection to which more is written than the context may hold.
#[cold]
fn overflow(host: &mut Host, target: Target) -> Option<()> {
    match target {
        Target::Own(key) => host.sockets.stream(key)?.writer().overflow(&host.context),
        Target::Shared(fd) => SharedWriter::get(fd)?.writer().overflow(&host.context),
    }
    Some(())
}

/// What a buffer holds, for a write: much by reference, little to be copied.
fn body_of(buffer: &mut NlBuffer) -> Body<'_> {
    if buffer.len() >= WriteBatch::BY_REFERENCE_BYTES {
        Body::Shared(buffer.share())
    } else {
        Body::Slice(buffer.as_slice())
    }
}

/// Stages a frame with the content of a buffer, on a connection of this context's, for compiled
/// code: 0, or 1 if nothing was done. Then native.write does it, or says why not.
fn stage_buffer(key: i64, buffer: &mut NlBuffer) -> c_int {
    try_stage(|host| match buffer.len() {
        ..WriteBatch::BY_REFERENCE_BYTES => host.sockets.write_plain(key as u64, buffer.as_slice()),
        _ => stage_large(host, key as u64, buffer),
    })
}

#[inline(never)]
fn stage_large(host: &mut Host, key: u64, buffer: &mut NlBuffer) -> bool {
    stage(host, Target::Own(key), body_of(buffer), 0).is_ok()
}

/// The same on a connection of any context's, by its number.
fn stage_shared_buffer(fd: i64, buffer: &mut NlBuffer) -> c_int {
    try_stage(|host| stage(host, Target::Shared(fd as u64), body_of(buffer), 0).is_ok())
}

/// As [`stage_buffer`], with the bytes of a string.
fn stage_text(key: i64, text: &[u8]) -> c_int {
    try_stage(|host| host.sockets.write_plain(key as u64, text))
}

#[inline]
fn try_stage(stage: impl FnOnce(&mut Host) -> bool) -> c_int {
    c_int::from(lua::fault::attempt(stage) != Some(true))
}

/// The body of a write at `index`: a string, a number's text, or what a buffer holds; `None` for
/// anything else.
pub(super) fn body<'a>(lua: Stack<'a>, index: c_int) -> Option<Body<'a>> {
    if let Some(text) = lua.text(index) {
        return Some(Body::Slice(text));
    }
    Some(body_of(buffer_at(lua, index)?))
}

/// native.write(key, data, token, is_shared): stages a frame; with a token that is not 0, tells
/// when it is out. Returns nothing; a code if the connection cannot be written to; or nil and what
/// is wrong with the data: 0 for its type, or a message.
fn write(lua: Stack<'_>) -> Staged {
    let (key, data, token) = (lua.key(1), body(lua, 2), lua.key(3));
    let target = if lua.boolean(4) { Target::Shared(key) } else { Target::Own(key) };
    data.map(|data| host::with(|host| stage(host, target, data, token))).ok_or((Nil, 0.0))
}

/// What [`write`] returns: what has become of the data, unless it is of a wrong type.
pub(super) type Staged = Result<Result<(), Refused>, (Nil, f64)>;

impl Results for Refused {
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            Refused::Closed(code) => code.0.give(lua),
            Refused::NoFrame(error) => (Nil, error.to_string()).give(lua),
        }
    }
}
