//! A world by itself: no contexts, no scheduler.

#![allow(unsafe_code, reason = "bytes that were read are known to be there")]

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;

use super::network::{Change, What};
use super::pipe::State;
use super::world::World;

const HOST: &str = "127.0.0.1:0";

/// Lets everything happen.
fn settle(world: &mut World) {
    loop {
        while world.step().is_some() {}
        if !world.advance(u64::MAX) {
            return;
        }
    }
}

fn read(world: &mut World, end: u64) -> io::Result<Vec<u8>> {
    let mut space = [MaybeUninit::new(0); 3000];
    let count = world.read(end, &mut space)?;
    // SAFETY: all of it was initialised to begin with.
    Ok(space[..count].iter().map(|byte| unsafe { byte.assume_init() }).collect())
}

/// Sends numbered bytes from one end to the other until all are there, or the connection fails;
/// returns how many arrived.
fn send(world: &mut World, from: u64, to: u64, count: usize) -> usize {
    let bytes: Vec<u8> = (0..count).map(|number| number as u8).collect();
    let (mut sent, mut received) = (0, Vec::new());
    while received.len() < count {
        if sent < count {
            let end = count.min(sent + 1500);
            match world.write(from, &[IoSlice::new(&bytes[sent..end])]) {
                Ok(written) => sent += written,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(_) => break,
            }
        }
        settle(world);
        match read(world, to) {
            Ok(part) if part.is_empty() => break,
            Ok(part) => received.extend(part),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
    }
    assert_eq!(received, bytes[..received.len()]);
    received.len()
}

/// A connection, if nothing went wrong.
fn connect(world: &mut World) -> io::Result<(u64, u64)> {
    let (listener, address) = world.listen(HOST.parse().expect("an address"), 5, false)?;
    let client = world.connect(address)?;
    settle(world);
    let server = world.accept(listener)?;
    settle(world);
    Ok((client, server))
}

#[test]
fn bytes_keep_their_order_whatever_goes_wrong() {
    let (mut complete, mut cut_short) = (0, 0);
    for seed in 0..500 {
        let mut world = World::new(seed, 1.0, 0.0, None);
        let Ok((client, server)) = connect(&mut world) else { continue };
        let arrived = send(&mut world, client, server, 20_000);
        if arrived == 20_000 { complete += 1 } else { cut_short += 1 }
    }
    assert!(complete > 50 && cut_short > 20, "{complete} complete, {cut_short} not");
}

#[test]
fn without_faults_all_bytes_arrive() {
    for seed in 0..50 {
        let mut world = World::new(seed, 0.0, 0.0, None);
        let (client, server) = connect(&mut world).expect("nothing goes wrong");
        assert_eq!(send(&mut world, client, server, 50_000), 50_000);
        assert_eq!(send(&mut world, server, client, 50_000), 50_000);
        world.close_end(client);
        settle(&mut world);
        assert_eq!(read(&mut world, server).expect("the end"), b"");
        // The first write is answered by a reset.
        assert!(world.write(server, &[IoSlice::new(b"x")]).is_ok());
        settle(&mut world);
        let error = world.write(server, &[IoSlice::new(b"x")]).expect_err("a reset");
        assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
        let error = world.write(server, &[IoSlice::new(b"x")]).expect_err("as good as closed");
        assert_eq!(error.raw_os_error(), Some(libc::EPIPE));
    }
}

#[test]
fn a_reset_loses_what_is_under_way_and_nothing_else() {
    let mut world = World::new(1, 0.0, 0.0, None);
    let (client, server) = connect(&mut world).expect("nothing goes wrong");
    assert!(world.write(client, &[IoSlice::new(b"there")]).is_ok());
    settle(&mut world);
    assert!(world.write(client, &[IoSlice::new(b"lost")]).is_ok());
    world.apply(Change { end: server, what: What::Cut });
    settle(&mut world);
    assert_eq!(read(&mut world, server).expect("what has arrived"), b"there");
    let error = read(&mut world, server).expect_err("the reset");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
    assert_eq!(read(&mut world, server).expect("the end"), b"");
    assert_eq!(world.network.ends[&client].state, State::Dead);
}

#[test]
fn closing_with_unread_input_resets() {
    let mut world = World::new(1, 0.0, 0.0, None);
    let (client, server) = connect(&mut world).expect("nothing goes wrong");
    assert!(world.write(client, &[IoSlice::new(b"unread")]).is_ok());
    settle(&mut world);
    world.close_end(server);
    settle(&mut world);
    let error = read(&mut world, client).expect_err("a reset");
    assert_eq!(error.raw_os_error(), Some(libc::ECONNRESET));
}

#[test]
fn ports_are_given_back() {
    let mut world = World::new(1, 0.0, 0.0, None);
    for _ in 0..100_000 {
        let (listener, address) =
            world.listen(HOST.parse().expect("an address"), 5, false).expect("a free port");
        let client = world.connect(address).expect("a free port");
        world.close_end(client);
        world.close_listener(listener);
        settle(&mut world);
    }
    assert!(world.network.ends.is_empty() && world.network.listeners.is_empty());
}

#[test]
fn the_same_seed_takes_the_same_steps() {
    let trace = |seed| {
        let mut world = World::new(seed, 0.5, 0.0, None);
        if let Ok((client, server)) = connect(&mut world) {
            send(&mut world, client, server, 5000);
        }
        world.fingerprint()
    };
    assert_eq!(trace(7), trace(7));
    assert_ne!(trace(7), trace(8));
}
