#![allow(clippy::unwrap_used, reason = "a test")]

use super::*;
use proptest::prelude::*;

/// Memory for a buffer with a little room in place, as a userdata would provide it.
struct Place(Box<[u64]>);

impl Place {
    fn new(room: usize) -> Place {
        let mut place = Place(vec![0; NlBuffer::size_with(room).div_ceil(8)].into_boxed_slice());
        // SAFETY: aligned to 8, large enough, and boxed: it does not move.
        unsafe { NlBuffer::init(place.raw(), room) };
        place
    }

    fn raw(&mut self) -> *mut NlBuffer {
        self.0.as_mut_ptr().cast()
    }

    fn get(&mut self) -> &mut NlBuffer {
        // SAFETY: initialised in `new`, borrowed with `self`.
        unsafe { &mut *self.raw() }
    }

    fn append(&mut self, bytes: &[u8]) {
        let buffer = self.get();
        if let Plan::Grow(capacity) = buffer.prepare(bytes.len()).unwrap() {
            assert!(buffer.grow_to(capacity));
        }
        assert_eq!(buffer.fill(bytes), bytes.len());
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.get().release();
    }
}

#[test]
fn content_moves_to_a_block_when_the_place_is_full() {
    let mut place = Place::new(32);
    place.append(&[1; 32]);
    assert!(place.get().is_inline());
    assert_eq!(place.get().room(), 0);
    place.append(&[2]);
    assert!(!place.get().is_inline());
    assert_eq!(place.get().len(), 33);
    assert_eq!(place.get().as_slice()[31..], [1, 2]);
}

#[test]
fn skipped_bytes_of_the_place_are_used_again() {
    let mut place = Place::new(32);
    place.append(&[1; 30]);
    place.get().skip(20);
    place.append(&[2; 22]);
    assert!(place.get().is_inline());
    assert_eq!(place.get().len(), 32);
}

#[test]
fn sharing_does_not_copy_a_block() {
    let mut place = Place::new(32);
    place.append(&[7; 1000]);
    let address = place.get().as_slice().as_ptr();
    let shared = place.get().share();
    assert_eq!(shared.as_ptr(), address);
    assert_eq!(place.get().room(), 0);
    drop(shared);
    assert_eq!(place.get().prepare(0), Ok(Plan::Ready));
    assert_eq!(place.get().as_slice().as_ptr(), address);
}

#[test]
fn a_change_leaves_other_holders_alone() {
    let mut place = Place::new(32);
    place.append(&[7; 1000]);
    let shared = place.get().share();
    place.append(&[8]);
    assert_eq!(shared.len(), 1000);
    assert_eq!(place.get().len(), 1001);
}

#[test]
fn splitting_shares_the_block() {
    let (mut place, mut head) = (Place::new(32), Place::new(32));
    place.append(&(0..200).collect::<Vec<u8>>());
    let address = place.get().as_slice().as_ptr();
    assert!(place.get().split_into(100, head.get()));
    assert_eq!(head.get().as_slice().as_ptr(), address);
    assert!(head.get().is_unique() && place.get().is_unique());
    assert_eq!(place.get().as_slice()[0], 100);
    head.append(b"grown");
    assert_eq!(place.get().as_slice()[0], 100);
}

#[test]
fn size_limit_is_exact() {
    let mut place = Place::new(32);
    place.append(b"ab");
    assert_eq!(place.get().prepare(SIZE_MAX - 2), Ok(Plan::Grow(SIZE_MAX)));
    assert_eq!(place.get().prepare(SIZE_MAX - 1), Err(TooLarge));
    assert_eq!(place.get().prepare(usize::MAX), Err(TooLarge));
}

#[test]
fn a_block_that_cannot_be_had_changes_nothing() {
    let mut place = Place::new(32);
    place.append(b"ab");
    assert!(!place.get().grow_to(isize::MAX as usize));
    assert_eq!(place.get().as_slice(), b"ab");
}

#[test]
fn released_holds_nothing() {
    let mut place = Place::new(32);
    place.append(&[1; 100]);
    place.get().release();
    place.get().release();
    assert!(!place.get().is_live());
    assert_eq!(place.get().as_slice(), b"");
    assert_eq!(place.get().share().len(), 0);
}

/// One step of the comparison with a plain vector; places are numbered.
#[derive(Clone, Debug)]
enum Op {
    Append(usize, Vec<u8>),
    Double(usize),
    Split(usize, usize, usize),
    Skip(usize, usize),
    Truncate(usize, usize),
    Clear(usize),
    Share(usize, usize),
    Slice(usize, usize, usize, usize),
    Keep(usize),
    Forget,
    Write(usize, usize, u8),
    Release(usize),
}

const PLACES: usize = 4;

