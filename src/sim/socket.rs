//! Simulated sockets, with the interface of the real ones.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::path::Path;
use std::task::{Context, Poll, Waker};

use socket2::SockAddr;

use super::network::{Backlog, What, failure};
use super::pipe::{End, State};
use super::world::{Step, World, with};

/// A connected, or connecting, stream socket.
#[derive(Debug)]
pub(crate) struct Stream(u64);

impl Stream {
    fn with<R>(&self, absent: R, body: impl FnOnce(&mut End, &mut Vec<Waker>) -> R) -> R {
        with(|world| match world.network.ends.get_mut(&self.0) {
            Some(end) => body(end, &mut world.dropped),
            None => absent,
        })
    }

    pub(crate) fn connect(address: &SockAddr) -> io::Result<Stream> {
        let end = if let Some(to) = address.as_socket() {
            with(|world| world.connect(to))
        } else if let Some(path) = address.as_pathname() {
            with(|world| world.connect_unix(path.to_owned()))
        } else {
            Err(failure(libc::EAFNOSUPPORT))
        };
        end.map(Stream)
    }

    #[cold]
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(Poll::Ready(()), |end, dropped| end.read.poll(cx, dropped))
    }

    #[cold]
    pub(crate) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(Poll::Ready(()), |end, dropped| end.write.poll(cx, dropped))
    }

    pub(crate) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.with(Poll::Ready(()), |end, dropped| end.poll_end(cx, dropped))
    }

    pub(crate) fn forget_end(&self) {
        self.with((), |end, dropped| dropped.extend(end.watcher.take()));
    }

    #[cold]
    pub(crate) fn clear_read_ready(&self) {
        self.with((), |end, _| end.read.forget());
    }

    #[cold]
    pub(crate) fn read(&self, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        with(|world| world.read(self.0, space))
    }

    #[cold]
    pub(crate) fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        with(|world| world.write(self.0, pieces))
    }

    pub(crate) fn take_error(&self) -> io::Result<Option<io::Error>> {
        Ok(self.with(None, |end, _| end.error.take()).map(io::Error::from_raw_os_error))
    }

    pub(crate) fn end_output(&self) {
        with(|world| world.end_output(self.0));
    }

    pub(crate) fn undelivered(&self) -> usize {
        with(|world| world.network.undelivered(self.0))
    }

    pub(crate) fn reset(&self) {
        with(|world| {
            let Some(end) = world.network.ends.get_mut(&self.0) else { return };
            // Closing sends nothing more that could get there first.
            end.output_ended = true;
            let peer = end.peer;
            world.send_reset(peer);
        });
    }

    pub(crate) fn shutdown(&self) {
        with(|world| {
            world.end_output(self.0);
            if let Some(end) = world.network.ends.get_mut(&self.0) {
                end.input_ended = true;
                world.later(0, self.0, What::Over);
            }
        });
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.with(None, |end, _| end.local)
    }

    pub(crate) fn peer_address(&self) -> Option<SocketAddr> {
        self.with(None, |end, _| end.remote)
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        with(|world| world.close_end(self.0));
    }
}

impl World {
    pub(super) fn read(&mut self, id: u64, space: &mut [MaybeUninit<u8>]) -> io::Result<usize> {
        let Some(end) = self.network.ends.get_mut(&id) else { return Ok(0) };
        let found = end.visible().min(space.len());
        if found == 0 {
            return end.read_nothing();
        }
        let mut count = found;
        if end.state == State::Open && !end.has_fin {
            // What is left then arrives again: a reader may rely on being told.
            count = self.faults.part(&mut self.random, found);
        }
        end.pull(space, count);
        let held_back = if count < found { end.hold_back() } else { 0 };
        let peer = end.peer;
        self.note(Step::Read, id << 24 | count as u64);
        if held_back > 0 {
            let delay = self.faults.latency(&mut self.random);
            self.later(delay, id, What::Arrive(held_back));
        }
        if self.network.ends.get(&peer).is_some_and(|peer| peer.is_starved) {
            let delay = self.faults.latency(&mut self.random);
            self.later(delay, peer, What::WriteReady);
        }
        Ok(count)
    }

