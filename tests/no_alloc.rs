//! The steady path does not allocate.
//!
//! A message of a known call is parsed, translated and written into a packet with the memory that the engine and its
//! caller already have. Allocations are counted for the calling thread alone, so that the test harness, which has
//! threads of its own, is not counted.
#![allow(unsafe_code)] // GlobalAlloc is an unsafe trait

#[path = "../benches/shared/invite.rs"]
mod invite;
#[path = "../benches/shared/known_dialog.rs"]
mod known_dialog;
#[path = "../benches/shared/message_alone.rs"]
mod message_alone;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;

use known_dialog::{KnownDialog, Talk, Way};
use message_alone::MessageAlone;
use sipalg::packet::Datagram;
use sipalg::sdp::Description;
use sipalg::sip::{Message, body};

#[test]
fn the_counter_counts() {
    assert_eq!(allocations(|| black_box(1)).1, 0);
    assert_eq!(allocations(|| black_box(Vec::<u8>::with_capacity(1))).1, 1);
    let mut grown: Vec<u8> = Vec::with_capacity(1);
    assert_eq!(allocations(|| grown.extend_from_slice(black_box(b"two"))).1, 1);
}

#[test]
fn a_message_is_read_without_allocating() {
    let packet = known_dialog::packet();
    let (mut message, mut parts, mut description) = (Message::default(), Vec::new(), Description::default());
    let mut read = || {
        let payload = Datagram::parse(&packet).unwrap().payload();
        message.parse(payload).unwrap();
        body::descriptions(payload, &message, &mut parts);
        description.parse(payload, parts[0]).unwrap();
        description.media.len()
    };
    assert_eq!(read(), 1);
    assert_eq!(allocations(read).1, 0);
}

#[test]
fn a_message_alone_is_rewritten_as_the_engine_does_it_and_without_allocating() {
    let mut dialog = KnownDialog::new();
    let expected = Datagram::parse(dialog.translate()).unwrap().payload().to_vec();
    let packet = known_dialog::packet();
    let invite = Datagram::parse(&packet).unwrap().payload();
    let mut alone = MessageAlone::new();
    alone.translate(invite);
    let (rewritten, count) = allocations(|| alone.translate(invite));
    assert_eq!(String::from_utf8_lossy(rewritten), String::from_utf8_lossy(&expected));
    assert_eq!(count, 0);
}

#[test]
fn a_message_of_a_known_dialog_is_translated_without_allocating() {
    let mut dialog = KnownDialog::new();
    let (packet, count) = allocations(|| {
        for _ in 0..1000 {
            black_box(dialog.edit());
            black_box(dialog.translate());
        }
        dialog.translate()
    });
    let text = String::from_utf8_lossy(packet);
    assert!(text.contains("Contact: <sip:alice@22.33.44.55:17375;transport=udp>\r\n"), "{text}");
    assert!(!text.contains("192.168.1."), "{text}");
    assert_eq!(count, 0, "allocations while 2,001 messages were translated");
}

#[test]
fn messages_of_an_answered_call_are_translated_without_allocating() {
    let (mut dialog, talk) = (KnownDialog::new(), Talk::new());
    for (way, packet, expected) in [
        (Way::In, &talk.answer, "Via: SIP/2.0/UDP 192.168.1.10:5060;branch="),
        (Way::In, &talk.request, "INFO sip:alice@192.168.1.10:5060;transport=udp SIP/2.0\r\n"),
        (Way::Out, &talk.reinvite, "Contact: <sip:alice@22.33.44.55:17375;transport=udp>\r\n"),
        // Again, with all that the others have changed.
        (Way::In, &talk.answer, ";received=192.168.1.10;rport=5060\r\n"),
    ] {
        dialog.meet(way, packet);
        let (rebuilt, count) = allocations(|| {
            for _ in 0..1000 {
                black_box(dialog.pass(way, packet));
            }
            dialog.pass(way, packet)
        });
        let text = String::from_utf8_lossy(rebuilt);
        assert!(text.contains(expected), "{text}");
        assert_eq!(count, 0, "allocations while this message was translated 1,001 times:\n{text}");
    }
}

/// Runs `job` and counts how often it asked for memory.
fn allocations<T>(job: impl FnOnce() -> T) -> (T, u64) {
    let before = COUNT.get();
    let result = job();
    (result, COUNT.get() - before)
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

thread_local! {
    // Without destructor and lazy initialisation, which would allocate themselves.
    static COUNT: Cell<u64> = const { Cell::new(0) };
}

/// The system's allocator, counting new and grown blocks.
struct Counting;

fn count() {
    COUNT.set(COUNT.get() + 1);
}

// SAFETY: every call goes to the system's allocator as it came, which keeps the trait's contract; counting touches no
// memory but a cell of this thread.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count();
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(block, layout, size) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(block, layout) }
    }
}
