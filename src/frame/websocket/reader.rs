//! Messages out of received bytes.

use bytes::BytesMut;

use super::deflate::Unpacking;
use super::head::Head;
use super::{Close, Kind, Role, mask, opcode};

/// What bytes have come to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A whole message.
    Message(Kind, BytesMut),
    /// The peer asks whether somebody is there, and wants these bytes back.
    Ping(Vec<u8>),
    /// It answers with these.
    Pong(Vec<u8>),
    /// It says that nothing follows.
    Close(Close),
}

/// Bytes that may not come: the code of the close frame that tells the peer, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// A close code.
    pub code: u16,
    /// For people.
    pub why: String,
}

impl Violation {
    pub(super) fn protocol(why: &str) -> Violation {
        Violation { code: Close::PROTOCOL, why: why.to_owned() }
    }

    pub(super) fn invalid(why: &str) -> Violation {
        Violation { code: Close::INVALID, why: why.to_owned() }
    }

    /// There is not as much memory.
    pub fn no_room() -> Violation {
        let why = "a message of more than the memory limit leaves room for".to_owned();
        Violation { code: Close::TOO_BIG, why }
    }

    pub(super) fn too_big(max: usize) -> Violation {
        Violation { code: Close::TOO_BIG, why: format!("a message of more than {max} bytes") }
    }
}

/// What a frame costs, in bytes that are unpacked.
const FRAME_COST: usize = 64;

/// The frame whose payload comes.
#[derive(Clone, Copy, Debug)]
struct Frame {
    head: Head,
    left: u64,
    /// How far the mask is turned.
    turn: u8,
}

/// Makes messages of received bytes, in pieces of any size.
///
/// # Examples
/// ```
/// use node_lua::frame::websocket::{Event, Kind, Reader, Role};
///
/// let mut reader = Reader::new(Role::Client, false, 1000);
/// let mut input = &b"\x81\x05hello"[..];
/// let event = reader.read(&mut input).unwrap();
/// assert_eq!(event, Some(Event::Message(Kind::Text, b"hello"[..].into())));
/// assert_eq!(reader.read(&mut input), Ok(None));
/// ```
#[derive(Debug)]
pub struct Reader {
    role: Role,
    may_pack: bool,
    max: usize,
    /// The most memory that may be held for a message.
    room: usize,
    /// What has come of a head.
    head: [u8; Head::BYTES_MAX],
    head_len: u8,
    frame: Option<Frame>,
    /// The message of which a frame has come or comes, and whether it is compressed.
    message: Option<(Kind, bool)>,
    /// What has come of it.
    body: BytesMut,
    /// This many bytes of its text are UTF-8.
    checked: usize,
    /// What has come of a control frame.
    control: Vec<u8>,
    /// A message that is whole, but still packed in part.
    unpacking: Option<(Kind, Box<Unpacking>)>,
    /// What may still be done: see [`Reader::allow`].
    credit: usize,
}

impl Reader {
    /// A reader of what is sent to `role`, in messages of at most `max` bytes.
    pub fn new(role: Role, may_pack: bool, max: usize) -> Reader {
        Reader {
            role,
            may_pack,
            max,
            room: usize::MAX,
            head: [0; Head::BYTES_MAX],
            head_len: 0,
            frame: None,
            message: None,
            body: BytesMut::new(),
            checked: 0,
            control: Vec::new(),
            unpacking: None,
            credit: usize::MAX,
        }
    }

    /// Says how much may be done from now on, in bytes that are unpacked, or frames of which each
    /// counts as some.
    pub fn allow(&mut self, work: usize) {
        self.credit = work;
    }

    /// Bytes of that which are left. Without any, [`Reader::read`] does nothing.
    pub fn credit(&self) -> usize {
        self.credit
    }

    /// Whether a message is whole, but not given yet: [`Reader::read`] goes on with it.
    pub fn is_unpacking(&self) -> bool {
        self.unpacking.is_some()
    }

