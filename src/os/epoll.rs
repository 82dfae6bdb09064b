//! Which sockets are ready: one edge-triggered epoll instance for all of them.
//!
//! A socket is registered once, for both directions, and never again. Busy workers collect events
//! with [`poll_sockets`], which does not wait; before all of them sleep, one of them calls
//! [`watch_sockets`], after which the reactor of async-std watches the instance itself, as the one
//! readable thing that stands for all sockets. So a message to a busy process costs no system call
//! but its own, and an idle process sleeps in the reactor with its timers.
//!
//! Slots of sockets are never freed, only used again under another generation: an event that some
//! thread still holds while its socket is closed finds a slot that is not its own any more.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering::{Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, OnceLock};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use async_io::Async;
use rustix::event::epoll::{self, EventFlags};
use rustix::event::{PollFd, PollFlags, Timespec};
use socket2::Socket;

use super::{clock, runtime};
use crate::sync::lock;

/// Events taken in one system call.
const EVENTS_MAX: usize = 256;

/// Slots in the first chunk; each further one doubles the number of slots.
const FIRST_CHUNK: usize = 64;

/// Chunks: enough for as many slots as a `u32` counts.
const CHUNKS: usize = 26;

/// Who waits for one direction of a socket.
#[derive(Debug, Default)]
struct Direction {
    /// This direction has ended, and never waits any more. Data and the end may come in one event,
    /// and a reader that stops after a short read would wait for another.
    ended: bool,
    /// The waker is to be woken by the next event.
    armed: bool,
    /// Kept when it was woken, since the same one mostly waits again.
    waker: Option<Waker>,
}

#[derive(Debug, Default)]
#[repr(C)]
struct State {
    read: Direction,
    write: Direction,
    /// Woken, once, when the peer has gone or closed its side.
    end: Option<Waker>,
}

/// What an event needs, all but `end`, is in one cache line.
#[derive(Debug, Default)]
#[repr(C, align(64))]
struct Slot {
    /// Changes while the state is locked.
    generation: AtomicU32,
    /// Errors are of one datagram, and end nothing.
    is_datagram: AtomicBool,
    /// Whether an event has come since the last `poll` that was ready. Set while the state is
    /// locked; a reader who is about to read clears it without, since he finds what it tells of.
    read_ready: AtomicBool,
    write_ready: AtomicBool,
    state: Mutex<State>,
}

const _: () = assert!(std::mem::offset_of!(Slot, state) + std::mem::offset_of!(State, end) <= 56);

/// The instance, and what its events point to.
struct Poller {
    epoll: Async<OwnedFd>,
    chunks: [OnceLock<Box<[Slot]>>; CHUNKS],
    free: Mutex<Free>,
    watch: Mutex<Watch>,
    alarm: Waker,
}

/// Whether the reactor watches the instance, and whom it wakes.
#[derive(Default)]
struct Watch {
    is_armed: bool,
    wakers: Vec<Waker>,
}

/// What the reactor wakes: it ends the watch.
struct Alarm;

impl Wake for Alarm {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let Ok(poller) = poller() else { return };
        let wakers = {
            let mut watch = lock(&poller.watch);
            watch.is_armed = false;
            std::mem::take(&mut watch.wakers)
        };
        wakers.into_iter().for_each(Waker::wake);
    }
}

#[derive(Default)]
struct Free {
    slots: Vec<u32>,
    /// Slots that were ever used.
    used: u32,
}

fn poller() -> io::Result<&'static Poller> {
    static POLLER: OnceLock<Poller> = OnceLock::new();
    if let Some(poller) = POLLER.get() {
        return Ok(poller);
    }
    let made = Poller {
        epoll: Async::new(epoll::create(epoll::CreateFlags::CLOEXEC)?)?,
        chunks: [const { OnceLock::new() }; CHUNKS],
        free: Mutex::default(),
        watch: Mutex::default(),
        alarm: Arc::new(Alarm).into(),
    };
    // Another thread may have been faster; then this one is dropped again.
    Ok(POLLER.get_or_init(|| made))
}

/// The chunk that holds a slot, and its place there.
fn place(index: u32) -> (usize, usize) {
    let number = index as usize + FIRST_CHUNK;
    let chunk = number.ilog2() - FIRST_CHUNK.ilog2();
    (chunk as usize, number - (FIRST_CHUNK << chunk))
}

impl Poller {
    fn slot(&self, index: u32) -> Option<&Slot> {
        let (chunk, place) = place(index);
        self.chunks.get(chunk)?.get()?.get(place)
    }

