//! A framed connection, as its owning context uses it.

mod pieces;
#[cfg(feature = "http")]
mod plain;
#[cfg(feature = "tls")]
mod start_tls;
#[cfg(feature = "websocket")]
pub(super) mod websocket;

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::Arc;
use std::task::{Context as TaskContext, Waker};

use bytes::BytesMut;

use super::shared_writer::SharedWriter;
use super::transport::Transport;
use super::writer::{Body, WriteBatch, Writer};
use crate::buf::{NlBuffer, Piece, ReadBuffer, fill_block};
use crate::error::Code;
use crate::frame::{
    Decoder, Encoder, FrameError, HeadOptions, HeadPatch, OptionsError, ReadOptions, ReadPatch,
    Step,
};
use crate::message::{Allowance, Held, Id};
use crate::rt::Stream;
use crate::sched::{Context, ReadyWaker};

/// Frames longer than this are gathered in a block of their own.
const GATHER_BYTES: usize = 32 * 1024;

/// Room that a long frame gets to begin with; memory that nothing was written to costs little.
const GATHER_ROOM_BYTES: usize = 1 << 20;

/// The start of a frame that waits for the rest is moved out of the worker's block if it is this
/// short, so that idle connections do not pin it.
const DETACH_BYTES: usize = 4096;

/// Reads of single frames behind one of another piece.
const SINGLE_READS: u8 = 32;

/// Bytes of reads that have filled all their room, in one turn, before other work goes first.
const FULL_READS_PER_TURN: usize = 1 << 20;

/// What [`Connection::read`] found.
#[derive(Debug, PartialEq, Eq)]
pub enum Read {
    /// This many frames. Their bodies are at the places that were filled in: of this piece, or if
    /// there is none, of what the scratch block holds; then they are small for it.
    Frames(usize, Option<Piece>),
    /// Nothing yet, or the turn's share is used up; the context is woken when there may be
    /// something.
    Wait,
    /// Nothing any more.
    Failed(Code),
}

/// Why options were not taken.
#[derive(Debug, PartialEq, Eq)]
pub enum OptionsRefused {
    /// Wrong values for reading.
    InvalidRead(OptionsError),
    /// Wrong values for writing.
    InvalidWrite(OptionsError),
    /// Reading has begun.
    ReadFrozen,
    /// Writing has begun.
    WriteFrozen,
}

/// Whether there is more to receive. What has come in whole frames goes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Input {
    /// The kernel may have something.
    Ready,
    /// It had nothing left after the last read: it says so once there is something.
    Drained,
    /// Nothing comes any more.
    Ended(Code),
}

/// A connected socket with its framing, read-ahead and write queue. What each frame needs is first
/// and together, since of thousands of connections none is still in the caches when it is read.
#[derive(Debug)]
#[repr(C, align(64))]
pub struct Connection {
    transport: Arc<Transport>,
    /// How many frames whoever waits for some is to be given once they are here; 0 for one who is
    /// only told. Nothing if nobody waits.
    awaited: Option<usize>,
    /// Bytes of reads of this turn that took all they could.
    full_reads: usize,
    /// Which piece is read, whatever the frames are, and may be gathered; 0 for frames.
    piece: u64,
    /// Bytes that the frame being gathered has in all; 0 if none is.
    gather_need: usize,
    /// How long the last frames were, with their heads, if such are read in a way of their own.
    frame: usize,
    input: Input,
    /// This many reads of frames take one at a time: after pieces others may be asked for.
    single: u8,
    /// True while the connection is on its context's list of those to flush.
    pub is_dirty: bool,
    read_frozen: bool,
    write_frozen: bool,
    /// Received, not delivered.
    buffered: Piece,
    read_waker: Waker,
    writer: Arc<Writer>,
    decoder: Decoder,
    /// What is received and not delivered counts here, if the context has a memory limit.
    held: Option<Held>,
    #[cfg(feature = "websocket")]
    websocket: Option<Box<websocket::WebSocket>>,
    encoder: Encoder,
    /// What the owner has written in this turn.
    pub staged: WriteBatch,
    read_options: ReadOptions,
    write_options: HeadOptions,
    /// The frame being gathered, if it is a long one; then `buffered` is empty.
    gathering: BytesMut,
    /// Bytes of a frame that has not come whole before the end.
    truncated: usize,
    /// Why the peer has gone, if that is known: the system tells of errors only once.
    broken: Option<Code>,
    shared: Option<Arc<SharedWriter>>,
    /// The token of who waits for the handshake; 0 for nobody.
    pub tls_token: u64,
    is_unix: bool,
}

