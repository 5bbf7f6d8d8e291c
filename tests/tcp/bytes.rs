//! Every byte and every number of a connection: cut, joined, sent again, shifted.

use sipalg::alg::{Policy, Reason};

use crate::hand::{Hand, Made};
use crate::messages::{Message, expected, written};
use crate::properties::play;
use crate::scenes::{SECOND, calm, growing, idle, many, syn, text_of, wire_of};
use crate::world::Wires;

#[test]
fn f23_one_message_in_one_segment_is_translated_on_the_way() {
    let world = play(&calm());
    assert_eq!(world.followed.len(), 1);
    assert_eq!(world.phone.retransmissions + world.server.retransmissions, 0);
    assert_eq!(world.reasons.get(&Reason::NotInspected), None);
}

#[test]
fn f23_many_messages_in_one_segment() {
    let mut scene = calm();
    scene.out = (1..4).map(|number| Message::Text(number, 0)).collect();
    scene.out.push(Message::KeepAlive);
    let world = play(&scene);
    assert_eq!(world.phone.retransmissions, 0);
}

#[test]
fn f23_every_split_of_two_messages_with_a_keep_alive() {
    let messages = [Message::Text(1, 30), Message::KeepAlive, Message::Text(2, 0)];
    let whole = String::from_utf8(written(&messages)).unwrap();
    let wire = String::from_utf8(expected(&messages, &Default::default())).unwrap();
    for cut in 1..whole.len() {
        let mut hand = Hand::new();
        let mut all = hand.out(0, &whole[..cut]);
        all.extend(hand.out(cut as i64, &whole[cut..]));
        let joined: String = all.iter().map(|seen| seen.text.as_str()).collect();
        assert_eq!(joined, wire, "{cut}");
        assert!(all.iter().zip(all.iter().skip(1)).all(|(a, b)| a.at + a.text.len() as i64 == b.at), "{cut}");
    }
}

#[test]
fn f23_one_message_in_segments_of_one_byte() {
    let message = Message::Text(1, 3);
    let whole = text_of(&message);
    let mut hand = Hand::with(Policy { tcp_patience: 3600 * SECOND, ..Policy::default() }, 1460);
    let mut all = Vec::new();
    // More segments than may be held: what finds no room comes again.
    for _ in 0..3 {
        for at in 0..whole.len() {
            all.extend(hand.out(at as i64, &whole[at..=at]));
        }
    }
    let mut got = vec![None; wire_of(&message).len()];
    for seen in all {
        for (index, byte) in seen.text.bytes().enumerate() {
            if let Ok(at) = usize::try_from(seen.at + index as i64) {
                assert!(got[at].is_none_or(|old| old == byte), "byte {at}");
                got[at] = Some(byte);
            }
        }
    }
    let got: Vec<u8> = got.into_iter().map(|byte| byte.expect("every byte")).collect();
    assert_eq!(String::from_utf8(got).unwrap(), wire_of(&message));
}

#[test]
fn f24_keep_alives_pass_at_once_and_untouched() {
    let mut hand = Hand::new();
    let seen = hand.out(0, "\r\n\r\n");
    assert_eq!(seen.iter().map(|it| (it.at, it.text.as_str())).collect::<Vec<_>>(), [(0, "\r\n\r\n")]);
    let seen = hand.inn(0, "\r\n");
    assert_eq!(
        seen.iter().map(|it| (it.outbound, it.at, it.text.as_str())).collect::<Vec<_>>(),
        [(false, 0, "\r\n")]
    );
}

#[test]
fn f25_ten_thousand_messages_both_ways_at_once() {
    let mut scene = calm();
    scene.phone.cwnd = 10;
    scene.out = (1..10_001).map(|number| Message::Text(number, number as usize % 300)).collect();
    scene.inn = (1..10_001).map(|number| Message::Request(number, number as usize % 200)).collect();
    play(&scene);
}

#[test]
fn f25_acknowledgments_are_translated_back() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    let seen = hand.out(0, &written);
    assert_eq!((seen[0].text.as_str(), seen.len()), (wire.as_str(), 1));
    assert_eq!(hand.ack(wire.len() as u32, None).ack, written.len() as u32);
    // What is before all edits is the same; the end of what was sent goes back by all that it grew.
    let mut hand = Hand::new();
    hand.out(0, &written);
    let seen = hand.ack(20, Some((30, wire.len() as u32)));
    assert_eq!((seen.ack, seen.sack), (20, vec![(30, written.len() as u32)]));
}

#[test]
fn f25_what_is_sent_again_becomes_the_same_however_it_is_cut() {
    let (written, wire) = growing();
    for cut in 1..written.len() {
        let mut hand = Hand::new();
        hand.out(0, &written);
        for (at, part) in [(0, &written[..cut]), (cut, &written[cut..])] {
            for seen in hand.out(at as i64, part) {
                let from = usize::try_from(seen.at).unwrap();
                assert_eq!(seen.text, wire[from..from + seen.text.len()], "{cut}");
            }
        }
    }
}