    /// Takes a slot that is not in use.
    fn take(&'static self) -> (u32, &'static Slot) {
        let index = {
            let mut free = lock(&self.free);
            free.slots.pop().unwrap_or_else(|| {
                free.used += 1;
                free.used - 1
            })
        };
        let (chunk, place) = place(index);
        let chunk = self.chunks[chunk]
            .get_or_init(|| (0..FIRST_CHUNK << chunk).map(|_| Slot::default()).collect());
        (index, &chunk[place])
    }

    /// Takes what has happened, without waiting; wakes who waits for it. Returns how many events
    /// there were.
    fn poll(&self, events: &mut Vec<epoll::Event>) -> usize {
        events.clear();
        let timeout = Timespec::default();
        // A signal, or the lack of memory: the next call finds what this one did not.
        let space = rustix::buffer::spare_capacity(events);
        if epoll::wait(self.epoll.get_ref(), space, Some(&timeout)).is_err() {
            return 0;
        }
        for event in events.iter() {
            let (flags, key) = (event.flags, event.data.u64());
            let Some(slot) = self.slot(key as u32) else { continue };
            let mut state = lock(&slot.state);
            if slot.generation.load(Relaxed) == (key >> 32) as u32 {
                slot.take_event(&mut state, flags);
            }
        }
        events.len()
    }
}

impl Slot {
    fn take_event(&self, state: &mut State, flags: EventFlags) {
        let failed = EventFlags::HUP | EventFlags::ERR;
        let has_failed = flags.intersects(failed);
        if !self.is_datagram.load(Relaxed) {
            // A peer that has written all may still read.
            state.read.ended |= flags.intersects(failed | EventFlags::RDHUP);
            state.write.ended |= has_failed;
        }
        if state.read.ended || has_failed || flags.contains(EventFlags::IN) {
            state.read.fire(&self.read_ready);
        }
        if state.read.ended
            && let Some(waker) = state.end.take()
        {
            // Under the slot's lock, as in `fire`.
            waker.wake();
        }
        if state.write.ended || has_failed || flags.contains(EventFlags::OUT) {
            state.write.fire(&self.write_ready);
        }
    }
}

impl Direction {
    fn fire(&mut self, is_ready: &AtomicBool) {
        is_ready.store(true, Relaxed);
        if std::mem::take(&mut self.armed) {
            // Under the slot's lock, which no waker takes.
            if let Some(waker) = &self.waker {
                waker.wake_by_ref();
            }
        }
    }

    /// Also returns the waker that is replaced, to be dropped without the lock.
    fn poll(&mut self, is_ready: &AtomicBool, cx: &Context<'_>) -> (Poll<()>, Option<Waker>) {
        if is_ready.load(Relaxed) || self.ended {
            is_ready.store(false, Relaxed);
            return (Poll::Ready(()), None);
        }
        self.armed = true;
        if self.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            return (Poll::Pending, None);
        }
        (Poll::Pending, self.waker.replace(cx.waker().clone()))
    }
}

/// Sockets there are.
static SOCKETS: AtomicUsize = AtomicUsize::new(0);

/// Whether the process has sockets; async-signal-safe.
pub fn has_sockets() -> bool {
    SOCKETS.load(Relaxed) > 0
}

/// A socket that is registered as long as it lives: a stream for both directions.
#[derive(Debug)]
pub(crate) struct Watched {
    socket: Socket,
    slot: &'static Slot,
    index: u32,
}

impl Watched {
    /// Registers a stream socket, which must not block.
    pub(crate) fn new(socket: Socket) -> io::Result<Watched> {
        let flags = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        Watched::register(socket, flags, false)
    }

    /// Registers a datagram socket, which must not block, for reading; see
    /// [`Watched::watch_writable`].
    pub(crate) fn new_datagram(socket: Socket) -> io::Result<Watched> {
        Watched::register(socket, EventFlags::IN | EventFlags::ET, true)
    }

    fn register(socket: Socket, flags: EventFlags, is_datagram: bool) -> io::Result<Watched> {
        let poller = poller()?;
        let (index, slot) = poller.take();
        slot.is_datagram.store(is_datagram, Relaxed);
        let watched = Watched { socket, slot, index };
        SOCKETS.fetch_add(1, Relaxed);
        epoll::add(poller.epoll.get_ref(), &watched.socket, watched.data(), flags)?;
        Ok(watched)
    }

    /// What its events bear.
    fn data(&self) -> epoll::EventData {
        let generation = self.slot.generation.load(Relaxed);
        epoll::EventData::new_u64(u64::from(generation) << 32 | u64::from(self.index))
    }

