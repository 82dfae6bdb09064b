//! Requests of HTTP/1: what the reader before hyper finds sound is read the same however it is cut,
//! and hyper finds the same requests in it, with the same bodies.

use std::cell::RefCell;
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use http::{Method, Request, Response};
use hyper::body::{Body, Frame, Incoming};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use node_lua::http::{Refusal, Scan};

use super::Choices;

/// What a head may have, as the server has it for the tests of its limits.
const HEAD_MAX: usize = 1000;
const HEADERS_MAX: usize = 10;

/// Pieces that requests are made of.
const PIECES: &[&[u8]] = &[
    b"GET / HTTP/1.1\r\n",
    b"POST /a HTTP/1.1\r\n",
    b"PUT http://a/b HTTP/1.1\r\n",
    b"GET / HTTP/1.0\r\n",
    b"CONNECT a:80 HTTP/1.1\r\n",
    b"Host: x\r\n",
    b"Content-Length: ",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding:",
    b"chunked",
    b"Connection: close\r\n",
    b"Connection: keep-alive\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: x\r\nConnection: upgrade\r\n",
    b"A: b\r\n",
    b"\r\n",
    b"\r\n\r\n",
    b"5\r\nabcde\r\n",
    b"0\r\n\r\n",
    b"abcde",
    b"\n",
    b"\r",
    b" ",
    b"\t",
    b":",
    b";",
    b",",
    b"\0",
    b"0",
    b"5",
    b"a",
    b"x",
];

/// First a choice of form and of cuts, then the bytes.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices(input);
    let (form, step) = (choices.byte(), usize::from(choices.byte()).max(1));
    let bytes: Vec<u8> = match form % 4 {
        0 => choices.0.to_vec(),
        _ => choices.0.iter().flat_map(piece).copied().collect(),
    };
    let (sound, refusal, requests) = read(&bytes);
    for step in [step, bytes.len().max(1)] {
        let expected = (sound, refusal, requests.len() as u64);
        assert_eq!(in_pieces(&bytes, step), expected, "in pieces of {step}");
    }
    let found = hyper(&bytes[..sound]);
    for (number, (ours, theirs)) in requests.iter().zip(&found).enumerate() {
        assert_eq!(ours, theirs, "request {number} of {:?}", String::from_utf8_lossy(&bytes));
        if theirs.is_connect {
            return;
        }
    }
    assert!(found.len() <= requests.len(), "{:?}", String::from_utf8_lossy(&bytes));
}

fn piece(byte: &u8) -> &[u8] {
    PIECES.get(usize::from(*byte) % 48).copied().unwrap_or(std::slice::from_ref(byte))
}

/// A request as a reader sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Seen {
    /// Of others nobody but the script may say where they end.
    is_connect: bool,
    body: Vec<u8>,
    is_whole: bool,
}

/// What our reader finds, as it is shown each byte but those of bodies: how many are sound, why the
/// others are not, and the requests.
fn read(bytes: &[u8]) -> (usize, Option<Refusal>, Vec<Seen>) {
    let mut scan = Scan::new(HEAD_MAX, HEADERS_MAX);
    let (mut sound, mut kept, mut at) = (0, Vec::new(), 0);
    let mut seen: Vec<Seen> = Vec::new();
    while at < bytes.len() {
        let free = usize::try_from(scan.free()).unwrap_or(usize::MAX);
        if free > 0 && kept.is_empty() {
            let count = free.min(bytes.len() - at);
            if let Some(last) = seen.last_mut() {
                last.body.extend_from_slice(&bytes[at..at + count]);
            }
            scan.skip(count as u64);
            (sound, at) = (sound + count, at + count);
        } else {
            kept.push(bytes[at]);
            at += 1;
            let heads = scan.heads;
            let found = scan.scan(&kept);
            if scan.heads > heads {
                let is_connect = kept.trim_ascii_start().starts_with(b"CONNECT ");
                seen.push(Seen { is_connect, body: Vec::new(), is_whole: false });
            }
            sound += found.sound;
            kept.drain(..found.sound);
            if found.refusal.is_some() {
                return (sound, found.refusal, seen);
            }
        }
        if scan.is_at_head()
            && kept.is_empty()
            && let Some(last) = seen.last_mut()
        {
            last.is_whole = true;
        }
    }
    (sound, None, seen)
}

/// The same of bytes that come in pieces of this size, with the number of requests.
fn in_pieces(bytes: &[u8], step: usize) -> (usize, Option<Refusal>, u64) {
    let mut scan = Scan::new(HEAD_MAX, HEADERS_MAX);
    let (mut kept, mut sound) = (Vec::new(), 0);
    for piece in bytes.chunks(step) {
        kept.extend_from_slice(piece);
        let found = scan.scan(&kept);
        sound += found.sound;
        kept.drain(..found.sound);
        if found.refusal.is_some() {
            return (sound, found.refusal, scan.heads);
        }
    }
    (sound, None, scan.heads)
}

/// A peer that has said all that it says, and takes whatever it is told.
struct Peer<'a>(&'a [u8]);

impl Read for Peer<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        let count = self.0.len().min(buffer.remaining());
        buffer.put_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Poll::Ready(Ok(()))
    }
}

impl Write for Peer<'_> {
    fn poll_write(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

/// An answer without a body.
struct Nothing;

impl Body for Nothing {
    type Data = bytes::Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<bytes::Bytes>, Infallible>>> {
        Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}

/// What hyper finds in bytes, set as the server sets it.
fn hyper(bytes: &[u8]) -> Vec<Seen> {
    let seen = Rc::new(RefCell::new(Vec::new()));
    let service = service_fn(|request: Request<Incoming>| {
        let seen = Rc::clone(&seen);
        async move {
            let is_connect = request.method() == Method::CONNECT;
            let number = seen.borrow().len();
            seen.borrow_mut().push(Seen { is_connect, body: Vec::new(), is_whole: false });
            let mut body = request.into_body();
            loop {
                match std::future::poll_fn(|cx| Pin::new(&mut body).poll_frame(cx)).await {
                    None => break seen.borrow_mut()[number].is_whole = true,
                    Some(Err(_)) => break,
                    Some(Ok(frame)) => {
                        if let Ok(data) = frame.into_data() {
                            seen.borrow_mut()[number].body.extend_from_slice(&data);
                        }
                    }
                }
            }
            Ok::<_, Infallible>(Response::new(Nothing))
        }
    });
    let mut builder = http1::Builder::new();
    builder.half_close(true).auto_date_header(false).header_read_timeout(None);
    let mut connection = Box::pin(builder.serve_connection(Peer(bytes), service));
    let mut cx = Context::from_waker(Waker::noop());
    // Nothing has to be waited for.
    for _ in 0..10_000 {
        if connection.as_mut().poll(&mut cx).is_ready() {
            break;
        }
    }
    drop(connection);
    seen.take()
}
