//! Slots with generations: what sockets are known by inside a context.

/// Bits of a key that name the slot.
const INDEX_BITS: u32 = 24;

/// Values under keys that are not used twice. Keys fit a Lua number and leave two bits free in 53.
///
/// # Examples
/// ```
/// use node_lua::net::SlotMap;
///
/// let mut map = SlotMap::default();
/// let key = map.insert(|key| format!("value {key}"));
/// assert!(map.get(key).is_some());
/// map.remove(key);
/// let other = map.insert(|_| String::new());
/// assert_ne!(key, other); // although it has the same slot
/// assert!(map.get(key).is_none());
/// ```
#[derive(Debug)]
pub struct SlotMap<T> {
    slots: Vec<(u64, Option<T>)>,
    free: Vec<usize>,
    len: usize,
}

impl<T> Default for SlotMap<T> {
    fn default() -> Self {
        SlotMap { slots: Vec::new(), free: Vec::new(), len: 0 }
    }
}

/// Where the value under a key would be; nowhere for those that never are keys.
#[inline]
fn place_of(key: u64) -> usize {
    ((key & ((1 << INDEX_BITS) - 1)) as usize).wrapping_sub(1)
}

impl<T> SlotMap<T> {
    /// Stores what `make` builds for the key it is given, and returns that.
    pub fn insert(&mut self, make: impl FnOnce(u64) -> T) -> u64 {
        let index = self.free.last().copied().unwrap_or(self.slots.len());
        let generation = self.slots.get(index).map_or(0, |slot| slot.0);
        let key = generation << INDEX_BITS | (index as u64 + 1);
        let value = make(key);
        if self.free.pop().is_none() {
            self.slots.push((generation, None));
        }
        self.slots[index].1 = Some(value);
        self.len += 1;
        key
    }

    #[inline]
    fn slot(&self, key: u64) -> Option<usize> {
        let index = place_of(key);
        (self.slots.get(index)?.0 == key >> INDEX_BITS).then_some(index)
    }

    /// The value under `key`.
    #[inline]
    pub fn get_mut(&mut self, key: u64) -> Option<&mut T> {
        let (generation, value) = self.slots.get_mut(place_of(key))?;
        value.as_mut().filter(|_| *generation == key >> INDEX_BITS)
    }

    /// The value under `key`.
    #[inline]
    pub fn get(&self, key: u64) -> Option<&T> {
        let (generation, value) = self.slots.get(place_of(key))?;
        value.as_ref().filter(|_| *generation == key >> INDEX_BITS)
    }

    /// Takes the value under `key`; the key is never used again.
    pub fn remove(&mut self, key: u64) -> Option<T> {
        let index = self.slot(key)?;
        let value = self.slots[index].1.take()?;
        self.free_slot(index);
        Some(value)
    }

    /// Drops the value under `key` where it is, which is not used again; false if there is none.
    pub fn discard(&mut self, key: u64) -> bool {
        let Some(index) = self.slot(key).filter(|index| self.slots[*index].1.is_some()) else {
            return false;
        };
        self.slots[index].1 = None;
        self.free_slot(index);
        true
    }

    /// Puts what `change` makes of the value under `key` in its place; false if there is none, and
    /// the key is not used again if it makes none.
    pub fn try_change(&mut self, key: u64, change: impl FnOnce(T) -> Option<T>) -> bool {
        let Some(index) = self.slot(key) else { return false };
        let Some(value) = self.slots[index].1.take() else { return false };
        let changed = change(value);
        let is_there = changed.is_some();
        self.slots[index].1 = changed;
        if !is_there {
            self.free_slot(index);
        }
        is_there
    }

    fn free_slot(&mut self, index: usize) {
        self.slots[index].0 = (self.slots[index].0 + 1) & ((1 << 26) - 1);
        self.free.push(index);
        self.len -= 1;
    }

    /// All values, with their keys.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut T)> {
        self.slots.iter_mut().zip(1..).filter_map(|((generation, value), index)| {
            Some((*generation << INDEX_BITS | index, value.as_mut()?))
        })
    }

    /// How many values there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All values, for the end.
    pub fn drain(&mut self) -> impl Iterator<Item = T> + '_ {
        self.len = 0;
        self.free.clear();
        self.slots.drain(..).filter_map(|slot| slot.1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removed_key_stays_dead() {
        let mut table = SlotMap::default();
        let first = table.insert(|_| 'a');
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert(|_| 'b');
        assert_ne!(first, second);
        assert_eq!(table.get(first), None);
        assert_eq!(table.get(second), Some(&'b'));
        assert_eq!(table.remove(first), None);
        assert_eq!(table.len(), 1);
    }
}
