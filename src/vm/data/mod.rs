//! Lua values as serde sees them, for all formats that serde has.
//!
//! [`Source`] serializes what is on a stack, [`Builder`] pushes what a deserializer finds. Neither
//! knows a format: what formats differ in is in [`WriteRules`] and [`ReadRules`].
//!
//! Values are read where the VM keeps them, without a call into it: nothing runs in a VM while one
//! of its values is written, neither a metamethod nor a finaliser. While one is built, finalisers
//! may run; what is read from must not be theirs to change.

mod build;
mod cdata;
mod keys;
mod late;
mod marks;
mod output;
mod shape;
mod templates;
mod walk;

pub(crate) use build::{Builder, Marked, ReadRules};
pub(crate) use marks::{Mark, push_mark};
#[cfg(feature = "json")]
pub(crate) use output::Charged;
pub(crate) use output::{Failure, Output, write};
pub(crate) use walk::{Keys, Source, Sparse, WriteRules, empty_array};

/// Levels that options may allow. Each takes two slots of a Lua stack that has 8,000 for one call.
pub(crate) const DEPTH_MAX: u32 = 2000;

/// Why a value cannot be written, in words that follow the name of the function.
#[derive(Debug)]
pub(crate) struct Fault(pub(crate) String);
