//! Sockets that any context may write to, by an integer.

use std::hash::BuildHasherDefault;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, RwLock, Weak};

use crate::message::{ByNumber, Id};
use crate::rt;
use crate::sync::{read, write};

/// Bits of a number, without the one that tells the kinds of sockets apart: Lua's `tostring` shows
/// all digits of such numbers.
const BITS: u32 = 45;

/// What a socket's number is made from besides its owner: no session of a query is made from it.
const SOCKET: u64 = 1 << 63;

/// The way out of one kind of sockets.
pub trait Way: Sized + 'static {
    /// What else there is of a socket for others.
    type More: Default;

    /// All that others may reach.
    fn all() -> &'static Numbers<Self>;
}

/// A socket as other contexts see it. The socket holds it; others keep weak references, so that
/// closing it closes the descriptor at once.
#[derive(Debug)]
pub struct Shared<W: Way> {
    owner: Id,
    key: u64,
    fd: u64,
    writer: Arc<W>,
    is_shared: AtomicBool,
    pub(super) more: W::More,
}

/// Sockets by number. Who was given none cannot guess one.
#[derive(Debug)]
pub struct Numbers<W: Way> {
    kind: u64,
    table: RwLock<ByNumber<Weak<Shared<W>>>>,
}

impl<W: Way> Numbers<W> {
    /// For one kind of sockets, 0 or 1.
    pub(super) const fn new(kind: u64) -> Numbers<W> {
        let table = RwLock::new(ByNumber::with_hasher(BuildHasherDefault::new()));
        Numbers { kind: kind << BITS, table }
    }

    /// The socket with this number.
    pub(super) fn get(&self, number: u64) -> Option<Arc<Shared<W>>> {
        // The lock is given back before the reference can be the last one: dropping that takes the
        // lock for writing.
        read(&self.table).get(&number)?.upgrade()
    }
}

impl<W: Way> Shared<W> {
    /// Gives a socket of `owner`, which knows it as `key`, its integer.
    pub(super) fn new(owner: Id, key: u64, writer: &Arc<W>) -> Arc<Shared<W>> {
        let all = W::all();
        let mut table = write(&all.table);
        let secret = rt::secret((owner.to_bits(), SOCKET | key)) >> (64 - BITS);
        let mut fd = all.kind | secret;
        while fd == 0 || table.contains_key(&fd) {
            fd = all.kind | (fd + 1) & ((1 << BITS) - 1);
        }
        let (writer, is_shared) = (Arc::clone(writer), AtomicBool::new(false));
        let more = W::More::default();
        let made = Arc::new(Shared { owner, key, fd, writer, is_shared, more });
        table.insert(fd, Arc::downgrade(&made));
        made
    }

    /// The integer, which the process gives to no other socket.
    pub fn fd(&self) -> u64 {
        self.fd
    }

    /// The context the socket belongs to.
    pub fn owner(&self) -> Id {
        self.owner
    }

    /// The key under which its owner knows the socket.
    pub fn key(&self) -> u64 {
        self.key
    }

    /// The way out.
    pub fn writer(&self) -> &W {
        &self.writer
    }

    /// Lets others write, or stops that.
    pub(super) fn set_shared(&self, on: bool) {
        // Release: pairs with the load in `is_shared`; how frames look is set before.
        self.is_shared.store(on, Ordering::Release);
    }

    /// Whether others may write.
    pub fn is_shared(&self) -> bool {
        // Acquire: pairs with the store in `set_shared`.
        self.is_shared.load(Ordering::Acquire)
    }
}

impl<W: Way> Drop for Shared<W> {
    fn drop(&mut self) {
        write(&W::all().table).remove(&self.fd);
    }
}