fn op() -> impl Strategy<Value = Op> {
    let at = 0..PLACES;
    prop_oneof![
        6 => (at.clone(), prop::collection::vec(any::<u8>(), 0..150))
            .prop_map(|(a, b)| Op::Append(a, b)),
        1 => at.clone().prop_map(Op::Double),
        4 => (at.clone(), at.clone(), 0..300usize).prop_map(|(a, b, n)| Op::Split(a, b, n)),
        3 => (at.clone(), 0..200usize).prop_map(|(a, n)| Op::Skip(a, n)),
        1 => (at.clone(), 0..200usize).prop_map(|(a, n)| Op::Truncate(a, n)),
        1 => at.clone().prop_map(Op::Clear),
        3 => (at.clone(), at.clone()).prop_map(|(a, b)| Op::Share(a, b)),
        3 => (at.clone(), at.clone(), 0..300usize, 0..300usize)
            .prop_map(|(a, b, o, n)| Op::Slice(a, b, o, n)),
        2 => at.clone().prop_map(Op::Keep),
        1 => Just(Op::Forget),
        4 => (at.clone(), 0..300usize, any::<u8>()).prop_map(|(a, o, v)| Op::Write(a, o, v)),
        1 => at.prop_map(Op::Release),
    ]
}

/// Makes the buffer writable, and gives it room.
fn reserve(buffer: &mut NlBuffer, extra: usize) {
    if let Plan::Grow(capacity) = buffer.prepare(extra).unwrap() {
        assert!(buffer.grow_to(capacity));
    }
}

proptest! {
    #[test]
    fn behaves_like_a_vector(ops in prop::collection::vec(op(), 1..120)) {
        let mut places: Vec<Place> = (0..PLACES).map(|i| Place::new(32 * (i + 1))).collect();
        let mut model = vec![Vec::<u8>::new(); PLACES];
        let mut kept: Vec<(Piece, Vec<u8>)> = Vec::new();
        for op in ops {
            match op {
                Op::Append(at, bytes) => {
                    places[at].append(&bytes);
                    model[at].extend(bytes);
                }
                Op::Double(at) => {
                    if model[at].len() < 5000 {
                        let len = model[at].len();
                        reserve(places[at].get(), len);
                        prop_assert!(places[at].get().fill_self());
                        model[at].extend_from_within(..);
                    }
                }
                Op::Split(from, to, count) => {
                    if from != to {
                        let count = count.min(model[from].len());
                        places[to] = Place::new(if count <= 64 { count } else { 0 });
                        let mut source = std::mem::replace(&mut places[from], Place::new(0));
                        if !source.get().split_into(count, places[to].get()) {
                            places[to] = Place::new(count);
                            prop_assert!(source.get().split_into(count, places[to].get()));
                        }
                        places[from] = source;
                        model[to] = model[from].drain(..count).collect();
                    }
                }
                Op::Skip(at, count) => {
                    places[at].get().skip(count);
                    let count = count.min(model[at].len());
                    model[at].drain(..count);
                }
                // What compiled code does when it resets a buffer, and more.
                Op::Truncate(at, len) => {
                    let buffer = places[at].get();
                    let cut = buffer.len().saturating_sub(len) as i32;
                    buffer.len -= cut;
                    if buffer.is_unique() {
                        buffer.room += cut;
                    }
                    model[at].truncate(len);
                }
                Op::Clear(at) => {
                    places[at].get().clear();
                    model[at].clear();
                }
                Op::Share(from, to) => {
                    let bytes = places[from].get().share();
                    places[to].get().set_shared(bytes);
                    model[to] = model[from].clone();
                }
                Op::Slice(from, to, offset, count) => {
                    let offset = offset.min(model[from].len());
                    let end = (offset + count).min(model[from].len());
                    let bytes = places[from].get().share().slice(offset..end);
                    places[to].get().set_shared(bytes);
                    model[to] = model[from][offset..end].to_vec();
                }
                Op::Keep(at) => kept.push((places[at].get().share(), model[at].clone())),
                Op::Forget => kept.clear(),
                Op::Write(at, offset, value) => {
                    if offset < model[at].len() {
                        reserve(places[at].get(), 0);
                        // SAFETY: within the content, which `reserve` made writable.
                        unsafe { places[at].get().ptr.add(offset).write(value) };
                        model[at][offset] = value;
                    }
                }
                Op::Release(at) => {
                    places[at].get().release();
                    places[at] = Place::new(32);
                    model[at].clear();
                }
            }
            for (place, expected) in places.iter_mut().zip(&model) {
                prop_assert_eq!(place.get().as_slice(), expected.as_slice());
            }
            for (bytes, expected) in &kept {
                prop_assert_eq!(&bytes[..], expected.as_slice());
            }
        }
    }
}
