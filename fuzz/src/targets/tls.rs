//! TLS: certificates and keys that are none, peers that say anything, and records cut anywhere.

use std::io::IoSlice;
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use node_lua::buf::fill_block;
use node_lua::tls::{Client, Config, Identity, Options, Rest, Server, ServerName, Session, Source};

use super::Choices;

const CERT: &[u8] = include_bytes!("../../../examples/localhost.pem");
const CA: &[u8] = include_bytes!("../../../examples/localhost_ca.pem");

fn options() -> Options {
    Options { alpn: vec![b"fuzz".to_vec()], only_tls13: false, servers_remembered: None }
}

fn identity(cert: &[u8], key: &[u8]) -> Identity {
    Identity { cert: Source::Text(cert.to_vec()), key: Source::Text(key.to_vec()) }
}

fn server(identity: Identity, client_ca: Option<Source>) -> Server {
    Server { identity: Some(identity), sni: Vec::new(), client_ca, client_optional: true }
}

static CONFIGS: LazyLock<[Arc<Config>; 2]> = LazyLock::new(|| {
    let ca = Some(Source::Text(CA.to_vec()));
    let client = Config::client(Client { ca, verify: true, identity: None }, options(), &|| {});
    let server = Config::server(server(identity(CERT, CERT), None), options(), &|| {});
    [client.expect("a client"), server.expect("a server")]
});

fn sessions() -> [Session; 2] {
    let name = ServerName::try_from("localhost").expect("a name");
    let [client, server] = &*CONFIGS;
    [client.session(Some(name)).expect("a client"), server.session(None).expect("a server")]
}

/// First a choice of what the rest is.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices(input);
    match choices.byte() % 4 {
        0 => pem(choices.0),
        1 => hostile(choices, false),
        2 => hostile(choices, true),
        _ => talk(choices),
    }
}

/// Text as each of the options that take PEM: what is wrong is said.
fn pem(text: &[u8]) {
    let given = || Some(Source::Text(text.to_vec()));
    let own = || identity(CERT, CERT);
    let client =
        |ca, identity| Config::client(Client { ca, verify: true, identity }, options(), &|| {});
    // The system's own roots take long to read.
    let ca = || Some(Source::Text(CA.to_vec()));
    let results = [
        client(given(), None),
        client(ca(), Some(identity(text, CERT))),
        client(ca(), Some(identity(CERT, text))),
        Config::server(server(identity(text, text), None), options(), &|| {}),
        Config::server(server(own(), given()), options(), &|| {}),
    ];
    for result in results {
        match result {
            Ok(config) => assert!(config.reload(&|| {}).is_ok(), "what was taken is taken again"),
            Err(failure) => assert!(!failure.text.is_empty()),
        }
    }
}

fn output(session: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_flush() {
        session.flush(&mut bytes).expect("a vector takes all");
    }
    bytes
}

fn input(session: &mut Session, room: usize) -> (Vec<u8>, Rest) {
    let (mut all, mut rest) = (Vec::new(), Rest::More);
    while rest == Rest::More {
        let mut block = BytesMut::new();
        fill_block(&mut block, room, |space| {
            let (count, found) = session.read(space);
            rest = found;
            Ok(count)
        })
        .expect("nothing fails");
        all.extend_from_slice(&block);
    }
    (all, rest)
}

/// Bytes that no peer would send, in pieces, some as records with a true head.
fn hostile(mut choices: Choices<'_>, is_server: bool) {
    let mut session = sessions().into_iter().nth(is_server.into()).expect("two");
    output(&mut session);
    while !choices.0.is_empty() {
        let form = choices.byte();
        let len = usize::from(choices.byte()).min(choices.0.len());
        let (piece, rest) = choices.0.split_at(len);
        choices.0 = rest;
        let kind = [20, 21, 22, 23][usize::from(form >> 1) % 4];
        let head = [kind, 3, 3, 0, len as u8];
        if form & 1 != 0 {
            session.feed(&head);
        }
        session.feed(piece);
        let (said, rest) = input(&mut session, 1 + usize::from(form));
        assert!(said.is_empty(), "nobody has agreed on keys");
        let failed = session.failure().map(|failure| failure.code);
        match rest {
            Rest::Failed(code) => assert_eq!(Some(code), failed),
            _ => assert!(failed.is_none() && session.is_handshaking()),
        }
        session.shrink();
        output(&mut session);
    }
    session.end();
    assert!(session.failure().is_some(), "a handshake that was not finished has failed");
}

/// Two sides that talk, whose records are cut anywhere, and perhaps spoilt or cut off.
fn talk(mut choices: Choices<'_>) {
    let [mut client, mut server] = sessions();
    let pieces = 1 + usize::from(choices.byte());
    let send = |from: &mut Session, to: &mut Session| {
        let bytes = output(from);
        bytes.chunks(pieces * 8).for_each(|piece| to.feed(piece));
        !bytes.is_empty()
    };
    while send(&mut client, &mut server) | send(&mut server, &mut client) {}
    assert!(!client.is_handshaking() && !server.is_handshaking());
    let (spoilt, at) = (choices.byte(), choices.number() as usize);
    let mut expected = Vec::new();
    let mut records = Vec::new();
    while !choices.0.is_empty() {
        let len = (usize::from(choices.byte()) * 97).min(20_000);
        let text = vec![choices.byte(); len];
        let skip = usize::from(choices.byte()).min(len);
        let (mut sent, all) =
            (skip, [IoSlice::new(&text[..len / 2]), IoSlice::new(&text[len / 2..])]);
        while sent < len {
            sent += client.write(&all, sent);
        }
        expected.extend_from_slice(&text[skip..]);
        records.extend(output(&mut client));
    }
    let is_closed = spoilt & 1 != 0;
    if is_closed {
        client.close();
        records.extend(output(&mut client));
    }
    let is_spoilt = spoilt & 2 != 0 && !records.is_empty();
    if is_spoilt {
        let at = at % records.len();
        records[at] ^= 1 << (spoilt >> 5);
    }
    let mut said = Vec::new();
    let mut last = Rest::Nothing;
    for piece in records.chunks(pieces) {
        server.feed(piece);
        let (some, rest) = input(&mut server, pieces);
        said.extend(some);
        last = rest;
    }
    assert!(expected.starts_with(&said), "what arrives is what was said");
    match (is_spoilt, is_closed) {
        (false, _) => {
            assert_eq!(said.len(), expected.len());
            assert_eq!(last, if is_closed { Rest::Closed } else { Rest::Nothing });
        }
        // A head that is spoilt may have it wait for more.
        (true, _) => assert!(last != Rest::Closed || said.len() == expected.len()),
    }
    server.end();
    let (_, rest) = input(&mut server, 100);
    assert!(matches!((rest, is_closed), (Rest::Failed(_), _) | (Rest::Closed, true)));
}
