//! Addresses to contexts.

use std::collections::VecDeque;
use std::sync::{Arc, RwLock};

use super::context::Context;
use crate::message::Id;
use crate::sync::{read, write};

#[derive(Debug, Default)]
struct Slot {
    generation: u64,
    context: Option<Arc<Context>>,
}

#[derive(Debug, Default)]
struct Slots {
    slots: Vec<Slot>,
    /// Reused oldest first, which keeps stale addresses distinct for longest.
    free: VecDeque<usize>,
    live: usize,
    /// How many there have ever been.
    births: u64,
}

/// All living contexts, by address.
#[derive(Debug, Default)]
pub struct Registry {
    slots: RwLock<Slots>,
}

impl Registry {
    /// The context with this address, if it lives.
    pub fn get(&self, id: Id) -> Option<Arc<Context>> {
        let slots = read(&self.slots);
        let context = slots.slots.get(id.index())?.context.as_ref()?;
        (context.id() == id).then(|| Arc::clone(context))
    }

    /// Gives the context made by `make`, which is told how many there were before, an address;
    /// `None` if all are in use.
    pub(super) fn insert(
        &self,
        make: impl FnOnce(Id, u64) -> Arc<Context>,
    ) -> Option<Arc<Context>> {
        let mut slots = write(&self.slots);
        // Few slots would repeat addresses soon: new ones are opened until there are some.
        let index = match slots.free.len() {
            0..1024 if slots.slots.len() < Id::INDEX_MAX => {
                slots.slots.push(Slot::default());
                slots.slots.len() - 1
            }
            _ => slots.free.pop_front()?,
        };
        let births = slots.births;
        slots.births += 1;
        let slot = &mut slots.slots[index];
        let context = make(Id::new(index, slot.generation), births);
        slot.context = Some(Arc::clone(&context));
        slots.live += 1;
        Some(context)
    }

    /// Forgets a context; returns how many are left.
    pub(super) fn remove(&self, id: Id) -> usize {
        let mut slots = write(&self.slots);
        let index = id.index();
        let slot = slots.slots.get_mut(index).filter(|slot| slot.context.is_some());
        if let Some(slot) = slot {
            slot.context = None;
            slot.generation += 1;
            slots.free.push_back(index);
            slots.live -= 1;
        }
        slots.live
    }

    /// Every living context.
    pub fn all(&self) -> Vec<Arc<Context>> {
        let slots = read(&self.slots);
        slots.slots.iter().filter_map(|slot| slot.context.clone()).collect()
    }

    /// How many live.
    pub fn len(&self) -> usize {
        read(&self.slots).live
    }

    /// True if none lives.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}
