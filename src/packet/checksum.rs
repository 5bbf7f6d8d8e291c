//! The internet checksum (RFC 1071), in full and updated (RFC 1624).
//!
//! Sums are kept as plain `u64`s until [`fold`]: parts may be added in any order, as long as each but the last has an
//! even length. Full sums are for text that was edited, where lengths become odd and everything behind moves;
//! [`update`] is for header fields of whole 16-bit words. Nothing here knows a header.

/// The sum of `bytes` as big-endian 16-bit words, an odd last byte padded with zero. Not folded; cannot overflow for
/// less than 16 GiB.
pub fn sum(bytes: &[u8]) -> u64 {
    let (steps, rest) = bytes.as_chunks::<8>();
    let mut last = [0; 8];
    for (to, from) in last.iter_mut().zip(rest) {
        *to = *from;
    }
    steps
        .iter()
        .chain([&last])
        .map(|step| u64::from_be_bytes(*step))
        .map(|n| (n >> 32) + (n & 0xffff_ffff))
        .sum()
}

/// Folds a sum into 16 bits: carries are added at the low end.
pub fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

/// The value of a checksum field over everything that was summed.
pub fn finish(sum: u64) -> u16 {
    !fold(sum)
}

/// The checksum field after a 16-bit word that it covers went from `old` to `new` (RFC 1624, equation 3).
///
/// A field that was wrong stays wrong by the same amount.
pub fn update(field: u16, old: u16, new: u16) -> u16 {
    finish(u64::from(!field) + u64::from(!old) + u64::from(new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(fold(sum(&bytes)), 0xddf2);
        assert_eq!(finish(sum(&bytes)), 0x220d);
    }

    #[test]
    fn odd_lengths_are_padded_at_the_end() {
        assert_eq!(fold(sum(&[])), 0);
        assert_eq!(fold(sum(&[0x12])), 0x1200);
        assert_eq!(fold(sum(&[0x12, 0x34, 0x56])), 0x6834);
        assert_eq!(fold(sum(&[0xff; 9])), 0xff00);
    }

    #[test]
    fn the_example_of_rfc_1624() {
        assert_eq!(update(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    #[test]
    fn an_update_agrees_with_a_full_sum() {
        for (old, new) in [(0, 1), (1, 0), (0xffff, 0), (0x8000, 0x7fff), (0x1234, 0x1234)] {
            let words = |word: u16| [[0x45, 0x00].as_slice(), &word.to_be_bytes(), &[9, 9, 9, 9]].concat();
            assert_eq!(update(finish(sum(&words(old))), old, new), finish(sum(&words(new))), "{old} {new}");
        }
    }
}
