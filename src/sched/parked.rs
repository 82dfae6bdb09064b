//! Threads that wait to be workers.
//!
//! Where the system starts no more threads that is noticed when one is needed, and then it is too
//! late: what runs on those that are left may get stuck as well. So some are started ahead. A
//! thread whose worker has retired waits here too, if there is room: the system might not start it
//! again.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

use crossbeam_deque::Worker as Deque;

use super::context::Context;
use crate::sync::lock;

/// A worker that is to run: its index, and its queue.
pub(super) type Job = (usize, Deque<Arc<Context>>);

/// The threads that wait, and what they are to do.
#[derive(Debug, Default)]
pub(super) struct Parked {
    places: Mutex<Places>,
    change: Condvar,
}

#[derive(Default)]
struct Places {
    /// Threads that nothing was given to, those included that are still being started.
    free: usize,
    /// How many of these there are to be.
    wanted: usize,
    jobs: Vec<Job>,
    is_over: bool,
}

impl std::fmt::Debug for Places {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Places").field("free", &self.free).finish_non_exhaustive()
    }
}

impl Parked {
    fn places(&self) -> MutexGuard<'_, Places> {
        lock(&self.places)
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.places().free
    }

    /// Sets how many are to wait: those beyond end.
    pub(super) fn want(&self, count: usize) {
        let mut places = self.places();
        places.wanted = count;
        if places.free > count {
            self.change.notify_all();
        }
    }

    /// Has a thread started that is to wait here. It counts before it runs: it may find that all is
    /// over at once.
    pub(super) fn add<E>(&self, start: impl FnOnce() -> Result<(), E>) -> Result<(), E> {
        self.places().free += 1;
        start().inspect_err(|_| self.places().free -= 1)
    }

    /// Has a thread do something, if one waits; else it is given back.
    pub(super) fn give(&self, job: Job) -> Result<(), Job> {
        let mut places = self.places();
        if places.free == 0 {
            return Err(job);
        }
        places.free -= 1;
        places.jobs.push(job);
        self.change.notify_one();
        Ok(())
    }

    /// Waits for something to do, on a thread that counts as one that waits; none if it is to end.
    pub(super) fn wait(&self) -> Option<Job> {
        let is_quiet = |places: &mut Places| {
            places.jobs.is_empty() && !places.is_over && places.free <= places.wanted
        };
        let waited = self.change.wait_while(self.places(), is_quiet);
        let mut places = waited.unwrap_or_else(PoisonError::into_inner);
        let job = places.jobs.pop();
        // What nobody was given to is one fewer.
        places.free -= usize::from(job.is_none());
        job
    }

    /// The same on a thread that does not count yet, if it is wanted.
    pub(super) fn come_back(&self) -> Option<Job> {
        let mut places = self.places();
        if places.is_over || places.free >= places.wanted {
            return None;
        }
        places.free += 1;
        drop(places);
        self.wait()
    }

    /// Has all of them end, and no more come.
    pub(super) fn release(&self) {
        self.places().is_over = true;
        self.change.notify_all();
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    fn job(index: usize) -> Job {
        (index, Deque::new_fifo())
    }

    #[test]
    fn threads_wait_as_long_as_they_are_wanted() {
        let parked = Arc::new(Parked::default());
        assert_eq!(parked.add(|| Err(7)), Err(7));
        assert_eq!(parked.give(job(1)).unwrap_err().0, 1);
        assert!(parked.come_back().is_none(), "none is wanted");
        parked.want(2);
        let threads: Vec<_> = (0..3)
            .map(|_| {
                let (mut thread, other) = (None, Arc::clone(&parked));
                let start = || {
                    thread = Some(std::thread::spawn(move || {
                        let first = other.wait().map(|job| job.0);
                        first.map(|_| other.come_back().map(|job| job.0))
                    }));
                    Ok::<_, ()>(())
                };
                parked.add(start).unwrap();
                thread.unwrap()
            })
            .collect();
        // One is too many, and ends.
        while parked.count() > 2 {
            std::thread::yield_now();
        }
        parked.give(job(5)).unwrap();
        // It does what it was given, and is back.
        while parked.count() < 2 {
            std::thread::yield_now();
        }
        parked.want(0);
        while parked.count() > 0 {
            std::thread::yield_now();
        }
        parked.release();
        parked.want(1);
        assert!(parked.come_back().is_none(), "it is over");
        let mut found: Vec<_> = threads.into_iter().map(|thread| thread.join().unwrap()).collect();
        found.sort_unstable();
        assert_eq!(found, [None, None, Some(None)]);
    }
}
