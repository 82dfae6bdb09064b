//! Changes of how heads look, against a model of what docs/api/tcp.md says.

use node_lua::frame::{Decoder, Encoder, Endian, HeadOptions, HeadPatch, OptionsError, Width};

use super::Choices;

/// Numbers around every limit; other choices are taken from the input whole.
const NUMBERS: &[i64] = &[
    0,
    1,
    2,
    3,
    4,
    5,
    7,
    8,
    254,
    255,
    256,
    65_534,
    65_535,
    65_536,
    0x7fff_fffe,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0002,
    -1,
    -2,
    -4,
    i64::MIN,
    i64::MAX,
];

fn limit(bytes: i64) -> Option<i64> {
    match bytes {
        0 => Some(0),
        1..=3 => Some((1 << (8 * bytes)) - 1),
        4..=8 => Some(0x7fff_ffff),
        _ => None,
    }
}

fn number(choices: &mut Choices<'_>) -> Option<i64> {
    let choice = choices.byte();
    match choice {
        0..=99 => None,
        100..=250 => Some(NUMBERS[usize::from(choice) % NUMBERS.len()]),
        _ => Some(choices.number() as i64),
    }
}

fn endian(choices: &mut Choices<'_>) -> Option<Endian> {
    let choice = choices.byte();
    if choice < 100 {
        return None;
    }
    let len = usize::from(choice % 4);
    let letter: Vec<u8> = (0..len).map(|_| choices.byte()).collect();
    match Endian::from_letter(&letter) {
        Some(endian) => {
            assert_eq!(letter, endian.letter().as_bytes());
            Some(endian)
        }
        None => {
            assert!(letter != b"L" && letter != b"B");
            Some(if choice.is_multiple_of(2) { Endian::Little } else { Endian::Big })
        }
    }
}

/// A run of changes, each checked against the model.
pub(super) fn run(input: &[u8]) {
    let mut choices = Choices(input);
    let mut options = HeadOptions::default();
    let (mut order, mut width, mut max) = (Endian::Little, 0i64, 0i64);
    while !choices.0.is_empty() {
        let patch = HeadPatch {
            endian: endian(&mut choices),
            width: number(&mut choices).map(Width::Bytes),
            max: number(&mut choices),
            ..HeadPatch::default()
        };
        let wanted = match patch.width {
            Some(Width::Bytes(bytes)) => bytes,
            _ => width,
        };
        let result = options.apply(patch);
        let allowed = limit(wanted).and_then(|limit| match patch.max {
            None if wanted == width => Some(max),
            None | Some(0) => Some(limit),
            Some(max) => (1..=limit).contains(&max).then_some(max),
        });
        assert_eq!(result.is_ok(), allowed.is_some(), "{patch:?}");
        if let Some(allowed) = allowed {
            (order, width, max) = (patch.endian.unwrap_or(order), wanted, allowed);
        }
        if let Err(error) = result {
            let text = error.to_string();
            let number = if let OptionsError::Max { max, .. } = error { max } else { wanted };
            assert!(text.contains(&number.to_string()), "{text}");
        }
        assert!(is_as(options, order, width, max), "{patch:?} made {options:?}");
        // What can be set can be used.
        if width > 0 {
            let encoder = Encoder::new(options);
            assert_eq!(encoder.is_plain(), matches!(width, 1 | 2 | 4));
            if encoder.is_plain() {
                let head = encoder.head(max as usize).expect("the maximum");
                assert!(encoder.head(max as usize + 1).is_err());
                assert_eq!(head.as_slice().len() as i64, width);
                assert!(Decoder::from(options).next(head.as_slice()).is_ok());
            }
        }
    }
}

fn is_as(options: HeadOptions, order: Endian, width: i64, max: i64) -> bool {
    options.endian() == order
        && options.width() == Width::Bytes(width)
        && i64::from(options.max()) == max
}
