//! Looking for bytes in short texts.
//!
//! Header values, parameters and SDP lines are a few dozen bytes long, and each is searched several times. At such
//! lengths the call of a search that is made for long texts costs more than the search. So this one is inlined: sixteen
//! bytes at a time where the processor has vectors for sure, eight at a time in an ordinary register elsewhere and for
//! what is shorter. It looks for any of several bytes at once.

use wide::u8x16;

/// Elsewhere the vectors are made of single bytes, and slower than [`hits`].
const VECTORS: bool =
    cfg!(any(target_feature = "sse2", all(target_arch = "aarch64", target_feature = "neon")));

/// The offset of the first byte of `text` that is one of `wanted`.
#[inline(always)]
pub fn find<const N: usize>(text: &[u8], wanted: [u8; N]) -> Option<usize> {
    if let (Some(last), true) = (text.last_chunk::<16>(), VECTORS) {
        let mut at = 0;
        for block in text.as_chunks::<16>().0 {
            let hits = block_hits(*block, wanted);
            if hits != 0 {
                return Some(at + hits.trailing_zeros() as usize);
            }
            at += 16;
        }
        // What is left is the end of a block that has been searched in part.
        let hits = block_hits(*last, wanted);
        return (hits != 0).then(|| text.len() - 16 + hits.trailing_zeros() as usize);
    }
    find_by_words(text, wanted)
}

#[inline(always)]
fn find_by_words<const N: usize>(text: &[u8], wanted: [u8; N]) -> Option<usize> {
    let mut at = 0;
    let (words, rest) = text.as_chunks::<8>();
    for word in words {
        let hits = hits(*word, wanted);
        if hits != 0 {
            return Some(at + first(hits));
        }
        at += 8;
    }
    if let Some(last) = text.last_chunk::<8>() {
        let hits = hits(*last, wanted);
        return (hits != 0).then(|| text.len() - 8 + first(hits));
    }
    rest.iter().position(|byte| wanted.contains(byte))
}

/// One bit for each byte of `block` that is one of `wanted`, the first byte's the lowest.
#[inline(always)]
fn block_hits<const N: usize>(block: [u8; 16], wanted: [u8; N]) -> u32 {
    let block = u8x16::new(block);
    wanted.iter().fold(u8x16::ZERO, |hits, byte| hits | block.cmp_eq(u8x16::splat(*byte))).move_mask() as u32
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

    fn check<const N: usize>(text: &[u8], wanted: [u8; N]) {
        let plain = text.iter().position(|byte| wanted.contains(byte));
        assert_eq!(find(text, wanted), plain, "{text:?} {wanted:?}");
        assert_eq!(find_by_words(text, wanted), plain, "by words: {text:?} {wanted:?}");
    }

    #[test]
    fn the_first_of_all_wanted_bytes_is_found_at_every_length() {
        // Neighbours of what is wanted, and all bits, tempt a borrow that runs too far.
        let fillers = [b':' - 1, b':' + 1, 0, 0x7f, 0x80, 0xff, b':' | 0x80];
        for length in 0..40 {
            for filler in fillers {
                let mut text = vec![filler; length];
                check(&text, [b':', b';']);
                for at in (0..length).rev() {
                    text[at] = if at % 2 == 0 { b':' } else { b'"' };
                    check(&text, [b':']);
                    check(&text, [b'"', b':']);
                    check(&text, [b',', b'"', b'<']);
                }
            }
        }
    }

    #[test]
    fn nothing_is_found_when_nothing_is_wanted() {
        assert_eq!(find(b"0123456789", []), None);
    }
}
