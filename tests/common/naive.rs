//! Oracles for every packet that is rewritten: second readings of the RFCs that share nothing with the code under test,
//! and make no attempt to be fast.

use std::ops::Range;

/// Ones' complement sum, word by word (RFC 1071 section 4.1).
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) * 256 + pair.get(1).map_or(0, |low| u32::from(*low));
        while sum > 0xffff {
            sum = (sum & 0xffff) + (sum >> 16);
        }
    }
    !(sum as u16)
}

/// Lengths and checksums of IP and UDP agree with the bytes (no extension headers).
#[track_caller]
pub fn assert_packet(packet: &[u8]) {
    let word = |at: usize| usize::from(packet[at]) * 256 + usize::from(packet[at + 1]);
    let (udp, mut pseudo) = if packet[0] >> 4 == 4 {
        let header = usize::from(packet[0] & 15) * 4;
        assert_eq!(word(2), packet.len(), "total length");
        assert_eq!(checksum(&packet[..header]), 0, "header checksum");
        (header, packet[12..20].to_vec())
    } else {
        assert_eq!(word(4) + 40, packet.len(), "payload length");
        (40, packet[8..40].to_vec())
    };
    assert_eq!(word(udp + 4), packet.len() - udp, "UDP length");
    pseudo.extend([0, 17, packet[udp + 4], packet[udp + 5]]);
    pseudo.extend(&packet[udp..]);
    assert_eq!(checksum(&pseudo), 0, "UDP checksum");
}

/// What no edit names is there, in the same order, and each edit has its text.
#[track_caller]
pub fn assert_untouched_outside(old: &[u8], edits: &[(Range<usize>, Vec<u8>)], new: &[u8]) {
    let (mut before, mut after) = (0, 0);
    for (range, text) in edits {
        assert!(range.start >= before && range.end <= old.len(), "{range:?} overlaps, or lies outside");
        let same = range.start - before;
        assert_eq!(&old[before..range.start], &new[after..after + same], "outside of the edits");
        after += same;
        assert_eq!(&new[after..after + text.len()], text);
        (before, after) = (range.end, after + text.len());
    }
    assert_eq!(&old[before..], &new[after..], "behind the edits");
}

/// A Content-Length that was right is right, one that was absent is absent.
#[track_caller]
pub fn assert_length_kept(old: &[u8], new: &[u8]) {
    let [(old_told, old_body), (new_told, new_body)] = [lengths(old), lengths(new)];
    assert_eq!(old_told.len(), new_told.len(), "a Content-Length came or went");
    for (old, new) in old_told.iter().zip(&new_told) {
        assert_eq!(old.map(|told| told - old_body), new.map(|told| told - new_body), "Content-Length");
    }
}

/// What the message says of the length of its body, and what it is.
fn lengths(message: &[u8]) -> (Vec<Option<i64>>, i64) {
    let text: String = message.iter().map(|byte| char::from(*byte)).collect();
    let start = text.len() - text.trim_start_matches(['\r', '\n']).len();
    let ends = ["\n\r\n", "\n\n"].map(|end| text[start..].find(end).map(|at| start + at + end.len()));
    let end = ends.into_iter().flatten().min().expect("the headers end");
    let unfolded = text[start..end].replace("\r\n", "\n").replace("\n ", "  ").replace("\n\t", "  ");
    let told = unfolded.lines().filter_map(|line| {
        let (name, value) = line.split_once(':')?;
        let name = name.trim_end().to_ascii_lowercase();
        (name == "content-length" || name == "l").then(|| value.trim().parse().ok())
    });
    (told.collect(), (text.len() - end) as i64)
}
