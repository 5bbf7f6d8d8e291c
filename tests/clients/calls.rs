//! Calls and registrations by SIPp: F1 to F5, F13, F14 of the harm table.

use std::net::SocketAddr;

use super::capture::Capture;
use super::gateway::Gateway;
use super::kernel;
use super::rtp::{Handset, Speaker};
use super::sipp::{Caller, Role, Wire};
use super::world::{MEDIA, Mode, Nat, OTHER, PROXY, World, inside};

/// RTP of all phones.
const RTP: u16 = 40_000;
/// RTP of the outside.
const FAR_RTP: u16 = 6000;

/// A server at the proxy's address that answers `calls` calls and wants media at the media server.
pub(crate) fn provider(calls: u32) -> Role<'static> {
    Role {
        wire: Wire::Udp,
        scenario: "uas.xml",
        name: "callee",
        address: PROXY,
        media: (MEDIA, FAR_RTP),
        echo: false,
        calls,
        rate: 50,
    }
}

/// A phone that makes `calls` calls.
pub(crate) fn phone(index: u8, name: &str, calls: u32) -> Role<'_> {
    let address = inside(index);
    let wire = Wire::Udp;
    Role { wire, scenario: "uac.xml", name, address, media: (address, RTP), echo: false, calls, rate: 100 }
}

/// The target of a call to the provider.
pub(crate) fn to_provider() -> [(String, SocketAddr); 1] {
    [("sip:callee@example.com".to_owned(), SocketAddr::from((PROXY, 5060)))]
}

/// The media server's socket.
pub(crate) fn far_end(world: &World) -> Speaker {
    Speaker::bind(&world.outside, (MEDIA, FAR_RTP))
}

/// `calls` calls of one phone to the outside, all up at once, each with media of its own; then they end one by one.
pub(crate) fn many_calls_of_one_phone(world: &World, calls: u16) {
    many_calls_by(world, calls, Wire::Udp);
}

/// As [`many_calls_of_one_phone`], over this transport.
pub(crate) fn many_calls_by(world: &World, calls: u16, wire: Wire) {
    let mut far = far_end(world);
    let _handset =
        Handset::start(&world.phones[0], "phone", inside(0), (0..calls).map(|call| RTP + 4 * call));
    // A server takes as many connections as it gets.
    let listening = if wire == Wire::Udp { wire } else { Wire::Tcp };
    let mut server = Role { wire: listening, ..provider(calls.into()) }.serve(&world.outside);
    let mut caller = Role { wire, ..phone(0, "phone", calls.into()) }.call(&world.phones[0], &to_provider());
    let mut up = Vec::new();
    for _ in 0..calls {
        let call = caller.answered();
        assert_eq!(call.media, SocketAddr::from((MEDIA, FAR_RTP)));
        let offer = server.invite(&call.call);
        world.assert_reachable(0, offer.media);
        far.asks(offer.media, "phone");
        up.push((call, offer));
    }
    for (at, (call, offer)) in up.iter().enumerate() {
        far.asks(offer.media, "phone");
        caller.hang_up(call);
        // A thousand BYEs in a millisecond would overflow the buffers of SIPp's sockets.
        if at % 20 == 19 {
            server.uri_of("bye", &call.call);
        }
    }
    caller.succeeds();
    server.succeeds();
    for (call, _) in &up {
        assert_eq!(server.uri_of("ack", &call.call), "sip:callee@22.33.44.20:5060");
        assert_eq!(server.uri_of("bye", &call.call), "sip:callee@22.33.44.20:5060");
    }
}

#[test]
fn f04_f05_two_hundred_calls_of_one_phone_are_up_at_once_and_none_ends_another() {
    let world = World::new(Nat::Masquerade, 1);
    let capture = Capture::start(&world.router, "wan");
    many_calls_of_one_phone(&world, 200);
    let recording = capture.stop();
    recording.assert_sound();
    assert!(recording.invites().len() >= 200, "the recording is not complete");
    if world.mode != Mode::Routed {
        recording.assert_no_private_address();
    }
}

#[test]
fn calls_go_through_the_nfq_back_end_too() {
    let world = World::configured(Nat::Masquerade, 1, "[queue]\nbackend = \"nfq\"\n");
    many_calls_of_one_phone(&world, 20);
}

