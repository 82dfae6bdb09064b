//! The system: sockets, readiness, threads, signals, standard output. The async runtime is named
//! here alone.

#[allow(unreachable_pub, reason = "reached through backend.rs")]
pub(crate) mod epoll;
pub mod memory;
pub(crate) mod runtime;
#[allow(unreachable_pub, reason = "as above")]
pub(crate) mod socket;
pub mod stdio;
pub mod thread;

pub use epoll::has_sockets;
pub use runtime::{
    Signal, fix_addresses, init, on_signal, read_line, restore_descriptor_limit, unbuffer_input,
    usual_descriptor_limit,
};
pub use socket::{Address, unix_address};
