//! Looking for bytes in short texts.
//!
//! Header values, parameters and SDP lines are a few dozen bytes long, and each is searched several times. At such
//! lengths the call of a vectorised search costs more than the search. So this one is inlined, looks at eight bytes at a
//! time in an ordinary register, and asks for any of several bytes at once. For texts of many lines `memchr` is
//! faster.

/// The offset of the first byte of `text` that is one of `wanted`.
#[inline]
pub fn find<const N: usize>(text: &[u8], wanted: [u8; N]) -> Option<usize> {
    let (words, rest) = text.as_chunks::<8>();
    let mut at = 0;
    for word in words {
        let hits = hits(*word, wanted);
        if hits != 0 {
            return Some(at + first(hits));
        }
        at += 8;
    }
    // What is left is the end of a word that has been searched in part; only a very short text has none.
    if let Some(last) = text.last_chunk::<8>() {
        let hits = hits(*last, wanted);
        return (hits != 0).then(|| text.len() - 8 + first(hits));
    }
    rest.iter().position(|byte| wanted.contains(byte))
}

/// The top bit of each byte of `word` that is one of `wanted`. Above the first such byte there may be false ones.
#[inline(always)]
fn hits<const N: usize>(word: [u8; 8], wanted: [u8; N]) -> u64 {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = ONES << 7;
    let word = u64::from_le_bytes(word);
    // A byte that is equal becomes 0, and only 0 borrows from its top bit. The borrow runs upwards, to later bytes.
    wanted.iter().fold(0, |hits, byte| {
        let zero = word ^ (ONES * u64::from(*byte));
        hits | (zero.wrapping_sub(ONES) & !zero & TOPS)
    })
}

#[inline(always)]
fn first(hits: u64) -> usize {
    hits.trailing_zeros() as usize / 8
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain<const N: usize>(text: &[u8], wanted: [u8; N]) -> Option<usize> {
        text.iter().position(|byte| wanted.contains(byte))
    }

    #[test]
    fn the_first_of_all_wanted_bytes_is_found_at_every_length() {
        // Neighbours of what is wanted, and all bits, tempt a borrow that runs too far.
        let fillers = [b':' - 1, b':' + 1, 0, 0x7f, 0x80, 0xff, b':' | 0x80];
        for length in 0..40 {
            for filler in fillers {
                let mut text = vec![filler; length];
                assert_eq!(find(&text, [b':', b';']), plain(&text, [b':', b';']), "{length} {filler}");
                for at in (0..length).rev() {
                    text[at] = if at % 2 == 0 { b':' } else { b'"' };
                    assert_eq!(find(&text, [b':']), plain(&text, [b':']), "{text:?}");
                    assert_eq!(find(&text, [b'"', b':']), plain(&text, [b'"', b':']), "{text:?}");
                    assert_eq!(find(&text, [b',', b'"', b'<']), plain(&text, [b',', b'"', b'<']), "{text:?}");
                }
            }
        }
    }

    #[test]
    fn nothing_is_found_when_nothing_is_wanted() {
        assert_eq!(find(b"0123456789", []), None);
    }
}