#[test]
fn f25_what_has_long_arrived_is_never_sent_again_as_it_was_written() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    hand.out(0, &written);
    hand.ack(wire.len() as u32, None);
    // Its sender has not heard of it yet, and sends it again. What stands behind the last text is known to be the same.
    let known = written.rfind(";transport").unwrap();
    let at = wire.rfind(";transport").unwrap();
    let seen = hand.out(0, &written);
    assert_eq!((seen.len(), seen[0].at, seen[0].text.as_str()), (1, at as i64, &wire[at..]));
    // Of the rest the receiver is only made to say again that it has arrived.
    let seen = hand.out(0, &written[..known]);
    let last = wire.len() - 1;
    assert_eq!((seen.len(), seen[0].at, seen[0].text.as_str()), (1, last as i64, &wire[last..]));
    // And a FIN behind it keeps its place.
    let seen = hand.push(Made { outbound: true, payload: written.into(), fin: true, ..Made::default() });
    assert!(seen[0].fin && seen[0].text == wire[at..]);
}

#[test]
fn a_keep_alive_of_tcp_stays_below_what_was_acknowledged() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    hand.out(0, &written);
    hand.ack(wire.len() as u32, None);
    let last = written.len() as i64 - 1;
    for payload in ["", "\n"] {
        let seen = hand.out(last, payload);
        assert_eq!((seen.len(), seen[0].at), (1, wire.len() as i64 - 1));
    }
}

#[test]
fn a_byte_that_is_sent_twice_and_not_the_same_ends_inspection() {
    let (written, wire) = growing();
    let mut hand = Hand::new();
    hand.out(0, &written[..100]);
    assert_eq!(hand.out(50, "y".repeat(100)).iter().filter(|it| it.outbound).count(), 2, "all is let go");
    assert_eq!(hand.refused(), Some("S2"));
    // The same for bytes that went on already, as long as nobody has acknowledged them.
    let mut hand = Hand::new();
    hand.out(0, &written);
    hand.out(0, written.replace("MESSAGE", "message"));
    assert_eq!(hand.refused(), Some("S2"));
    let next = text_of(&Message::Text(2, 10));
    let seen = hand.out(written.len() as i64, &next);
    assert_eq!(
        (seen[0].at, seen[0].text.as_str()),
        (wire.len() as i64, next.as_str()),
        "only its number is translated"
    );
}

#[test]
fn segments_from_outside_that_no_window_has_room_for_are_not_read() {
    let mut hand = Hand::new();
    let seen = hand.inn(200_000, "GET / HTTP/1.1\r\n\r\n");
    // Their receiver is asked where it stands; nobody sees the bytes.
    assert!(seen.iter().all(|it| it.text.len() <= 1 && it.at < 1), "{seen:?}");
    let message = Message::Text(1, 10);
    assert_eq!(hand.out(0, text_of(&message))[0].text, wire_of(&message), "the connection is as before");
}

#[test]
fn a_window_probe_is_answered_by_the_receiver_and_not_read() {
    let message = Message::Text(1, 10);
    let mut hand = Hand::new();
    hand.out(0, text_of(&message));
    let length = text_of(&message).len();
    hand.push(Made { ack: wire_of(&message).len() as u32, window: Some(0), ..Made::default() });
    // The receiver had given 65,535 bytes from its beginning on, and never takes that back.
    let seen = hand.out(65_535, "M");
    assert_eq!(seen.len(), 1);
    assert!(seen[0].at < wire_of(&message).len() as i64, "{seen:?} {length}");
}

#[test]
fn urgent_data_ends_inspection() {
    let mut hand = Hand::new();
    let message = Message::Text(1, 10);
    hand.push(Made { outbound: true, payload: b"ME".to_vec(), urg: true, ..Made::default() });
    assert_eq!(hand.refused(), Some("S2"));
    assert!(hand.world.followed.is_empty());
    assert_eq!(hand.out(2, &text_of(&message)[2..])[0].text, &text_of(&message)[2..]);
}

#[test]
fn numbers_wrap_around() {
    for isn in [u32::MAX - 1, u32::MAX, u32::MAX - 300, u32::MAX - 20_000] {
        let mut scene = calm();
        scene.phone.isn = isn;
        scene.server.isn = isn.wrapping_sub(100);
        scene.out = many();
        scene.inn = (1..60).map(|number| Message::Request(number, 333)).collect();
        scene.wires = Wires { behind: 3, before: 3, ..Wires::default() };
        play(&scene);
    }
}

#[test]
fn segments_are_made_smaller_before_they_grow() {
    for (mss, expected) in [(1460u16, 1332u16), (536, 408), (140, 105)] {
        let mut world = idle();
        let [high, low] = mss.to_be_bytes();
        world.route(syn(&[2, 4, high, low], b""));
        world.wait(SECOND);
        let seen = sipalg::packet::Segment::parse(&world.tape[0].1).unwrap().options().mss;
        assert_eq!(seen, Some(expected));
    }
}
