//! The mask on what clients send.

/// Bytes that are masked at once: as many as the widest registers hold.
const STEP: usize = 64;

/// Masks `bytes`, or takes the mask off, where the first byte is number `start` of the frame.
///
/// # Examples
/// ```
/// use node_lua::frame::websocket::mask;
///
/// let mut bytes = *b"hello";
/// mask([1, 2, 3, 4], 0, &mut bytes[..2]);
/// mask([1, 2, 3, 4], 2, &mut bytes[2..]);
/// assert_eq!(bytes, [b'h' ^ 1, b'e' ^ 2, b'l' ^ 3, b'l' ^ 4, b'o' ^ 1]);
/// ```
pub fn mask(key: [u8; 4], start: usize, bytes: &mut [u8]) {
    let turned: [u8; 4] = std::array::from_fn(|at| key[(start + at) % 4]);
    let wide: [u8; STEP] = std::array::from_fn(|at| turned[at % 4]);
    let (blocks, rest) = bytes.as_chunks_mut::<STEP>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(wide) {
            *byte ^= key;
        }
    }
    for (byte, key) in rest.iter_mut().zip(wide) {
        *byte ^= key;
    }
}
