//! New inputs from old ones, and the random numbers for that.

use super::targets::INPUT_MAX;

/// xorshift64*: not for secrets.
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// A sequence of its own for each seed.
    pub fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// The next number.
    pub fn number(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: usize) -> usize {
        (self.number() % limit as u64) as usize
    }
}

/// Bytes that are likely to be limits of something.
const TELLING: &[u8] = &[0, 1, 2, 4, 7, 8, 15, 16, 31, 32, 63, 64, 127, 128, 254, 255];

/// An input made of one from the corpus, or of none, and sometimes of a second one.
pub fn mutate(random: &mut Random, corpus: &[Vec<u8>]) -> Vec<u8> {
    let pick = |random: &mut Random| match corpus {
        [] => Vec::new(),
        _ => corpus[random.below(corpus.len())].clone(),
    };
    let mut input = if random.below(16) == 0 { Vec::new() } else { pick(random) };
    if random.below(8) == 0 {
        let other = pick(random);
        let (cut, from) = (random.below(input.len() + 1), random.below(other.len() + 1));
        input.truncate(cut);
        input.extend_from_slice(&other[from..]);
    }
    for _ in 0..1 << random.below(6) {
        step(random, &mut input);
    }
    input.truncate(INPUT_MAX);
    input
}

fn step(random: &mut Random, input: &mut Vec<u8>) {
    let at = random.below(input.len() + 1);
    let byte = match random.below(3) {
        0 => TELLING[random.below(TELLING.len())],
        _ => random.number() as u8,
    };
    match random.below(7) {
        0 | 1 => input.insert(at, byte),
        2 if at < input.len() => drop(input.remove(at)),
        3 if at < input.len() => input[at] = byte,
        4 if at < input.len() => input[at] ^= 1 << random.below(8),
        5 if at < input.len() => input[at] = input[at].wrapping_add_signed(byte as i8 % 8),
        6 => {
            // A piece once more, somewhere else.
            let len = random.below(input.len() - at + 1).min(32);
            let piece = input[at..at + len].to_vec();
            let to = random.below(input.len() + 1);
            input.splice(to..to, piece);
        }
        _ => input.extend((0..random.below(16)).map(|_| random.number() as u8)),
    }
}
