//! Few bytes in a block that each thread keeps for the next message.
//!
//! Messages come in batches, of which the C library keeps only a handful of blocks at hand; here it
//! is as many as a batch has as a rule. Blocks stay with the thread that drops them: where messages
//! go one way only, from thread to thread, those of the sender are soon gone, and it makes no more
//! than a few: then an allocation of the right size is the better choice.

use std::cell::RefCell;
use std::fmt;

/// Most bytes that a block holds: with more it would not be one of those that the C library lets
/// another thread free without a lock.
const BYTES_MAX: usize = 119;

/// Blocks that a thread keeps: 120 KiB.
const KEPT_MAX: usize = 1024;

struct Block {
    len: u8,
    bytes: [u8; BYTES_MAX],
}

/// Values that could have had a block for each further one that is made.
const MISSES_PER_BLOCK: usize = 64;

struct Kept {
    #[expect(clippy::vec_box, reason = "a block stays where it is when it changes hands")]
    blocks: Vec<Box<Block>>,
    /// What this thread may make: [`MISSES_PER_BLOCK`] for each block.
    credit: usize,
}

thread_local! {
    static KEPT: RefCell<Kept> = const {
        RefCell::new(Kept { blocks: Vec::new(), credit: KEPT_MAX * MISSES_PER_BLOCK })
    };
}

impl Kept {
    #[inline]
    fn take(&mut self) -> Option<Box<Block>> {
        self.blocks.pop().or_else(|| self.make())
    }

    fn make(&mut self) -> Option<Box<Block>> {
        match self.credit.checked_sub(MISSES_PER_BLOCK) {
            Some(less) => {
                self.credit = less;
                Some(Box::new(Block { len: 0, bytes: [0; BYTES_MAX] }))
            }
            None => {
                self.credit += 1;
                None
            }
        }
    }
}

/// Bytes in a block of this kind.
///
/// # Examples
/// ```
/// use node_lua::message::Pooled;
///
/// assert_eq!(Pooled::new(b"a few bytes").unwrap().as_bytes(), b"a few bytes");
/// assert!(Pooled::new(&[0; 1000]).is_none()); // too many
/// ```
pub struct Pooled {
    /// Absent only while it is dropped.
    block: Option<Box<Block>>,
}

impl Pooled {
    /// A copy of `bytes`; none if they are too many, or no block is at hand.
    #[inline]
    pub fn new(bytes: &[u8]) -> Option<Pooled> {
        if bytes.len() > BYTES_MAX {
            return None;
        }
        // A thread that ends has none any more.
        let mut block = KEPT.try_with(|kept| kept.borrow_mut().take()).ok().flatten()?;
        block.len = bytes.len() as u8;
        block.bytes[..bytes.len()].copy_from_slice(bytes);
        Some(Pooled { block: Some(block) })
    }

    /// How many bytes there are.
    #[inline]
    #[expect(clippy::len_without_is_empty, reason = "nobody asks")]
    pub fn len(&self) -> usize {
        self.block.as_ref().map_or(0, |block| usize::from(block.len))
    }

    /// The bytes.
    #[inline]
    pub fn as_bytes(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.bytes[..usize::from(block.len)])
    }
}

impl Drop for Pooled {
    #[inline]
    fn drop(&mut self) {
        let Some(block) = self.block.take() else { return };
        let _ = KEPT.try_with(|kept| {
            let mut kept = kept.borrow_mut();
            if kept.blocks.len() < KEPT_MAX {
                kept.blocks.push(block);
            }
        });
    }
}

impl Clone for Pooled {
    fn clone(&self) -> Pooled {
        let block = self.block.as_ref();
        let block = block.map(|block| Box::new(Block { len: block.len, bytes: block.bytes }));
        Pooled { block }
    }
}

impl PartialEq for Pooled {
    fn eq(&self, other: &Pooled) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for Pooled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.as_bytes().escape_ascii())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_used_again_with_other_bytes_up_to_a_bound() {
        let count = || KEPT.with_borrow(|kept| kept.blocks.len());
        let all: Vec<_> = (0..KEPT_MAX).map(|_| Pooled::new(&[7; BYTES_MAX]).unwrap()).collect();
        for _ in 0..MISSES_PER_BLOCK {
            assert!(Pooled::new(b"one more").is_none(), "so many are in use");
        }
        let one_more = Pooled::new(b"one more").unwrap();
        drop((all, one_more));
        assert_eq!(count(), KEPT_MAX);
        let short = Pooled::new(b"ab").unwrap();
        assert_eq!(count(), KEPT_MAX - 1);
        assert_eq!((short.as_bytes(), short.clone().as_bytes()), (&b"ab"[..], &b"ab"[..]));
        assert_eq!(Pooled::new(b"").unwrap().as_bytes(), b"");
        assert!(Pooled::new(&[0; BYTES_MAX + 1]).is_none());
    }
}