#[test]
fn f03_f14_three_phones_call_at_once_from_the_same_ports() {
    let world = World::new(Nat::MasqueradeRandom, 3);
    let mut far = far_end(&world);
    let server = provider(3).serve(&world.outside);
    let names = ["phone0", "phone1", "phone2"];
    let _handsets = each_phone(|index| {
        Handset::start(&world.phones[usize::from(index)], names[usize::from(index)], inside(index), [RTP])
    });
    let mut callers = each_phone(|index| {
        phone(index, names[usize::from(index)], 1).call(&world.phones[usize::from(index)], &to_provider())
    });
    let calls: Vec<_> = callers.iter_mut().map(Caller::answered).collect();
    let offers: Vec<_> = calls.iter().map(|call| server.invite(&call.call)).collect();
    // All three are up; each is asked twice, in turn.
    for round in 0..2 {
        for (index, offer) in (0..).zip(&offers) {
            world.assert_reachable(index, offer.media);
            far.asks(offer.media, names[usize::from(index)]);
            assert_eq!(offers.iter().filter(|other| other.media == offer.media).count(), 1, "round {round}");
            assert_eq!(
                offers.iter().filter(|other| other.contact == offer.contact).count(),
                1,
                "round {round}"
            );
        }
    }
    for (caller, call) in callers.iter_mut().zip(&calls) {
        caller.hang_up(call);
        caller.succeeds();
    }
    { server }.succeeds();
}

fn each_phone<T>(make: impl FnMut(u8) -> T) -> Vec<T> {
    (0..3).map(make).collect()
}

/// Three phones register from the same port, and are called at what they registered.
fn registered_phones_are_called(nat: Nat, meanwhile: fn(&mut World)) {
    let mut world = World::new(nat, 3);
    let capture = Capture::start(&world.router, "wan");
    let names = ["phone0", "phone1", "phone2"];
    let proxy = SocketAddr::from((PROXY, 5060));
    let mut registrar =
        Role { scenario: "registrar.xml", name: "registrar", ..provider(3) }.serve(&world.outside);
    let mut registering = each_phone(|index| {
        let role = Role { scenario: "register.xml", ..phone(index, names[usize::from(index)], 1) };
        role.client(&world.phones[usize::from(index)], proxy)
    });
    for (index, phone) in registering.iter_mut().enumerate() {
        phone.succeeds();
        let contact = format!(
            "\"phone{index}\" <sip:phone{index}@192.168.1.1{index}:5060;line=x1>;\
             +sip.instance=\"<urn:uuid:00000000-0000-1000-8000-AABBCCDDEEFF>\";q=0.5;expires=600"
        );
        assert_eq!(phone.granted(), [contact.as_str(), contact.as_str()]);
    }
    registrar.succeeds();
    let contacts: Vec<_> = names.iter().map(|name| registrar.registered(name)).collect();
    drop((registering, registrar));
    meanwhile(&mut world);

    // The phones take their port again; who calls them is where the registrar was: only he has a way in.
    let answering = |index: u8| Role { scenario: "uas.xml", ..phone(index, names[usize::from(index)], 1) };
    let mut phones = each_phone(|index| answering(index).serve(&world.phones[usize::from(index)]));
    let _handsets = each_phone(|index| {
        Handset::start(&world.phones[usize::from(index)], names[usize::from(index)], inside(index), [RTP])
    });
    let targets: Vec<_> = contacts.iter().map(|contact| (contact.uri.clone(), contact.endpoint)).collect();
    let role = Role { scenario: "uac.xml", name: "caller", ..provider(3) };
    let mut caller = role.call(&world.outside, &targets);
    let mut calls = Vec::new();
    for call in 0..3 {
        let answered = caller.answered();
        let index = phones
            .iter()
            .position(|phone| phone.has_invite(&answered.call))
            .expect("somebody has answered it");
        let invite = phones[index].invite(&answered.call);
        assert_eq!(invite.uri, format!("sip:phone{index}@192.168.1.1{index}:5060;line=x1"));
        let number = u8::try_from(index).expect("three phones");
        world.assert_reachable(number, contacts[index].endpoint);
        world.assert_reachable(number, answered.media);
        assert_eq!(invite.contact, "sip:caller@22.33.44.20:5060");
        let mut far = Speaker::bind(&world.outside, invite.media);
        assert_eq!(invite.media.ip(), MEDIA, "call {call}");
        far.asks(answered.media, names[index]);
        calls.push((index, answered, far));
    }
    for (index, call, far) in &mut calls {
        far.asks(call.media, names[*index]);
        caller.hang_up(call);
    }
    caller.succeeds();
    for (index, call, _) in &calls {
        phones[*index].succeeds();
        for request in ["ack", "bye"] {
            assert_eq!(
                phones[*index].uri_of(request, &call.call),
                format!("sip:phone{index}@192.168.1.1{index}:5060")
            );
        }
    }
    let recording = capture.stop();
    recording.assert_sound();
    if world.mode != Mode::Routed {
        recording.assert_no_private_address();
    }
}