impl Connection {
    /// Takes a connected stream; `read_source` and `write_source` wake its context.
    pub fn new(
        stream: Stream,
        context: &Arc<Context>,
        read_source: u64,
        write_source: u64,
    ) -> Connection {
        let transport = Arc::new(Transport::new(stream));
        let writer = Writer::new(Arc::clone(&transport), ReadyWaker::waker(context, write_source));
        let is_unix = transport.local_address().is_none();
        Connection {
            transport,
            read_options: ReadOptions::default(),
            write_options: HeadOptions::default(),
            read_frozen: false,
            write_frozen: false,
            decoder: Decoder::default(),
            encoder: Encoder::default(),
            buffered: Piece::default(),
            piece: 0,
            single: 0,
            truncated: 0,
            gathering: BytesMut::new(),
            gather_need: 0,
            input: Input::Ready,
            awaited: None,
            broken: None,
            full_reads: 0,
            frame: 0,
            read_waker: ReadyWaker::waker(context, read_source),
            writer: Arc::new(writer),
            staged: WriteBatch::default(),
            is_dirty: false,
            shared: None,
            is_unix,
            tls_token: 0,
            held: context.allowance().map(Allowance::empty),
            #[cfg(feature = "websocket")]
            websocket: None,
        }
    }

    /// The read and the write options.
    pub fn options(&self) -> (ReadOptions, HeadOptions) {
        (self.read_options.clone(), self.write_options)
    }

    /// Changes options, all or none.
    ///
    /// # Errors
    /// [`OptionsRefused`]; nothing has changed then.
    pub fn set_options(&mut self, read: ReadPatch, write: HeadPatch) -> Result<(), OptionsRefused> {
        if self.read_frozen && !read.is_empty() {
            return Err(OptionsRefused::ReadFrozen);
        }
        if self.write_frozen && !write.is_empty() {
            return Err(OptionsRefused::WriteFrozen);
        }
        self.change_options(read, write)
    }

    fn change_options(&mut self, read: ReadPatch, write: HeadPatch) -> Result<(), OptionsRefused> {
        let (mut new_read, mut new_write) = self.options();
        new_read.apply(read).map_err(OptionsRefused::InvalidRead)?;
        new_write.apply(write).map_err(OptionsRefused::InvalidWrite)?;
        self.decoder = Decoder::new(&new_read);
        self.encoder = Encoder::new(new_write);
        (self.read_options, self.write_options) = (new_read, new_write);
        Ok(())
    }

    /// Takes the next frames, as many as there are and `places` holds, reading from the kernel if
    /// need be. If there are none, `awaited` is what the context is to be given later: see
    /// [`Connection::on_ready`].
    pub fn read(
        &mut self,
        scratch: &mut ReadBuffer,
        places: &mut [Range<usize>],
        awaited: usize,
    ) -> Read {
        if self.piece != 0 {
            self.settle();
        }
        let places = match self.single {
            0 => places,
            _ => {
                self.single -= 1;
                &mut places[..1]
            }
        };
        let read = self.read_frames(scratch, places);
        self.note_read(&read, awaited);
        read
    }

    /// Whether there is nothing to read, as the last read has found, and no event has told since:
    /// then [`Connection::read`] would find nothing, and this has done what it does.
    #[inline]
    pub fn is_dry(&mut self, awaited: usize) -> bool {
        let is_dry = self.input == Input::Drained
            && self.buffered.is_empty()
            && self.gather_need == 0
            && self.piece == 0
            && self.is_waiting();
        if is_dry {
            self.note_read(&Read::Wait, awaited);
        }
        is_dry
    }