    /// Has a datagram socket told of room for writing too, or no more.
    pub(crate) fn watch_writable(&self, on: bool) -> io::Result<()> {
        let more = if on { EventFlags::OUT } else { EventFlags::empty() };
        let flags = EventFlags::IN | EventFlags::ET | more;
        Ok(epoll::modify(poller()?.epoll.get_ref(), &self.socket, self.data(), flags)?)
    }

    pub(crate) fn socket(&self) -> &Socket {
        &self.socket
    }

    pub(crate) fn poll_read_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let slot = self.slot;
        let (ready, _replaced) = lock(&slot.state).read.poll(&slot.read_ready, cx);
        ready
    }

    pub(crate) fn poll_write_ready(&self, cx: &Context<'_>) -> Poll<()> {
        let slot = self.slot;
        let (ready, _replaced) = lock(&slot.state).write.poll(&slot.write_ready, cx);
        ready
    }

    /// Ready once the peer has gone, or closed its side; otherwise wakes `cx` then.
    pub(crate) fn poll_end(&self, cx: &Context<'_>) -> Poll<()> {
        let mut state = lock(&self.slot.state);
        if state.read.ended {
            return Poll::Ready(());
        }
        let replaced = state.end.replace(cx.waker().clone());
        drop(state);
        drop(replaced);
        Poll::Pending
    }

    /// Wakes nobody for [`Watched::poll_end`] any more.
    pub(crate) fn forget_end(&self) {
        let waker = lock(&self.slot.state).end.take();
        drop(waker);
    }

    /// Forgets that there was an event for readers, one of whom is going to read.
    pub(crate) fn clear_read_ready(&self) {
        // Before the read, in which the kernel's own locks order it.
        self.slot.read_ready.store(false, Release);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        SOCKETS.fetch_sub(1, Relaxed);
        // Closing the descriptor, which nobody else has, ends its registration.
        let mut state = lock(&self.slot.state);
        let old = std::mem::take(&mut *state);
        self.slot.generation.fetch_add(1, Relaxed);
        self.slot.read_ready.store(false, Relaxed);
        self.slot.write_ready.store(false, Relaxed);
        drop(state);
        drop(old);
        if let Ok(poller) = poller() {
            lock(&poller.free).slots.push(self.index);
        }
    }
}

/// Takes what has happened to sockets, without waiting, and wakes who waits for it; true if there
/// was anything.
pub(crate) fn poll_sockets() -> bool {
    thread_local! {
        static EVENTS: std::cell::RefCell<Vec<epoll::Event>> =
            std::cell::RefCell::new(Vec::with_capacity(EVENTS_MAX));
    }
    let Ok(poller) = poller() else { return false };
    EVENTS.with_borrow_mut(|events| poller.poll(events) > 0)
}

/// Waits until something has happened to any socket that [`poll_sockets`] finds, or the time is
/// over; true if it has.
pub(crate) fn wait_for_sockets(time: Duration) -> bool {
    let Ok(poller) = poller() else {
        std::thread::sleep(time);
        return false;
    };
    let seconds = time.as_secs().try_into().unwrap_or(i64::MAX);
    let time = Timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos().into() };
    let mut entry = [PollFd::new(poller.epoll.get_ref(), PollFlags::IN)];
    // An error is a signal's: it is as well to be asked again.
    rustix::event::poll(&mut entry, Some(&time)).is_ok_and(|count| count > 0)
}

/// Has the reactor wake `waker` once anything happens to any socket, which [`poll_sockets`] then
/// finds. Ready, and nothing is watched, if something may have happened already.
pub(crate) fn watch_sockets(waker: &Waker) -> Poll<()> {
    let Ok(poller) = poller() else { return Poll::Pending };
    let mut watch = lock(&poller.watch);
    if !watch.is_armed {
        let mut cx = Context::from_waker(&poller.alarm);
        // The first answer may stem from the event that ended the last watch. What has happened
        // since shows in the second: told to watch the instance, the kernel looks at it anew.
        if poller.epoll.poll_readable(&mut cx).is_ready()
            && poller.epoll.poll_readable(&mut cx).is_ready()
        {
            return Poll::Ready(());
        }
        watch.is_armed = true;
    }
    if !watch.wakers.iter().any(|known| known.will_wake(waker)) {
        watch.wakers.push(waker.clone());
    }
    Poll::Pending
}

/// Waits for `duration`, then takes what has happened to sockets. For a thread that is no worker,
/// when no worker runs any more.
pub(crate) fn drive(duration: Duration) {
    runtime::block_on(clock::sleep(duration));
    poll_sockets();
}
