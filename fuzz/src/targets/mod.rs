//! The targets, by name.

mod buffer;
#[cfg(feature = "cluster")]
mod cluster;
#[cfg(all(feature = "json", feature = "msgpack"))]
mod data;
mod finaliser;
mod framing;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "json")]
mod json;
mod message;
#[cfg(feature = "msgpack")]
mod msgpack;
mod pack;
mod program;
mod rwopt;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "websocket")]
mod websocket;

/// Takes any bytes; panics if something that must hold does not.
pub type Target = fn(&[u8]);

/// Every target, under the name of its folder in `corpus/`.
pub const TARGETS: &[(&str, Target)] = &[
    ("buffer", buffer::run),
    #[cfg(feature = "cluster")]
    ("cluster", cluster::run),
    #[cfg(all(feature = "json", feature = "msgpack"))]
    ("data", data::run),
    ("finaliser", finaliser::run),
    ("framing", framing::run),
    #[cfg(feature = "http")]
    ("http", http::run),
    #[cfg(feature = "json")]
    ("json", json::run),
    ("message", message::run),
    #[cfg(feature = "msgpack")]
    ("msgpack", msgpack::run),
    ("pack", pack::run),
    ("rwopt", rwopt::run),
    #[cfg(feature = "tls")]
    ("tls", tls::run),
    #[cfg(feature = "websocket")]
    ("websocket", websocket::run),
];

/// Longer input is cut: what needs more bytes than this has its own tests.
pub const INPUT_MAX: usize = 4096;

/// Takes choices from the input; zero when it is used up.
struct Choices<'a>(&'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let [first, rest @ ..] = self.0 else { return 0 };
        self.0 = rest;
        *first
    }

    fn number(&mut self) -> u64 {
        u64::from_le_bytes([(); 8].map(|()| self.byte()))
    }
}
