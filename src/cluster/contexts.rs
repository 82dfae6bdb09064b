//! What contexts ask of the cluster: finding, sending, asking, answering, publishing.

use std::cell::RefCell;

use super::contacts::EVERYBODY;
use super::node::Node;
use super::state::{MESSAGE_BYTES, State, Who};
use super::wire::{self, Frame, Target};
use crate::error::Code;
use crate::message::{Allowance, Ending, Event, Failure, Held, Id, Value};
use crate::sched::{Cluster, Context};

/// The most memory for encoding that is kept from one value to the next, in bytes.
const SCRATCH_BYTES_KEPT: usize = 64 << 10;

thread_local! {
    static SCRATCH: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Encodes a value, outside of any lock, and calls `body` with its bytes.
fn with_encoded<R>(value: &Value, body: impl FnOnce(&[u8]) -> R) -> Result<R, Failure> {
    if matches!(value, Value::TooMuch) {
        return Err(Code::MAILBOX_FULL.into());
    }
    let mut bytes = SCRATCH.take();
    bytes.clear();
    let result = match wire::put_value(&mut bytes, value) {
        Ok(()) => Ok(body(&bytes)),
        Err(_) => {
            let text = "light userdata does not leave its process: it is an address in its memory";
            Err(Failure { code: Code::VALUE_TYPE, text: Some(text.into()) })
        }
    };
    bytes.shrink_to(SCRATCH_BYTES_KEPT);
    SCRATCH.set(bytes);
    result
}

/// Counts bytes against the memory limit of the context that sends them.
fn hold(from: &Context, bytes: usize) -> Result<Option<Held>, Failure> {
    Allowance::hold_of(from.allowance(), bytes).ok_or_else(|| Code::MAILBOX_FULL.into())
}

impl State {
    /// Whether a message of this many bytes may be sent now.
    fn check_size(&self, bytes: usize) -> Result<(), Failure> {
        if bytes > self.max_payload {
            let text = format!(
                "too large for other processes: it takes {bytes} bytes, and nats-server takes {} \
                 at most (its max_payload)",
                self.max_payload
            );
            return Err(Failure { code: Code::VALUE_TYPE, text: Some(text.into()) });
        }
        if self.out.is_full() {
            let text = Some("too much waits to be sent to other processes".into());
            return Err(Failure { code: Code::MAILBOX_FULL, text });
        }
        Ok(())
    }

    fn post(
        &mut self,
        node: u64,
        to: Target<'_>,
        (from, session): (Id, u64),
        value: &[u8],
    ) -> Result<(), Failure> {
        let name = if let Target::Name(name) = to { name.len() } else { 0 };
        let bytes = value.len() + name + MESSAGE_BYTES;
        self.check_size(bytes)?;
        // The process may be gone since it was chosen.
        let peer = self.peers.get_mut(&node).ok_or(Code::NO_CONTEXT)?;
        if session != 0 {
            peer.asked += 1;
            self.pending.insert((from, session), node);
        }
        self.contacts.note(from, node);
        let from = from.to_bits();
        self.write(node, bytes, |out| wire::put_message(out, from, session, to, value));
        Ok(())
    }
}

impl Cluster for Node {
    fn node(&self) -> &str {
        &self.name
    }

    fn nodes(&self) -> Vec<String> {
        let all = self.lock();
        let others = all.0.peers.values().filter(|peer| !peer.name.is_empty());
        let mut names: Vec<String> = others.map(|peer| peer.name.clone()).collect();
        drop(all);
        names.push(self.name.clone());
        names.sort_unstable();
        names
    }

    fn name_came(&self, name: &[u8]) {
        self.with(|state, _| state.name_came(name));
    }

    fn name_went(&self, name: &[u8], ending: Option<&Ending>) {
        self.with(|state, effects| state.name_went(name, ending, effects));
    }

    fn topic_came(&self, pattern: &[u8]) {
        self.with(|state, _| state.topic_came(pattern));
    }

    fn topic_went(&self, pattern: &[u8]) {
        self.with(|state, _| state.topic_went(pattern));
    }

    fn is_held(&self, name: &[u8]) -> bool {
        self.lock().0.is_held(name)
    }

    fn find(&self, name: &[u8], anywhere: bool) -> Result<Id, Failure> {
        let (state, _) = &mut *self.lock();
        let is_held = if anywhere { state.is_held_anywhere(name) } else { state.is_held(name) };
        if !is_held {
            return Err(state.unknown_name());
        }
        state.handle(Who::Name(name.into())).ok_or_else(|| Code::TOO_MANY_NAMES.into())
    }

    fn send_named(
        &self,
        name: &[u8],
        from: &Context,
        session: u64,
        value: &Value,
    ) -> Result<(), Failure> {
        self.post((from, session), value, Target::Name(name), |state| {
            state.next_holder(name).ok_or_else(|| state.unknown_name())
        })
    }

    fn send(&self, to: Id, from: Option<&Context>, event: Event) -> Result<(), Failure> {
        match event {
            Event::Message { session, value, .. } => {
                let Some(from) = from else { return Ok(()) };
                let who = self.lock().0.who(to).cloned();
                match who.ok_or(Code::NO_CONTEXT)? {
                    Who::Name(name) => self.send_named(&name, from, session, &value),
                    Who::Context(node, context) => {
                        self.post((from, session), &value, Target::Context(context), |_| Ok(node))
                    }
                }
            }
            Event::Reply { session, result } => self.answer(to, from, session, result),
            _ => Ok(()),
        }
    }

    fn publish(&self, from: &Context, topic: &[u8], value: &Value) -> Result<(), Failure> {
        from.note_ties();
        with_encoded(value, |value| {
            let held = hold(from, value.len() + MESSAGE_BYTES)?;
            self.with(|state, _| {
                state.check_here()?;
                let bytes = value.len() + topic.len() + MESSAGE_BYTES;
                state.check_size(bytes)?;
                state.contacts.note(from.id(), EVERYBODY);
                let (own, published) = (state.own, &mut state.published);
                let head = |out: &mut Vec<u8>| {
                    wire::put_head(out, own);
                    out.extend_from_slice(&published.to_le_bytes());
                    *published += 1;
                    wire::put_bytes(out, topic);
                };
                let write = |out: &mut Vec<u8>| {
                    wire::put_number(out, from.id().to_bits());
                    out.extend_from_slice(value);
                };
                state.out.topic(topic, (bytes, state.max_payload), head, write);
                state.out.hold(held);
                Ok(())
            })
        })?
    }

    fn forget(&self, from: Id, session: u64) {
        self.with(|state, _| {
            if let Some(node) = state.close_pending(from, session) {
                state.tell(node, &Frame::Forget { from: from.to_bits(), session });
            }
        });
    }

    fn watch(&self, far: Id, watcher: Id) -> bool {
        let registry = self.scheduler.registry();
        self.with(|state, _| state.watch(far, watcher, |id| registry.get(id).is_some()))
    }

    fn ended(&self, id: Id, ending: &Ending) {
        self.with(|state, _| state.ended(id, ending));
    }
}

impl Node {
    /// Sends a message, or a query if the session is above 0, to the process that `choose` returns.
    fn post(
        &self,
        (from, session): (&Context, u64),
        value: &Value,
        to: Target<'_>,
        choose: impl FnOnce(&mut State) -> Result<u64, Failure>,
    ) -> Result<(), Failure> {
        from.note_ties();
        with_encoded(value, |bytes| {
            let held = hold(from, bytes.len() + MESSAGE_BYTES)?;
            self.with(|state, _| {
                state.check_here()?;
                let node = choose(state)?;
                let posted = state.post(node, to, (from.id(), session), bytes);
                posted.map(|()| state.out.hold(held))
            })
        })?
    }

    /// Replies to a query of a context elsewhere; only the first reply counts.
    fn answer(
        &self,
        asker: Id,
        from: Option<&Context>,
        session: u64,
        result: Result<Value, Failure>,
    ) -> Result<(), Failure> {
        let post = |result: Result<&[u8], Failure>| {
            self.with(|state, _| {
                let Some(&Who::Context(node, context)) = state.who(asker) else {
                    return Err(Code::NO_CONTEXT.into());
                };
                if !state.close_open(asker, session) {
                    return Ok(());
                }
                state.check_here()?;
                let size = |bytes: &[u8]| state.check_size(bytes.len() + MESSAGE_BYTES);
                match result.and_then(|bytes| size(bytes).map(|()| bytes)) {
                    Ok(value) => {
                        let bytes = value.len() + MESSAGE_BYTES;
                        let write = |out: &mut Vec<u8>| {
                            wire::put_reply(out, context, session, Ok(value));
                        };
                        state.write(node, bytes, write);
                        Ok(())
                    }
                    Err(failure) => {
                        state.refuse(node, context, session, &failure);
                        Err(failure)
                    }
                }
            })
        };
        match &result {
            // Sending the failure is all that was asked for.
            Err(failure) => post(Err(failure.clone())).or(Ok(())),
            Ok(value) => match with_encoded(value, |bytes| {
                let held = from.map_or(Ok(None), |from| hold(from, bytes.len() + MESSAGE_BYTES));
                match held {
                    Ok(held) => self.with(|state, _| state.out.hold(held)),
                    Err(failure) => return post(Err(failure)),
                }
                post(Ok(bytes))
            }) {
                Ok(done) => done,
                Err(failure) => post(Err(failure)),
            },
        }
    }
}
