//! Two sessions talk to each other without a socket: in pieces of any size, cut off, and spoilt.

#![allow(clippy::unwrap_used, reason = "tests")]

use std::io::IoSlice;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, LazyLock};

use bytes::BytesMut;
use proptest::prelude::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rustls::pki_types::ServerName;

use super::{Client, Config, Failure, Identity, Options, Rest, Server, Session, Source};
use crate::buf::fill_block;
use crate::error::Code;

/// A CA, and a server's certificate by it with its key.
struct Made {
    ca: String,
    cert: String,
    key: String,
}

fn make(change: impl FnOnce(&mut CertificateParams)) -> Made {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    // Two of one name would be taken for each other.
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("CA {}", COUNT.fetch_add(1, Ordering::Relaxed));
    params.distinguished_name.push(DnType::CommonName, name);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(["a.example".to_owned()]).unwrap();
    change(&mut params);
    let cert = params.signed_by(&key, &ca).unwrap();
    Made { ca: ca.pem(), cert: cert.pem(), key: key.serialize_pem() }
}

static MADE: LazyLock<Made> = LazyLock::new(|| make(|_| {}));

fn text(pem: &str) -> Source {
    Source::new(pem.as_bytes())
}

fn options(only_tls13: bool) -> Options {
    Options { alpn: Vec::new(), only_tls13, servers_remembered: None }
}

fn server_of(made: &Made) -> Result<Arc<Config>, Failure> {
    let identity = Identity { cert: text(&made.cert), key: text(&made.key) };
    let server = Server {
        identity: Some(identity),
        sni: Vec::new(),
        client_ca: None,
        client_optional: false,
    };
    Config::server(server, options(false), &|| ())
}

fn client_of(made: &Made, only_tls13: bool) -> Arc<Config> {
    let client = Client { ca: Some(text(&made.ca)), verify: true, identity: None };
    Config::client(client, options(only_tls13), &|| ()).unwrap()
}

fn pair_of(made: &Made) -> (Session, Session) {
    let name = ServerName::try_from("a.example").unwrap();
    let client = client_of(made, false).session(Some(name)).unwrap();
    (client, server_of(made).unwrap().session(None).unwrap())
}

/// What a session wants to send.
fn output(session: &mut Session) -> Vec<u8> {
    let mut bytes = Vec::new();
    while session.wants_flush() {
        session.flush(&mut bytes).unwrap();
    }
    bytes
}

/// What a session says, and how it ends, read into so much room at a time.
fn input(session: &mut Session, room: usize) -> (Vec<u8>, Rest) {
    let mut all = Vec::new();
    loop {
        let (mut block, mut rest) = (BytesMut::new(), Rest::Nothing);
        fill_block(&mut block, room, |space| {
            let (count, found) = session.read(space);
            rest = found;
            Ok(count)
        })
        .unwrap();
        all.extend_from_slice(&block);
        if rest != Rest::More {
            return (all, rest);
        }
    }
}

