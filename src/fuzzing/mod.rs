//! Bodies of the fuzz targets: any bytes in, a panic if something that must always hold does not.
//!
//! They live in the library, behind the feature `fuzzing`, so that every build of the tests compiles them, and so that
//! `tests/fuzz_corpus.rs` can replay the corpora without a fuzzer. The targets of `fuzz/` are three lines each.
//!
//! Every oracle computes its answer a second way, and naively: a sum word by word, a header table line by line, an
//! edited text byte by byte, another crate's parser. Nothing here is part of the program.
//!
//! | target | what the bytes are | what must hold |
//! |---|---|---|
//! | [`packet()`] | an IP packet | bytes with no reason to change stay; lengths and checksums are right |
//! | [`sip()`] | a SIP message | spans in order and in bounds; the header table of a line reader |
//! | [`sdp()`] | a description | the same, with the lines of a line reader |
//! | [`engine()`] | a script of datagrams, times and outcomes | see [`mod@engine`] |
//! | [`tcp()`] | a script of segments, acknowledgments and times | see its module |
//! | [`differential()`] | a SIP message, or a description | whoever else understands it reads the same in it |

mod differential;
pub mod engine;
mod packet;
mod sdp;
mod sip;
mod tcp;
mod world;

pub use differential::differential;
pub use engine::engine;
pub use packet::packet;
pub use sdp::sdp;
pub use sip::sip;
pub use tcp::tcp;

use crate::span::Span;

/// A target: bytes in, a panic if they show a fault.
pub type Target = fn(&[u8]);

/// All targets, under the names of their binaries and corpora.
pub const TARGETS: [(&str, Target); 6] = [
    ("packet", packet),
    ("sip", sip),
    ("sdp", sdp),
    ("engine", engine),
    ("differential", differential),
    ("tcp", tcp),
];

/// Asserts that `spans` lie within `within`, one after the other.
fn assert_ordered(spans: &[Span], within: Span) {
    let mut at = within.start;
    for span in spans {
        assert!(
            at <= span.start && span.start <= span.end && span.end <= within.end,
            "{spans:?} in {within:?}"
        );
        at = span.end;
    }
}

/// The whole of `bytes`.
fn all(bytes: &[u8]) -> Span {
    Span::new(0, bytes.len())
}