    /// Takes bytes from the start of `input`, up to the end of what they come to; with nothing it
    /// has taken all, or may do no more.
    ///
    /// # Errors
    /// [`Violation`]; what follows means nothing.
    pub fn read(&mut self, input: &mut &[u8]) -> Result<Option<Event>, Violation> {
        if self.unpacking.is_some() {
            return self.unpack();
        }
        loop {
            let frame = match self.frame {
                Some(frame) => frame,
                None => match self.begin(input)? {
                    Some(frame) => frame,
                    None => return Ok(None),
                },
            };
            let count = input.len().min(usize::try_from(frame.left).unwrap_or(usize::MAX));
            let (payload, rest) = input.split_at(count);
            *input = rest;
            if frame.head.is_control() {
                let start = self.control.len();
                self.control.extend_from_slice(payload);
                if let Some(key) = frame.head.mask {
                    mask(key, usize::from(frame.turn), &mut self.control[start..]);
                }
                self.advance(count);
            } else {
                self.body.extend_from_slice(payload);
                self.received(count)?;
            }
            if let Some(event) = self.finish()? {
                return Ok(Some(event));
            }
            if input.is_empty() || self.unpacking.is_some() {
                return Ok(None);
            }
        }
    }

    /// Bytes of the present frame's payload that are still to come, and may be received where
    /// [`Reader::body`] says.
    pub fn wanted(&self) -> usize {
        match &self.frame {
            Some(frame) if !frame.head.is_control() => frame.left as usize,
            _ => 0,
        }
    }

    /// This many bytes of the present message have come.
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// What has come of the present message, behind which some of its payload may be received:
    /// [`Reader::received_directly`] is then told.
    pub fn body(&mut self) -> &mut BytesMut {
        &mut self.body
    }

    /// Has a packed message be refused that takes more than this many bytes of memory.
    pub fn set_room(&mut self, bytes: usize) {
        self.room = bytes;
    }

    /// The same as [`Reader::held_bytes`], once this many more bytes of payload have come.
    pub fn held_bytes_with(&self, more: usize) -> usize {
        let (length, capacity) = (self.body.len(), self.body.capacity());
        let is_room = length + more <= capacity;
        // What is full takes as much again, or what has come.
        self.held_bytes() + if is_room { 0 } else { capacity.max(more) }
    }

    /// Bytes of memory that are held for a message that is not whole.
    pub fn held_bytes(&self) -> usize {
        let unpacking = self.unpacking.as_ref().map_or(0, |(_, packed)| packed.held_bytes());
        self.body.capacity() + self.control.capacity() + unpacking
    }

    /// This many bytes of payload have been received behind [`Reader::body`].
    ///
    /// # Errors
    /// As for [`Reader::read`].
    pub fn received_directly(&mut self, count: usize) -> Result<Option<Event>, Violation> {
        self.received(count)?;
        self.finish()
    }

    /// The head of a frame, once it is there.
    fn begin(&mut self, input: &mut &[u8]) -> Result<Option<Frame>, Violation> {
        if self.credit == 0 {
            return Ok(None);
        }
        loop {
            let known = usize::from(self.head_len);
            let need = Head::need(&self.head[..known]);
            if known == need {
                break;
            }
            let (start, rest) = input.split_at(input.len().min(need - known));
            if start.is_empty() {
                return Ok(None);
            }
            self.head[known..known + start.len()].copy_from_slice(start);
            self.head_len += start.len() as u8;
            *input = rest;
        }
        let head = Head::parse(&self.head[..self.head_len.into()], self.role, self.may_pack)?;
        self.head_len = 0;
        self.credit = self.credit.saturating_sub(FRAME_COST);
        match (head.opcode, self.message) {
            _ if head.is_control() => {}
            (opcode::CONTINUATION, None) => {
                return Err(Violation::protocol("a frame that continues nothing"));
            }
            (opcode::CONTINUATION, Some(_)) => {}
            (_, Some(_)) => return Err(Violation::protocol("a message inside of another one")),
            (opcode::TEXT, None) => self.message = Some((Kind::Text, head.is_packed)),
            _ => self.message = Some((Kind::Binary, head.is_packed)),
        }
        if !head.is_control() && head.length > (self.most() - self.body.len()) as u64 {
            return Err(Violation::too_big(self.max));
        }
        let frame = Frame { head, left: head.length, turn: 0 };
        self.frame = Some(frame);
        Ok(Some(frame))
    }

