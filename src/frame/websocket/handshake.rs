//! What both sides say in HTTP before there are frames: keys, and agreement on compression.

use base64::prelude::{BASE64_STANDARD, Engine};
use sha1_smol::Sha1;

use super::deflate::WINDOW_BITS;

/// What RFC 6455 has servers append to a client's key.
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

const NAME: &str = "permessage-deflate";
const SERVER_RESETS: &str = "server_no_context_takeover";
const CLIENT_RESETS: &str = "client_no_context_takeover";
const SERVER_WINDOW: &str = "server_max_window_bits";
const CLIENT_WINDOW: &str = "client_max_window_bits";

/// What a client offers.
pub const OFFER: &str = "permessage-deflate; server_no_context_takeover; \
    client_no_context_takeover; client_max_window_bits";

/// The value of `Sec-WebSocket-Accept` for one of `Sec-WebSocket-Key`.
///
/// # Examples
/// ```
/// use node_lua::frame::websocket::accept_key;
///
/// assert_eq!(accept_key(b"dGhlIHNhbXBsZSBub25jZQ=="), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
/// ```
pub fn accept_key(key: &[u8]) -> String {
    let mut hash = Sha1::from(key);
    hash.update(GUID);
    BASE64_STANDARD.encode(hash.digest().bytes())
}

/// One extension of a list, with its parameters.
type Extension<'a> = (&'a str, Vec<(&'a str, Option<&'a str>)>);

/// The value of `Sec-WebSocket-Extensions`. Values in quotes are tokens too, so that nothing but
/// quotes has to be taken off them.
fn extensions(list: &str) -> impl Iterator<Item = Extension<'_>> {
    list.split(',').map(|extension| {
        let mut parts = extension.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default();
        let parameters = parts.map(|part| match part.split_once('=') {
            None => (part, None),
            Some((name, value)) => (name.trim_end(), Some(unquoted(value.trim_start()))),
        });
        (name, parameters.collect())
    })
}

fn unquoted(value: &str) -> &str {
    value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value)
}

/// The bits of a window, as a parameter says it.
fn bits(value: &str) -> Option<u8> {
    let is_plain = !value.starts_with(['0', '+']);
    value.parse().ok().filter(|bits| is_plain && (8..=WINDOW_BITS).contains(bits))
}

/// What the parameters of one extension say, if they are those of permessage-deflate, each once.
#[derive(Default)]
struct Parameters {
    server_resets: bool,
    client_resets: bool,
    server_window: Option<u8>,
    /// With a number or without.
    client_window: Option<Option<u8>>,
}

fn parameters(list: &[(&str, Option<&str>)]) -> Option<Parameters> {
    let mut found = Parameters::default();
    for (name, value) in list {
        let is_first = match (*name, *value) {
            (SERVER_RESETS, None) => !std::mem::replace(&mut found.server_resets, true),
            (CLIENT_RESETS, None) => !std::mem::replace(&mut found.client_resets, true),
            (SERVER_WINDOW, Some(value)) => found.server_window.replace(bits(value)?).is_none(),
            (CLIENT_WINDOW, None) => found.client_window.replace(None).is_none(),
            (CLIENT_WINDOW, Some(value)) => {
                found.client_window.replace(Some(bits(value)?)).is_none()
            }
            _ => false,
        };
        if !is_first {
            return None;
        }
    }
    Some(found)
}

/// A server's answer to what a client offers, and the window, of this many bits, of what it sends;
/// nothing if there is no offer that it can keep to.
///
/// # Examples
/// ```
/// use node_lua::frame::websocket::negotiate;
///
/// let (window, answer) = negotiate("permessage-deflate; server_max_window_bits=10").unwrap();
/// assert_eq!(window, 10);
/// assert!(answer.ends_with("; server_max_window_bits=10"));
/// ```
pub fn negotiate(offers: &str) -> Option<(u8, String)> {
    extensions(offers).filter(|(name, _)| *name == NAME).find_map(|(_, list)| {
        let found = parameters(&list)?;
        let mut answer = format!("{NAME}; {SERVER_RESETS}; {CLIENT_RESETS}");
        if let Some(bits) = found.server_window {
            answer.push_str(&format!("; {SERVER_WINDOW}={bits}"));
        }
        Some((found.server_window.unwrap_or(WINDOW_BITS), answer))
    })
}

/// What a server has agreed to, out of [`OFFER`]: the window of what the client sends, as the
/// binary logarithm of its bytes, 8 to 15.
///
/// # Errors
/// It says what was not offered.
pub fn agreed(answer: &str) -> Result<u8, &'static str> {
    let mut all = extensions(answer);
    let (Some((NAME, list)), None) = (all.next(), all.next()) else {
        return Err("an extension that was not offered");
    };
    match parameters(&list) {
        Some(Parameters { client_window: Some(None), .. }) | None => {
            Err("parameters of permessage-deflate that were not offered")
        }
        Some(Parameters { server_resets: false, .. }) => {
            Err("permessage-deflate without server_no_context_takeover, which was asked for")
        }
        Some(Parameters { client_window, .. }) => {
            Ok(client_window.flatten().unwrap_or(WINDOW_BITS))
        }
    }
}
