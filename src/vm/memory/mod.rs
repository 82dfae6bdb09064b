//! The allocator of states.

mod arena;
mod deterministic_heap;
mod free;
pub(crate) mod heap;
mod pages;
pub(crate) mod slots;
mod waste;