    /// The most bytes that may come of the present message.
    fn most(&self) -> usize {
        match self.message {
            // What cannot be compressed takes more than it is: nine bits a byte at most.
            Some((_, true)) => self.max.saturating_add(self.max / 8 + 64),
            _ => self.max,
        }
    }

    /// This many bytes of payload are there.
    fn advance(&mut self, count: usize) {
        if let Some(frame) = &mut self.frame {
            frame.left -= count as u64;
            frame.turn = ((usize::from(frame.turn) + count) % 4) as u8;
        }
    }

    /// Takes the mask off the last `count` bytes of the body, and looks whether they may be.
    fn received(&mut self, count: usize) -> Result<(), Violation> {
        if let Some(Frame { head: Head { mask: Some(key), .. }, turn, .. }) = self.frame {
            let start = self.body.len() - count;
            mask(key, usize::from(turn), &mut self.body[start..]);
        }
        self.advance(count);
        if let Some((Kind::Text, false)) = self.message {
            let is_whole = self.frame.is_some_and(|frame| frame.left == 0 && frame.head.is_last);
            self.check(is_whole)?;
        }
        Ok(())
    }

    /// Looks whether what has come is UTF-8, or begins it.
    fn check(&mut self, is_whole: bool) -> Result<(), Violation> {
        let rest = &self.body[self.checked..];
        if simdutf8::basic::from_utf8(rest).is_ok() {
            self.checked = self.body.len();
            return Ok(());
        }
        match simdutf8::compat::from_utf8(rest) {
            Err(error) if error.error_len().is_none() && !is_whole => {
                self.checked += error.valid_up_to();
                Ok(())
            }
            _ => Err(Violation::invalid("a text that is no UTF-8")),
        }
    }

    /// What the frame is, if all of it is there.
    fn finish(&mut self) -> Result<Option<Event>, Violation> {
        let Some(Frame { head, left: 0, .. }) = self.frame else { return Ok(None) };
        self.frame = None;
        if head.is_control() {
            let payload = std::mem::take(&mut self.control);
            return Ok(Some(match head.opcode {
                opcode::PING => Event::Ping(payload),
                opcode::PONG => Event::Pong(payload),
                _ => Event::Close(Close::parse(&payload)?),
            }));
        }
        if !head.is_last {
            return Ok(None);
        }
        let Some((kind, is_packed)) = self.message.take() else { return Ok(None) };
        self.checked = 0;
        let body = std::mem::take(&mut self.body);
        if is_packed {
            let unpacking = Unpacking::new(body, self.max);
            self.unpacking = Some((kind, Box::new(unpacking)));
            return self.unpack();
        }
        Ok(Some(Event::Message(kind, body)))
    }

    /// Goes on with a message that is packed, as far as may be.
    fn unpack(&mut self) -> Result<Option<Event>, Violation> {
        let Some((kind, mut unpacking)) = self.unpacking.take() else { return Ok(None) };
        let is_text = kind == Kind::Text;
        let is_whole = unpacking.go_on(&mut self.credit, self.room)?;
        if !is_whole {
            if is_text {
                // So that not all of it is left to be looked at in the end.
                let rest = &unpacking.done()[self.checked..];
                let valid = simdutf8::compat::from_utf8(rest);
                self.checked += valid.map_or_else(|error| error.valid_up_to(), str::len);
            }
            self.unpacking = Some((kind, unpacking));
            return Ok(None);
        }
        self.body = unpacking.finish();
        if is_text {
            self.check(true)?;
            self.checked = 0;
        }
        Ok(Some(Event::Message(kind, std::mem::take(&mut self.body))))
    }
}
