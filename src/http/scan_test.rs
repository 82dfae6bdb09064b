use super::*;

const HEAD: &str = "GET / HTTP/1.1\r\nHost: x\r\n";

/// What a reader makes of bytes that come whole, and in pieces: they must agree.
fn scan(text: &str) -> (usize, Option<Refusal>) {
    let whole = Scan::new(1000, 10).scan(text.as_bytes());
    for step in [1, 2, 3, 7] {
        let mut scan = Scan::new(1000, 10);
        let (mut kept, mut sound, mut refusal) = (Vec::new(), 0, None);
        for piece in text.as_bytes().chunks(step) {
            kept.extend_from_slice(piece);
            let found = scan.scan(&kept);
            sound += found.sound;
            kept.drain(..found.sound);
            refusal = refusal.or(found.refusal);
            if refusal.is_some() {
                break;
            }
        }
        assert_eq!((sound, refusal), (whole.sound, whole.refusal), "{text:?} by {step}");
    }
    (whole.sound, whole.refusal)
}

fn assert_sound(text: &str) {
    assert_eq!(scan(text), (text.len(), None), "{text:?}");
}

fn assert_refused(text: &str, refusal: Refusal) {
    assert_eq!(scan(text).1, Some(refusal), "{text:?}");
}

#[test]
fn requests_and_their_bodies_are_sound_one_after_the_other() {
    let bodies = [
        "\r\n",
        "Content-Length: 5\r\n\r\nabcde",
        "content-length:0\r\n\r\n",
        "Transfer-Encoding: Chunked\r\n\r\n5\r\nabcde\r\n0\r\n\r\n",
        "Transfer-Encoding: chunked\r\n\r\nA;a=\"b\"\r\n0123456789\r\n0\r\nX: y\r\n\r\n",
    ];
    for first in bodies {
        assert_sound(&format!("{HEAD}{first}"));
        for second in bodies {
            assert_sound(&format!("{HEAD}{first}\r\n{HEAD}{second}"));
        }
    }
    assert_sound("POST http://a/b HTTP/1.0\r\n\r\n");
}

#[test]
fn what_has_two_readings_is_refused() {
    for lines in [
        "Content-Length: 4\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n",
        "Content-Length: 4\r\nContent-Length: 4\r\n",
        "Content-Length: +4\r\n",
        "Content-Length: 4, 4\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551616\r\n",
        "Content-Length : 4\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: identity\r\n",
        "A: b\r\n c\r\n",
        "A: b\rc\r\n",
        "A: b\0c\r\n",
        "A: b\n",
        "A\r\n",
        ": b\r\n",
    ] {
        assert_refused(&format!("{HEAD}{lines}\r\n"), Refusal::Bad);
    }
    for body in [
        "5;a\nabcde\r\n0\r\n\r\n",
        "5\nabcde\r\n0\r\n\r\n",
        "0x5\r\nabcde\r\n0\r\n\r\n",
        "-5\r\nabcde\r\n",
        "5 \r\nabcde\r\n",
        "\r\nabcde\r\n",
        "10000000000000005\r\nabcde\r\n",
        "5\r\nabcdeXX0\r\n\r\n",
        "5\r\nabcde\r\n0\r\nX : y\r\n\r\n",
    ] {
        assert_refused(&format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n{body}"), Refusal::Bad);
    }
    for line in
        ["GET  / HTTP/1.1", "GET\t/ HTTP/1.1", "GET / HTTP/1.1 ", " GET / HTTP/1.1", "GET /"]
    {
        assert_refused(&format!("{line}\r\nHost: x\r\n\r\n"), Refusal::Bad);
    }
    assert_refused("GET / HTTP/1.1\nHost: x\n\n", Refusal::Bad);
    assert_refused("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", Refusal::Bad);
    assert_refused("GET / HTTP/2.0\r\n\r\n", Refusal::Version);
}

#[test]
fn lengths_are_bounded_to_the_byte() {
    let head = |room: usize| format!("{HEAD}A: {}\r\n\r\n", "b".repeat(room - HEAD.len() - 7));
    assert_sound(&head(1000));
    assert_refused(&head(1001), Refusal::LongHead);
    let line = |room: usize| format!("GET /{} HTTP/1.1\r\n\r\n", "b".repeat(room - 18));
    assert_sound(&line(1000));
    assert_refused(&line(1003), Refusal::LongLine);
    assert_sound(&format!("{HEAD}{}\r\n", "A: b\r\n".repeat(9)));
    assert_refused(&format!("{HEAD}{}\r\n", "A: b\r\n".repeat(10)), Refusal::LongHead);
    let extension = "a".repeat(SIZE_LINE_MAX);
    let body = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n5;{extension}\r\nabcde\r\n");
    assert_refused(&body, Refusal::Bad);
    // Much that is no line is refused before it is one.
    assert_refused(&"G".repeat(1001), Refusal::LongLine);
    // What no request begins with is none, however long.
    assert_refused(&"(".repeat(1001), Refusal::Bad);
}