fn shake_hands(one: &mut Session, other: &mut Session) {
    while one.is_handshaking() || other.is_handshaking() || one.wants_flush() || other.wants_flush()
    {
        other.feed(&output(one));
        one.feed(&output(other));
        assert_eq!((one.failure(), other.failure()), (None, None));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// However the stream is cut, and however much room there is, the same bytes come out.
    #[test]
    fn any_split_gives_the_same_bytes(
        bytes in proptest::collection::vec(any::<u8>(), 0..60_000),
        cuts in proptest::collection::vec(1_usize..9000, 1..20),
        room in 1_usize..20_000,
    ) {
        let (mut client, mut server) = pair_of(&MADE);
        shake_hands(&mut client, &mut server);
        let mut written = 0;
        while written < bytes.len() {
            written += client.write(&[IoSlice::new(&bytes)], written);
        }
        client.close();
        let sent = output(&mut client);
        let (mut rest, mut got, mut end) = (&sent[..], Vec::new(), Rest::Nothing);
        for cut in cuts.iter().cycle() {
            let (piece, more) = rest.split_at((*cut).min(rest.len()));
            server.feed(piece);
            let (some, how) = input(&mut server, room);
            got.extend(some);
            (rest, end) = (more, how);
            if rest.is_empty() {
                break;
            }
        }
        prop_assert!(got == bytes);
        prop_assert_eq!(end, Rest::Closed);
    }

    /// Without the last word of the peer the end is no end, wherever the stream is cut off.
    #[test]
    fn what_is_cut_off_is_truncated(length in 0_usize..40_000, kept in 0.0_f64..1.0) {
        let (mut client, mut server) = pair_of(&MADE);
        shake_hands(&mut client, &mut server);
        let bytes = vec![7; length];
        let mut written = 0;
        while written < bytes.len() {
            written += client.write(&[IoSlice::new(&bytes)], written);
        }
        let all = output(&mut client);
        client.close();
        let sent = [all, output(&mut client)].concat();
        server.feed(&sent[..(sent.len() as f64 * kept) as usize]);
        server.end();
        let (got, end) = input(&mut server, 5000);
        prop_assert!(got.len() <= length && got.iter().all(|byte| *byte == 7));
        prop_assert_eq!(end, Rest::Failed(Code::TLS_TRUNCATED));
    }

    /// Whatever a peer sends, before or after the handshake, ends in bytes that were said or in a
    /// failure with a text.
    #[test]
    fn garbage_is_refused(
        bytes in proptest::collection::vec(any::<u8>(), 1..2000),
        at in 0.0_f64..1.0,
        is_late in any::<bool>(),
    ) {
        let (mut client, mut server) = pair_of(&MADE);
        if is_late {
            shake_hands(&mut client, &mut server);
        }
        client.write(&[IoSlice::new(b"said")], 0);
        let mut sent = output(&mut client);
        let place = (sent.len() as f64 * at) as usize;
        sent.splice(place..place, bytes);
        server.feed(&sent);
        server.end();
        let (got, end) = input(&mut server, 100);
        prop_assert!(got.is_empty() || got == b"said");
        prop_assert!(matches!(end, Rest::Failed(_)), "{end:?}");
        if !is_late {
            prop_assert!(!server.failure().unwrap().text.is_empty());
        }
    }
}

#[test]
fn certificates_are_refused_with_their_name_and_dates() {
    let old = make(|params| {
        params.not_before = rcgen::date_time_ymd(2001, 2, 3);
        params.not_after = rcgen::date_time_ymd(2002, 3, 4);
    });
    let other = make(|params| params.subject_alt_names.clear());
    let cases = [
        (&old, &old.ca, &["2002-03-04", "it has expired"][..]),
        (&other, &other.ca, &["names nobody", "'a.example'"]),
        (&*MADE, &other.ca, &["its issuer is not trusted"]),
    ];
    for (made, ca, words) in cases {
        let (_, mut server) = pair_of(made);
        let trusting = Made { ca: ca.clone(), cert: String::new(), key: String::new() };
        let name = ServerName::try_from("a.example").unwrap();
        let mut client = client_of(&trusting, false).session(Some(name)).unwrap();
        server.feed(&output(&mut client));
        client.feed(&output(&mut server));
        let failure = client.failure().unwrap();
        assert_eq!(failure.code, Code::CERTIFICATE_REFUSED);
        for word in words {
            assert!(failure.text.contains(word), "{}", failure.text);
        }
        server.feed(&output(&mut client));
        assert_eq!(server.failure().unwrap().code, Code::CERTIFICATE_REFUSED);
    }
}

#[test]
fn equal_configurations_resume_each_others_sessions() {
    let meet = |made: &Made| {
        let (mut client, mut server) = pair_of(made);
        shake_hands(&mut client, &mut server);
        let _ = input(&mut client, 10);
        client.details().resumed
    };
    let made = make(|_| {});
    // Somebody holds them meanwhile.
    let _held = (client_of(&made, false), server_of(&made).unwrap());
    assert!(!meet(&made));
    assert!(meet(&made));
}

#[test]
fn an_idle_session_gives_back_what_a_large_message_took() {
    let (mut client, mut server) = pair_of(&MADE);
    shake_hands(&mut client, &mut server);
    client.write(&[IoSlice::new(&[7; 16_000])], 0);
    server.feed(&output(&mut client));
    assert_eq!(input(&mut server, 20_000).0.len(), 16_000);
    server.shrink();
    client.write(&[IoSlice::new(b"more")], 0);
    server.feed(&output(&mut client));
    assert_eq!(input(&mut server, 100), (b"more".to_vec(), Rest::Nothing));
}