#[test]
fn f13_f14_three_phones_register_from_the_same_port_and_are_called_behind_masquerade() {
    registered_phones_are_called(Nat::Masquerade, |_| ());
}

#[test]
fn f13_f14_three_phones_register_from_the_same_port_and_are_called_behind_masquerade_random() {
    registered_phones_are_called(Nat::MasqueradeRandom, |_| ());
}

#[test]
fn f13_f14_three_phones_register_from_the_same_port_and_are_called_behind_static_nat() {
    registered_phones_are_called(Nat::Static, |_| ());
}

#[test]
fn registered_phones_still_ring_after_kill_9() {
    registered_phones_are_called(Nat::MasqueradeRandom, |world| {
        if world.mode == Mode::Sipalg {
            Gateway::await_state(&world.router, &["sip:phone0@", "sip:phone1@", "sip:phone2@"]);
            world.gateway().end("KILL");
            world.gateway = Some(Gateway::start(&world.router, ""));
            let registrations = Gateway::ask(&world.router, "registrations");
            assert_eq!(registrations["total"], 3, "{registrations}");
        }
    });
}

#[test]
fn f01_f02_the_far_end_is_heard_before_the_phone_has_spoken_and_a_stranger_never_is() {
    let world = World::new(Nat::Static, 1);
    let inside_cable = Capture::start(&world.phones[0], "lan");
    let mut far = far_end(&world);
    let mut stranger = Speaker::bind(&world.outside, (OTHER, FAR_RTP));
    let handset = Handset::start(&world.phones[0], "phone", inside(0), [RTP]);
    let mut server = provider(1).serve(&world.outside);
    let mut caller = phone(0, "phone", 1).call(&world.phones[0], &to_provider());
    let call = caller.answered();
    let offer = server.invite(&call.call);
    world.assert_reachable(0, offer.media);
    if world.mode != Mode::Routed {
        // Before, among and after the negotiated media.
        stranger.speak(offer.media);
        far.asks_without_loss(offer.media, "phone", 5);
        stranger.speak(offer.media);
        far.asks_without_loss(offer.media, "phone", 5);
        stranger.speak(offer.media);
    }
    far.asks_without_loss(offer.media, "phone", 5);
    assert_eq!(handset.sources(), [SocketAddr::from((MEDIA, FAR_RTP))]);
    if world.mode == Mode::Sipalg {
        assert_eq!(kernel::refused_media(&world.router), 3);
    }
    caller.hang_up(&call);
    caller.succeeds();
    server.succeeds();
    let recording = inside_cable.stop();
    assert_eq!(recording.select("ip.src == 22.33.44.21"), Vec::<String>::new());
    assert!(recording.select("ip.src == 22.33.44.22").len() >= handset.heard_from((MEDIA, FAR_RTP).into()));
}

#[test]
fn media_is_echoed_by_sipp_itself_on_either_side() {
    let world = World::new(Nat::MasqueradeRandom, 1);
    // First the outside echoes, and the phone speaks first.
    let mut server = Role { echo: true, ..provider(1) }.serve(&world.outside);
    let mut caller = phone(0, "speaking", 1).call(&world.phones[0], &to_provider());
    let call = caller.answered();
    Speaker::bind(&world.phones[0], (inside(0), RTP)).is_echoed_by(call.media);
    caller.hang_up(&call);
    caller.succeeds();
    server.succeeds();
    drop((caller, server));
    // Then the phone echoes, and the outside speaks first.
    let mut server = provider(1).serve(&world.outside);
    let mut caller = Role { echo: true, ..phone(0, "echoing", 1) }.call(&world.phones[0], &to_provider());
    let call = caller.answered();
    let offer = server.invite(&call.call);
    world.assert_reachable(0, offer.media);
    far_end(&world).is_echoed_by(offer.media);
    caller.hang_up(&call);
    caller.succeeds();
    server.succeeds();
}
