//! Clients of raw streams: every byte comes back, also after our side's end, also to slow readers.

use std::io::{ErrorKind, Read, Write};
use std::net::Shutdown;
use std::thread;
use std::time::Duration;

use super::framed::Connection;
use super::ledger::Random;
use super::{Gate, Plan, dial, reset};

/// The gate's life; 0 if it is down.
fn life(gate: &Gate) -> u32 {
    Connection::open(gate).map_or(0, |open| open.life)
}

/// One client until the plan is over.
pub(crate) fn client(plan: &Plan, number: u64) {
    let ledger = plan.ledger;
    let mut random = Random::new(plan.seed ^ (number << 30));
    for burst in 0.. {
        if plan.is_over(burst) {
            break;
        }
        plan.think(&mut random);
        let number = random.below(plan.gates.len() as u64) as usize;
        let gate = &plan.gates[number];
        let before = life(gate);
        let Some(mut stream) = dial(gate.raw).filter(|_| before > 0) else {
            ledger.count("connections refused (gate down)", 1);
            thread::sleep(Duration::from_millis(5));
            continue;
        };
        let longest = if random.chance(10) { 2_000_000 } else { 60_000 };
        let length = 1 + random.below(longest) as usize;
        let bytes: Vec<u8> = (0..length).map(|at| (at * 13 + at / 253) as u8).collect();
        let is_slow = random.chance(10);
        let leaves_after =
            if random.chance(15) { random.below(length as u64) as usize } else { length };
        ledger.count("streams", 1);
        let mut sender = stream.try_clone().expect("a second descriptor");
        let sent = bytes.clone();
        let sending = thread::spawn(move || {
            // A gate that is killed, or a reset of ours, ends this.
            if sender.write_all(&sent).is_ok() {
                let _ = sender.shutdown(Shutdown::Write);
            }
        });
        let mut got = 0;
        let mut space = vec![0; if is_slow { 5_000 } else { 64_000 }];
        let why = loop {
            if got >= leaves_after && leaves_after < length {
                break None;
            }
            match stream.read(&mut space) {
                Ok(0) => break Some("the end".to_owned()),
                Ok(count) => {
                    if bytes.get(got..got + count) != Some(&space[..count]) {
                        ledger.fault(format!("a stream of {length}: wrong bytes at {got}"));
                    }
                    got += count;
                }
                Err(error)
                    if [ErrorKind::WouldBlock, ErrorKind::TimedOut].contains(&error.kind()) =>
                {
                    ledger.fault(format!("a stream of {length}: silence after {got}"));
                    break None;
                }
                Err(error) => break Some(error.to_string()),
            }
            if is_slow {
                thread::sleep(Duration::from_millis(1));
            }
        };
        match why {
            None => {
                ledger.count("streams reset by us", 1);
                let _ = stream.shutdown(Shutdown::Both);
                reset(stream);
            }
            Some(_) if got == length => ledger.count("streams that came back whole", 1),
            Some(why) => {
                let mut after = life(gate);
                while after == 0 {
                    thread::sleep(Duration::from_millis(5));
                    after = life(gate);
                }
                if after == before {
                    ledger.fault(format!("{why} after {got} of {length} in life {before}"));
                }
                ledger.count("streams ended (gate killed)", 1);
            }
        }
        sending.join().expect("a sender does not panic");
    }
}
