//! The limit of the buffer accessors: the same loops over a slice, bounds checked.

use std::hint::black_box;
use std::time::Instant;

const SIZE: usize = 4096;

/// Prints nanoseconds per read for each width, as the scripts do.
pub fn run(count: usize) {
    let bytes: Vec<u8> = (1..=SIZE).map(|i| (i * 7) as u8).collect();
    println!("begin");
    timed("u8_ns", count, 1, &bytes, |b, at| u64::from(b[at]));
    timed("u16_ns", count, 2, &bytes, |b, at| u64::from(u16::from_le_bytes([b[at], b[at + 1]])));
    timed("u32_ns", count, 4, &bytes, |b, at| {
        let word = b[at..at + 4].try_into().unwrap_or_default();
        u64::from(u32::from_le_bytes(word))
    });
    println!("end");
}

fn timed(name: &str, count: usize, step: usize, bytes: &[u8], read: impl Fn(&[u8], usize) -> u64) {
    let start = Instant::now();
    let mut total = 0f64;
    for _ in 0..count * step / SIZE {
        // Summed as a double, like Lua's numbers, which keeps the loop from being vectorised.
        let bytes = black_box(bytes);
        for at in (0..SIZE).step_by(step) {
            total += read(bytes, at) as f64;
        }
    }
    black_box(total);
    println!("metric {name} {}", start.elapsed().as_secs_f64() * 1e9 / count as f64);
}
