//! The limit of queries between threads that sleep: two threads on two cores wake each other in
//! turn, each with one call of `futex` to wake and one to wait.

use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Instant;

use crate::sys::{futex_wait, futex_wake, run_on};

/// What one side waits for: the number of the round.
#[derive(Default)]
struct Bell(AtomicU32);

impl Bell {
    fn ring(&self, round: u32) {
        self.0.store(round, Ordering::SeqCst);
        futex_wake(&self.0);
    }

    fn wait(&self, round: u32) {
        loop {
            let now = self.0.load(Ordering::SeqCst);
            if now == round {
                return;
            }
            futex_wait(&self.0, now);
        }
    }
}

/// Prints the time of a round: two wake-ups.
pub fn run(count: u32) {
    let bells = [Bell::default(), Bell::default()];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            run_on(0);
            for round in 1..=count {
                bells[0].wait(round);
                bells[1].ring(round);
            }
        });
        run_on(1);
        println!("begin");
        let start = Instant::now();
        for round in 1..=count {
            bells[0].ring(round);
            bells[1].wait(round);
        }
        println!("end");
        let time = start.elapsed().as_secs_f64();
        println!("metric us_per_query {}", time * 1e6 / f64::from(count));
    });
}