    /// Whether the kernel has nothing, or nothing for the script, which is woken once it has; asked
    /// once [`Input::Drained`].
    #[inline]
    fn is_waiting(&mut self) -> bool {
        let cx = &mut TaskContext::from_waker(&self.read_waker);
        // What comes during a handshake is not for the script.
        let is_waiting =
            self.transport.is_handshaking() || self.transport.poll_read_ready(cx).is_pending();
        if is_waiting {
            self.transport.shrink();
            self.detach();
        } else {
            self.input = Input::Ready;
        }
        is_waiting
    }

    fn note_read(&mut self, read: &Read, awaited: usize) {
        self.awaited = matches!(read, Read::Wait).then_some(awaited);
        if let Some(held) = &mut self.held {
            held.set(self.buffered.block_bytes() + self.gathering.capacity());
        }
    }

    fn read_frames(&mut self, scratch: &mut ReadBuffer, places: &mut [Range<usize>]) -> Read {
        self.read_frozen = true;
        loop {
            let need = match self.decoder.next(&self.buffered) {
                _ if self.gather_need > 0 => self.gather_need,
                Ok(Step::Frame { head, .. }) => {
                    let (count, end) = self.decoder.find(&self.buffered, usize::MAX, places);
                    self.expect(if head > 0 { end / count } else { 0 });
                    return Read::Frames(count, Some(self.take_buffered(end)));
                }
                Ok(Step::Incomplete { need }) => need,
                // Only this call has a limit that its piece exceeds.
                Err(error) if self.piece != 0 => return Read::Failed(error.code()),
                Err(error) => {
                    self.end(error.code());
                    continue;
                }
            };
            match self.input {
                Input::Ended(code) => {
                    self.drop_half();
                    return Read::Failed(code);
                }
                Input::Drained => {
                    if self.is_waiting() {
                        return Read::Wait;
                    }
                }
                Input::Ready => {}
            }
            if self.full_reads >= FULL_READS_PER_TURN {
                self.read_waker.wake_by_ref();
                return Read::Wait;
            }
            let ahead = self.ahead(need);
            if self.held.as_mut().is_some_and(|held| !held.try_set(ahead)) {
                self.end(Code::NO_MEMORY);
                continue;
            }
            match self.fill(need, scratch) {
                Ok(0) => self.end(self.broken.unwrap_or(Code::END_OF_FILE)),
                Ok(_) if scratch.content().is_empty() => {}
                Ok(_) => {
                    let count = self.take_fresh(scratch, places);
                    if count > 0 {
                        return Read::Frames(count, None);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.note_nothing(),
                Err(error) => self.end(self.blamed(Code::from(&error))),
            }
        }
    }

    /// An end that our own failed writes have made is not the peer's.
    #[cold]
    fn blamed(&self, code: Code) -> Code {
        let is_ours = code == Code::TLS_TRUNCATED && self.writer.failed().is_some();
        if is_ours { Code::END_OF_FILE } else { code }
    }

    /// As [`Connection::read`], the next frame into a buffer that lives, in place of its content.
    /// [`Read::Frames`] says that it is there; where it was is of no use.
    pub fn read_into(&mut self, scratch: &mut ReadBuffer, buffer: &mut NlBuffer) -> Read {
        if self.gather_need == 0
            && let Ok(Step::Frame { head, body, tail }) = self.decoder.next(&self.buffered)
        {
            // It is used where it is: taking it out first would count one more reference.
            let place = head..head + body;
            if !buffer.assign(&self.buffered, place, Some(&self.buffered)) {
                return Read::Failed(Code::NO_MEMORY);
            }
            self.buffered.advance(head + body + tail);
            if self.buffered.is_empty() {
                // Lets go of the block, which the next read finds in the caches.
                self.buffered = Piece::default();
            }
            return Read::Frames(1, None);
        }
        let mut place = [const { 0..0 }; 1];
        let read = self.read(scratch, &mut place, 0);
        if let Read::Frames(_, piece) = &read {
            let [place] = place;
            let bytes = piece.as_deref().unwrap_or(scratch.content());
            if !buffer.assign(bytes, place, piece.as_ref()) {
                return Read::Failed(Code::NO_MEMORY);
            }
        }
        read
    }

    /// The first `end` bytes of what is buffered, which it does not hold any more.
    fn take_buffered(&mut self, end: usize) -> Piece {
        if end == self.buffered.len() {
            return std::mem::take(&mut self.buffered);
        }
        let piece = self.buffered.clone();
        self.buffered.advance(end);
        piece
    }

    /// Room for what is received of a long frame. The head's word is not enough to take that much
    /// memory: it grows with what comes.
    fn gather_room(&self, need: usize) -> usize {
        // One of the two is empty.
        let held = self.gathering.len() + self.buffered.len();
        if self.decoder.is_open() {
            return 2 * held.max(GATHER_BYTES);
        }
        need.min(GATHER_ROOM_BYTES.max(2 * held))
    }

    /// Bytes of memory that are going to be held while more of a frame is waited for.
    fn ahead(&self, need: usize) -> usize {
        if need <= GATHER_BYTES { self.buffered.len() } else { self.gather_room(need) }
    }

    /// One read from the kernel, towards `need` buffered bytes in all.
    fn fill(&mut self, need: usize, scratch: &mut ReadBuffer) -> io::Result<usize> {
        let transport = &self.transport;
        let (count, is_full) = if need <= GATHER_BYTES {
            scratch.fill(&self.buffered, self.frame, |space| transport.receive(space))?
        } else {
            // What another read has left there is not this connection's.
            scratch.clear();
            let room = self.gather_room(need);
            if self.gather_need == 0 {
                self.gathering = BytesMut::with_capacity(room);
                self.gathering.extend_from_slice(&self.buffered);
                self.buffered = Piece::default();
                self.gather_need = need;
            }
            let known = self.gathering.len();
            let room = room - known;
            let count = fill_block(&mut self.gathering, room, |space| transport.receive(space))?;
            let is_whole = match self.decoder.is_open() {
                false => self.gathering.len() >= need,
                true => self.decoder.has_ended(&self.gathering, known),
            };
            if is_whole {
                let piece = self.piece;
                self.settle();
                self.piece = piece;
            }
            (count, count == room)
        };
        self.note_filled(count, is_full);
        Ok(count)
    }

    /// Notes what a read that has, or has not, filled all its room says of what the kernel has.
    fn note_filled(&mut self, count: usize, is_full: bool) {
        let is_ready = is_full || self.transport.has_more();
        self.input = if is_ready { Input::Ready } else { Input::Drained };
        self.full_reads += if is_full { count } else { 0 };
    }

    /// A read has found nothing: there is no more, or no content, and the rest is for another turn.
    fn note_nothing(&mut self) {
        let has_more = self.transport.has_more();
        self.input = if has_more { Input::Ready } else { Input::Drained };
        self.full_reads += if has_more { FULL_READS_PER_TURN } else { 0 };
    }

    /// Takes frames that were just read and are going to be copied, so that they stay in the
    /// scratch block, if at most a little of another one follows them; returns how many. Otherwise,
    /// with 0, what was read is buffered.
    fn take_fresh(&mut self, scratch: &mut ReadBuffer, places: &mut [Range<usize>]) -> usize {
        let content = scratch.content();
        let (count, end) = self.decoder.find(content, scratch.copied_max(), places);
        let rest = &content[end..];
        if count == 0 || rest.len() > DETACH_BYTES || (count == places.len() && !rest.is_empty()) {
            self.buffered = scratch.take();
            return 0;
        }
        self.buffered = if rest.is_empty() { Piece::default() } else { Piece::copy(rest) };
        self.expect(end / count);
        count
    }

    /// Frames of this size are likely to follow. What lots of them hold together is too much for
    /// contexts with a memory limit: there they are copied.
    fn expect(&mut self, frame: usize) {
        let is_lot = self.held.is_none() && ReadBuffer::LOT_FRAMES.contains(&frame);
        self.frame = match frame {
            _ if is_lot => frame,
            0..=GATHER_BYTES => 0,
            _ => usize::MAX,
        };
    }

    /// Nothing comes any more.
    fn end(&mut self, code: Code) {
        self.input = Input::Ended(code);
        self.drop_half();
    }

    fn ended(&self) -> Option<Code> {
        if let Input::Ended(code) = self.input { Some(code) } else { None }
    }

    fn detach(&mut self) {
        let (len, block_bytes) = (self.buffered.len(), self.buffered.block_bytes());
        if len > 0 && (len <= DETACH_BYTES || !Piece::is_shared(len, block_bytes)) {
            self.buffered = Piece::copy(&self.buffered);
        } else if self.buffered.is_empty() {
            self.buffered = Piece::default();
        }
    }

    /// Has the context woken, for what its turn has no time left for.
    pub fn read_later(&mut self, awaited: usize) {
        self.read_frozen = true;
        self.awaited = Some(awaited);
        self.read_waker.wake_by_ref();
    }

    /// Notes that there may be more to receive; a new turn's share begins. Returns how many frames
    /// somebody waits for: see [`Connection::read`].
    pub fn on_ready(&mut self) -> Option<usize> {
        self.transport.clear_read_ready();
        self.full_reads = 0;
        if self.ended().is_none() {
            self.input = Input::Ready;
        }
        if self.transport.is_handshaking() { None } else { self.awaited.take() }
    }

    /// Stages a frame, and with a token that is not 0, tells when it is out; true if so much is
    /// staged now that it is to be written.
    ///
    /// # Errors
    /// The body is no frame by the write options; nothing is staged.
    #[inline]
    pub fn write(&mut self, body: Body<'_>, token: u64) -> Result<bool, FrameError> {
        let is_first = !body.is_empty();
        let is_full = self.staged.write(&self.encoder, body, token)?;
        self.write_frozen |= is_first;
        Ok(is_full)
    }

    /// The same for a copy of bytes; false, and nothing is done, if that is not all there is to it.
    #[inline(always)]
    pub fn write_plain(&mut self, body: &[u8]) -> bool {
        let is_full = self.staged.bytes() + body.len() >= WriteBatch::BYTES_MAX;
        if is_full || !self.encoder.is_plain() {
            return false;
        }
        let Ok(head) = self.encoder.head(body.len()) else { return false };
        self.write_frozen |= !body.is_empty();
        self.staged.push_copy(head, body);
        true
    }

    /// Writes what is staged, or queues it; see [`Writer::flush`].
    pub fn flush(&mut self, context: &Arc<Context>, notify: impl FnMut(u64, Result<(), Code>)) {
        if !self.staged.is_empty() {
            self.writer.flush(&mut self.staged, context, notify);
        }
        #[cfg(feature = "websocket")]
        self.rearm();
    }

    /// The connection as other contexts see it.
    pub fn shared(&mut self, owner: Id, key: u64) -> &Arc<SharedWriter> {
        self.shared.get_or_insert_with(|| SharedWriter::new(owner, key, &self.writer))
    }

    /// Lets other contexts write, or stops that; the write options are fixed from then on.
    pub fn set_shared(&mut self, owner: Id, key: u64, on: bool) {
        self.write_frozen |= on;
        let encoder = self.encoder;
        let shared = self.shared(owner, key);
        shared.set_encoder(encoder);
        shared.set_shared(on);
    }

    /// The failure that writes meet, and what reads have come to, if anything.
    pub fn state(&self) -> (Option<Code>, Option<Code>) {
        (self.writer.failed(), self.ended().or(self.broken))
    }

    /// Refuses writes from now on; what waits still leaves.
    pub fn close(&self) {
        self.transport.forget_end();
        if self.transport.is_handshaking() {
            // Without a session nothing that waits can leave.
            self.writer.abandon(Code::SOCKET_CLOSED);
        }
        self.writer.close();
        if let Some(shared) = &self.shared {
            shared.close();
        }
    }

    /// Whether its context has a memory limit.
    pub(super) fn is_limited(&self) -> bool {
        self.held.is_some()
    }

    /// The write queue.
    pub fn writer(&self) -> &Arc<Writer> {
        &self.writer
    }

    pub(super) fn stream(&self) -> &Stream {
        &self.transport
    }

    /// True for a unix socket.
    pub(super) fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// Bytes received that no read has asked for.
    pub fn read_ahead(&self) -> usize {
        self.buffered.len() + self.gathering.len()
    }

    /// Switches Nagle's algorithm off or on; nothing for unix sockets.
    pub fn set_nodelay(&self, on: bool) {
        if !self.is_unix {
            self.transport.set_nodelay(on);
        }
    }

    /// Our address and the peer's, if they are IP ones.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        (self.transport.local_address(), self.transport.peer_address())
    }
}