    pub(super) fn write(&mut self, id: u64, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let Some(end) = self.network.ends.get_mut(&id) else {
            return Err(failure(libc::EPIPE));
        };
        if let Some(error) = end.write_error() {
            return Err(error);
        }
        let wanted: usize = pieces.iter().map(|piece| piece.len()).sum();
        let (peer, is_unix) = (end.peer, end.is_unix);
        let other = self.network.ends.get(&peer).filter(|peer| peer.state != State::Dead);
        let Some(room) = other.map(End::room) else {
            if is_unix {
                return Err(failure(libc::EPIPE));
            }
            // Nobody is there any more, which only the answer will tell.
            self.send_reset(id);
            return Ok(wanted);
        };
        let refused = self.faults.refuses_write(&mut self.random);
        let mut count = wanted.min(room);
        if refused {
            count = 0;
        } else if count > 0 {
            count = self.faults.part(&mut self.random, count);
        }
        self.note(Step::Write, id << 24 | count as u64);
        if count < wanted {
            if let Some(end) = self.network.ends.get_mut(&id) {
                end.is_starved = true;
            }
            if count < room {
                // Room there is, so that no read need make some.
                let delay = self.faults.latency(&mut self.random);
                self.later(delay, id, What::WriteReady);
            }
            if count == 0 {
                return if wanted == 0 { Ok(0) } else { Err(io::ErrorKind::WouldBlock.into()) };
            }
        }
        if let Some(peer) = self.network.ends.get_mut(&peer) {
            peer.push(pieces, count);
        }
        self.send(peer, count);
        Ok(count)
    }

    /// Sends bytes on their way, in pieces, which keep their order.
    fn send(&mut self, to: u64, count: usize) {
        let mut left = count;
        while left > 0 {
            let piece = self.faults.piece(&mut self.random, left);
            let delay = self.faults.latency(&mut self.random);
            let now = self.now;
            let Some(end) = self.network.ends.get_mut(&to) else { return };
            let time = end.last_arrival.max(now + delay);
            end.last_arrival = time;
            self.later(time - now, to, What::Arrive(piece));
            left -= piece;
        }
    }

    fn end_output(&mut self, id: u64) {
        let Some(end) = self.network.ends.get_mut(&id) else { return };
        if end.state != State::Open || std::mem::replace(&mut end.output_ended, true) {
            return;
        }
        let (peer, is_over) = (end.peer, end.has_fin);
        self.send_fin(peer);
        if is_over {
            self.later(0, id, What::Over);
        }
    }
}

/// A listening stream socket.
#[derive(Debug)]
pub(crate) struct Listener {
    id: u64,
    address: Option<SocketAddr>,
}

impl Listener {
    pub(crate) fn bind(
        address: SocketAddr,
        backlog: i32,
        reuse_port: bool,
    ) -> io::Result<Listener> {
        let (id, address) = with(|world| world.listen(address, backlog, reuse_port))?;
        Ok(Listener { id, address: Some(address) })
    }

    pub(crate) fn bind_unix(path: &Path, backlog: i32) -> io::Result<Listener> {
        SockAddr::unix(path)?;
        // Files are real; sockets among them are left over from something else.
        use std::os::unix::fs::FileTypeExt;
        let found = std::fs::symlink_metadata(path);
        if found.is_ok_and(|found| !found.file_type().is_socket()) {
            return Err(failure(libc::EADDRINUSE));
        }
        let id = with(|world| world.listen_unix(path.to_owned(), backlog))?;
        Ok(Listener { id, address: None })
    }

    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<()> {
        with(|world| match world.network.listeners.get_mut(&self.id) {
            Some(listener) => listener.read.poll(cx, &mut world.dropped),
            None => Poll::Ready(()),
        })
    }

    pub(crate) fn accept(&self) -> io::Result<Stream> {
        with(|world| world.accept(self.id)).map(Stream)
    }

    pub(crate) fn backlog(&self) -> Option<(usize, usize)> {
        self.address?;
        with(|world| world.network.listeners.get(&self.id).map(Backlog::fill))
    }

    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        self.address
    }
}

/// Removes the file of a unix socket; false if there is none of that name.
pub(crate) fn remove_file(path: &Path) -> bool {
    with(|world| world.remove_file(&path.to_owned()))
}

impl Drop for Listener {
    fn drop(&mut self) {
        with(|world| world.close_listener(self.id));
    }
}

impl World {
    pub(super) fn accept(&mut self, id: u64) -> io::Result<u64> {
        let error = self.faults.accept_error(&mut self.random);
        let Some(listener) = self.network.listeners.get_mut(&id) else {
            return Err(failure(libc::EBADF));
        };
        let Some(&end) = listener.waiting.front() else {
            return Err(io::ErrorKind::WouldBlock.into());
        };
        if error == Some(libc::EMFILE) {
            return Err(failure(libc::EMFILE));
        }
        listener.waiting.pop_front();
        self.note(Step::Accept, end);
        if let Some(error) = error {
            // The peer was faster than we: it is gone.
            self.drop_unaccepted(end);
            return Err(failure(error));
        }
        self.later(0, end, What::Registered);
        Ok(end)
    }
}
