//! What scripts call, a file a noun, and what a script acts on while it runs.
//!
//! # Examples
//! ```
//! use std::sync::Arc;
//!
//! use node_lua::lua::{self, Deny, LuaProgram, Quota, Script, Settings, Source};
//! use node_lua::sched::Scheduler;
//!
//! lua::init();
//! let settings = Arc::new(Settings::default());
//! let script = Script {
//!     source: Source::Text { name: c"=main".to_owned(), text: b"error('no')".to_vec() },
//!     arguments: Vec::new(),
//!     paths: None,
//!     command_line: None,
//!     deny: Deny::default(),
//!     held: None,
//!     is_secret: false,
//!     quota: Quota::default(),
//! };
//! let scheduler = Scheduler::new(1);
//! scheduler.spawn(None, settings.limits, LuaProgram::new(&settings, script)).unwrap();
//! scheduler.run_worker(0); // until the last context has ended
//! assert_eq!(settings.status(), 1);
//! ```

mod attempts;
pub mod buffer;
mod clock;
mod command;
mod confine;
mod context;
#[cfg(any(feature = "json", feature = "msgpack"))]
mod data;
mod events;
mod failure;
pub(crate) mod fault;
mod frames;
mod host;
#[cfg(feature = "http")]
mod http;
#[cfg(feature = "json")]
mod json;
mod log;
mod message;
#[cfg(feature = "msgpack")]
mod msgpack;
mod names;
mod native;
mod notice;
mod peers;
mod process;
mod program;
mod quota;
mod received;
mod rwopt;
mod sessions;
mod settings;
pub(crate) mod shortage;
mod sockets;
mod start;
mod stat;
mod tcp;
mod timer;
#[cfg(feature = "tls")]
mod tls;
mod turn;
mod udp;
mod unread;
#[cfg(feature = "websocket")]
mod websocket;

pub use buffer::values::BufferValues;
pub use command::{CommandLine, Step};
pub use confine::Deny;
#[cfg(all(feature = "json", feature = "msgpack"))]
pub use data::DATA_FUNCTIONS;
pub use fault::init;
pub use program::{LuaProgram, Paths, Script, Source};
pub use quota::Quota;
pub use settings::Settings;
