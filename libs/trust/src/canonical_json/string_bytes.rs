//! Scans strings for bytes that end or escape them, eight bytes at a time: artifacts are mostly strings,
//! and each is scanned more than once.

const ONES: u64 = u64::MAX / 255;
const HIGHS: u64 = ONES << 7;

/// Length of the prefix without quotes, backslashes and control characters.
pub(super) fn unescaped_prefix(bytes: &[u8]) -> usize {
    let is_plain = |byte: &u8| *byte >= b' ' && *byte != b'"' && *byte != b'\\';
    let (words, rest) = bytes.as_chunks::<8>();
    for (index, word) in words.iter().enumerate() {
        let special = special(u64::from_le_bytes(*word));
        if special != 0 {
            return index * 8 + special.trailing_zeros() as usize / 8;
        }
    }
    let end = rest.iter().position(|byte| !is_plain(byte));
    words.len() * 8 + end.unwrap_or(rest.len())
}

/// Sets the highest bit of every special byte. A borrow may also set it in later bytes, never in earlier
/// ones.
fn special(word: u64) -> u64 {
    let controls = word.wrapping_sub(ONES * u64::from(b' ')) & !word;
    let equal = |byte: u8| {
        let differs = word ^ (ONES * u64::from(byte));
        differs.wrapping_sub(ONES) & !differs
    };
    (controls | equal(b'"') | equal(b'\\')) & HIGHS
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_is_classified_at_every_offset() {
        for byte in 0..=u8::MAX {
            let is_plain = byte >= b' ' && byte != b'"' && byte != b'\\';
            for length in 0..20 {
                for at in 0..length {
                    let mut bytes = vec![b'a'; length];
                    bytes[at] = byte;
                    let expected = if is_plain { length } else { at };
                    assert_eq!(
                        unescaped_prefix(&bytes),
                        expected,
                        "{byte:#x} at {at} of {length}"
                    );
                    bytes[at..].fill(byte);
                    assert_eq!(
                        unescaped_prefix(&bytes),
                        expected,
                        "{byte:#x} from {at} of {length}"
                    );
                }
            }
        }
    }

    #[test]
    fn later_bytes_do_not_hide_a_special_byte() {
        for pair in [*b"\"!", *b"\\]", *b"\x1f ", *b"\0\x01", *b"\"#"] {
            let mut bytes = [b'a'; 16];
            for at in 0..15 {
                bytes.fill(b'a');
                bytes[at..at + 2].copy_from_slice(&pair);
                assert_eq!(unescaped_prefix(&bytes), at);
            }
        }
    }
}
