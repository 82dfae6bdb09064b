//! What contexts reach beyond this process, if it is part of a cluster: `cluster` does it.

use std::fmt;
use std::sync::Arc;

use super::context::Context;
use crate::message::{Ending, Event, Failure, Id, Value};

/// The other processes. Nothing here waits, and nothing that is called comes back to `sched` with a
/// lock held. Those elsewhere that a script deals with have handles, [`Id::far`].
pub trait Cluster: Send + Sync + fmt::Debug {
    /// What this process is called.
    fn node(&self) -> &str;

    /// What all of them are called that are here now, this one among them.
    fn nodes(&self) -> Vec<String>;

    /// The first context of this process answers under a name.
    fn name_came(&self, name: &[u8]);

    /// None does any more, and how the last one has ended, if it has.
    fn name_went(&self, name: &[u8], ending: Option<&Ending>);

    /// One more subscription of this process to a topic, or to a pattern.
    fn topic_came(&self, pattern: &[u8]);

    /// One less.
    fn topic_went(&self, pattern: &[u8]);

    /// Whether somebody elsewhere answers under a name.
    fn is_held(&self, name: &[u8]) -> bool;

    /// A handle for whoever answers under a name: elsewhere, or `anywhere`.
    ///
    /// # Errors
    /// [`Code::NO_CONTEXT`], [`Code::CLUSTER_AWAY`].
    fn find(&self, name: &[u8], anywhere: bool) -> Result<Id, Failure>;

    /// Sends, or asks if `session` is above 0, one of those elsewhere who answer under a name.
    ///
    /// # Errors
    /// Nothing was sent then.
    fn send_named(
        &self,
        name: &[u8],
        from: &Context,
        session: u64,
        value: &Value,
    ) -> Result<(), Failure>;

    /// Hands a message, or an answer, to somebody elsewhere.
    ///
    /// # Errors
    /// Nothing was sent then; an asker whose answer cannot be sent is told.
    fn send(&self, to: Id, from: Option<&Context>, event: Event) -> Result<(), Failure>;

    /// Publishes to those elsewhere who have subscribed.
    ///
    /// # Errors
    /// Nothing was sent then.
    fn publish(&self, from: &Context, topic: &[u8], value: &Value) -> Result<(), Failure>;

    /// Nobody waits any more for the answer to a query.
    fn forget(&self, from: Id, session: u64);

    /// Tells `watcher` with [`Event::Ended`] when somebody elsewhere has ended, or nobody answers
    /// under the name any more; false if that is so now.
    fn watch(&self, far: Id, watcher: Id) -> bool;

    /// A context with ties has ended.
    fn ended(&self, id: Id, ending: &Ending);
}

/// The cluster, once the process is part of one.
pub(super) type Joined = std::sync::OnceLock<Arc<dyn Cluster>>;
