//! Header lines, one logical line at a time: physical lines joined with their folds (RFC 3261 section 7.3.1).
//!
//! Serves messages and MIME parts alike. It does not collect anything: the caller decides what it keeps.

use super::header::HeaderName;
use super::message::Header;
use super::text::trim;
use crate::search;
use crate::span::Span;

/// Calls `each` for every header of `bytes` from `at` to the empty line, and answers with the offset after that line;
/// `None` if there is none, or if `each` has had enough and said `false`.
///
/// Lines without a name are passed over: nobody can need them. The colon belongs on the first physical line, for
/// `HCOLON` allows blanks before it, but no fold. (A callback, because handing a [`Header`] out by way of an
/// iterator takes longer than reading it.)
#[inline]
pub(super) fn read_headers(
    bytes: &[u8],
    mut at: usize,
    mut each: impl FnMut(Header) -> bool,
) -> Option<usize> {
    loop {
        let start = at;
        let rest = bytes.get(start..)?;
        let colon = search::find(rest, [b':', b'\n'])?;
        let (mut name, behind) = rest.split_at_checked(colon)?;
        let named = behind.first() == Some(&b':');
        let mut end = colon;
        if named {
            end += search::find(behind, [b'\n'])?;
        } else if matches!(name, b"" | b"\r") {
            return Some(start + end + 1);
        }
        while matches!(rest.get(end + 1), Some(b' ' | b'\t')) {
            end += 1 + search::find(rest.get(end + 1..)?, [b'\n'])?;
        }
        at = start + end + 1;
        while let [rest @ .., b' ' | b'\t'] = name {
            name = rest;
        }
        if !named || matches!(name, [] | [b' ' | b'\t', ..]) {
            continue;
        }
        let header = Header {
            name: HeaderName::of(name),
            name_span: Span::new(start, start + name.len()),
            value: trim(bytes, Span::new(start + colon + 1, start + end)),
        };
        if !each(header) {
            return None;
        }
    }
}
