//! The stable codes that scripts see, and how failures of the system map to them.
//!
//! Codes below 200 are those of libuv 0.10, which the script API has always used; 200 and up are
//! the runtime's own. [`Code::text`] is what `context.strerror` returns. The Lua side gives them
//! the same names: `tests/tidy/` compares.

use std::{fmt, io};

/// A stable failure code, as returned to scripts after `false`.
///
/// # Examples
/// ```
/// use node_lua::error::Code;
///
/// let refused = std::io::Error::from_raw_os_error(111);
/// assert_eq!(Code::from(&refused), Code::CONNECTION_REFUSED);
/// assert_eq!(Code(12).text(), "connection refused");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Code(pub u16);

macro_rules! codes {
    ($($(#[$doc:meta])* $name:ident = $number:literal, $text:literal;)*) => {
        impl Code {
            $($(#[$doc])* #[doc = $text] pub const $name: Code = Code($number);)*

            /// The text for people; a generic one for unknown codes.
            pub fn text(self) -> &'static str {
                match self.0 { $($number => $text,)* other => close_text(other) }
            }
        }
    };
}

/// What close codes of WebSocket say; they stand behind `false` as they are.
fn close_text(code: u16) -> &'static str {
    match code {
        1000 => "websocket closed",
        1001 => "websocket closed: going away",
        1002 => "websocket closed: protocol error",
        1003 => "websocket closed: kind of message not accepted",
        1005 => "websocket closed without a code",
        1007 => "websocket closed: invalid data",
        1008 => "websocket closed: policy violated",
        1009 => "websocket closed: message too big",
        1010 => "websocket closed: extension missing",
        1011 => "websocket closed: internal error",
        1012 => "websocket closed: service restarts",
        1013 => "websocket closed: try again later",
        1014 => "websocket closed: bad gateway",
        3000..=4999 => "websocket closed by the application",
        _ => "unknown error",
    }
}

codes! {
    SUCCESS = 0, "success";
    END_OF_FILE = 1, "end of file";
    NAME_NOT_RESOLVED = 2, "host name cannot be resolved";
    ACCESS = 3, "permission denied";
    AGAIN = 4, "resource temporarily unavailable";
    ADDRESS_IN_USE = 5, "address already in use";
    ADDRESS_NOT_AVAILABLE = 6, "address not available";
    ADDRESS_FAMILY = 7, "address family not supported";
    BAD_DESCRIPTOR = 9, "bad file descriptor";
    CONNECTION_ABORTED = 11, "software caused connection abort";
    CONNECTION_REFUSED = 12, "connection refused";
    CONNECTION_RESET = 13, "connection reset by peer";
    HOST_UNREACHABLE = 16, "host is unreachable";
    INVALID = 18, "invalid argument";
    TOO_MANY_FILES = 20, "too many open files";
    MESSAGE_TOO_LONG = 21, "message too long";
    NETWORK_DOWN = 22, "network is down";
    NETWORK_UNREACHABLE = 23, "network is unreachable";
    FILE_TABLE_FULL = 24, "file table overflow";
    NO_BUFFERS = 25, "no buffer space available";
    NO_MEMORY = 26, "not enough memory";
    NOT_A_DIRECTORY = 27, "not a directory";
    NOT_CONNECTED = 31, "socket is not connected";
    NO_SUCH_FILE = 34, "no such file or directory";
    BROKEN_PIPE = 36, "broken pipe";
    TIMED_OUT = 40, "connection timed out";
    EXISTS = 47, "file already exists";
    NAME_TOO_LONG = 49, "name too long";
    NOT_PERMITTED = 50, "operation not permitted";
    IO = 55, "i/o error";
    CANCELLED = 59, "operation canceled";
    C_BOUNDARY = 200, "attempt to yield across a C-call boundary";
    SOCKET_CLOSED = 203, "tcp socket has been closed";
    LISTENER_CLOSED = 204, "tcp listen socket has been closed";
    NO_CONTEXT = 205, "context not exist or has been killed";
    VALUE_TYPE = 206, "transfer data type not supported";
    NO_REPLY = 207, "no reply";
    TIMEOUT = 208, "timeout";
    MAILBOX_FULL = 209, "mailbox full";
    OUT_OF_MEMORY = 210, "context out of memory";
    TIME_LIMIT = 211, "context killed over its time limit";
    WRITE_QUEUE_FULL = 212, "write queue full";
    QUERIES_FULL = 213, "too many queries wait for an answer";
    LOOKUPS_FULL = 214, "too many host names are being looked up";
    BAD_HEAD = 215, "head of a frame that cannot be";
    TLS_FAILED = 220, "TLS handshake failed";
    CERTIFICATE_REFUSED = 221, "certificate refused";
    TLS_TRUNCATED = 222, "truncated: the peer has ended the connection without a close_notify";
    UPGRADE_REFUSED = 223, "WebSocket handshake refused";
    NAME_TAKEN = 230, "another context answers under this name";
    CLUSTER_AWAY = 231, "the cluster is away";
    TOO_MANY_NAMES = 232, "too many names or subscriptions of one context";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.text())
    }
}

/// For failures that come by way of [`io::Error`] and are none of the system's.
impl std::error::Error for Code {}

impl From<&io::Error> for Code {
    fn from(error: &io::Error) -> Code {
        let Some(number) = error.raw_os_error() else {
            if let Some(code) = error.get_ref().and_then(|inner| inner.downcast_ref::<Code>()) {
                return *code;
            }
            return match error.kind() {
                io::ErrorKind::TimedOut => Code::TIMED_OUT,
                io::ErrorKind::WriteZero | io::ErrorKind::BrokenPipe => Code::BROKEN_PIPE,
                io::ErrorKind::UnexpectedEof => Code::END_OF_FILE,
                io::ErrorKind::InvalidInput => Code::INVALID,
                _ => Code::IO,
            };
        };
        match number {
            libc::EACCES => Code::ACCESS,
            libc::EAGAIN => Code::AGAIN,
            libc::EADDRINUSE => Code::ADDRESS_IN_USE,
            libc::EADDRNOTAVAIL => Code::ADDRESS_NOT_AVAILABLE,
            libc::EAFNOSUPPORT => Code::ADDRESS_FAMILY,
            libc::EBADF => Code::BAD_DESCRIPTOR,
            libc::ECONNABORTED => Code::CONNECTION_ABORTED,
            libc::ECONNREFUSED => Code::CONNECTION_REFUSED,
            libc::ECONNRESET => Code::CONNECTION_RESET,
            libc::EHOSTUNREACH => Code::HOST_UNREACHABLE,
            libc::EINVAL => Code::INVALID,
            libc::EMFILE => Code::TOO_MANY_FILES,
            libc::ENETDOWN => Code::NETWORK_DOWN,
            libc::ENETUNREACH => Code::NETWORK_UNREACHABLE,
            libc::ENFILE => Code::FILE_TABLE_FULL,
            libc::ENOBUFS => Code::NO_BUFFERS,
            libc::ENOMEM => Code::NO_MEMORY,
            libc::ENOTDIR => Code::NOT_A_DIRECTORY,
            libc::ENOTCONN => Code::NOT_CONNECTED,
            libc::ENOENT => Code::NO_SUCH_FILE,
            libc::EPIPE => Code::BROKEN_PIPE,
            libc::ETIMEDOUT => Code::TIMED_OUT,
            libc::EEXIST => Code::EXISTS,
            libc::ENAMETOOLONG => Code::NAME_TOO_LONG,
            libc::EPERM => Code::NOT_PERMITTED,
            _ => Code::IO,
        }
    }
}
