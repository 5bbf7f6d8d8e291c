//! Media and the kernel's state behind it: entries that die in a silence or were there before, who may send, and what
//! happens when nobody is there to close a door.

use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use super::gateway::Gateway;
use super::kernel;
use super::party::{Got, Party, sdp};
use super::rtp::{Handset, Speaker};
use super::wait;
use super::world::{MEDIA, Mode, Nat, OTHER, PROXY, PUBLIC, World, inside};

/// RTP of all phones.
const RTP: u16 = 40_000;
/// RTP of the media server.
const FAR_RTP: u16 = 6000;
/// The first port that a new sipalg gives.
const FIRST: u16 = 16_384;

/// A phone, a provider, and media at both ends.
struct Talk {
    world: World,
    phone: Party,
    provider: Party,
    far: Speaker,
    handset: Handset,
}

impl Talk {
    fn new(world: World) -> Self {
        let phone = Party::new(&world.phones[0], inside(0));
        let provider = Party::new(&world.outside, PROXY);
        let far = Speaker::bind(&world.outside, (MEDIA, FAR_RTP));
        let handset = Handset::start(&world.phones[0], "phone", inside(0), [RTP]);
        Self { world, phone, provider, far, handset }
    }

    /// The phone calls and is answered; what the provider was told.
    fn dial(&self) -> Got {
        let (offer, answer) = (sdp(inside(0), RTP, ""), sdp(MEDIA, FAR_RTP, ""));
        let (asked, got) = self.phone.call(&self.provider, "call", &offer, &answer);
        assert_eq!(got.media(), SocketAddr::from((MEDIA, FAR_RTP)));
        asked
    }

    /// The phone asks in its call; the public endpoint of its media.
    fn offer_again(&self, n: u32, more: &str) -> SocketAddr {
        let asked = self.phone.ask(&self.provider, "INVITE", n, "call", &sdp(inside(0), RTP, more));
        self.provider.agree(&asked, &self.phone, "", &sdp(MEDIA, FAR_RTP, more));
        asked.media()
    }

    fn hang_up(&self) {
        self.phone.hang_up(&self.provider, "call");
    }

    /// Waits until conntrack has forgotten the phone's RTP.
    fn await_silence(&self) {
        wait::until("the entries of the phone's media to die", || {
            let words = format!(" sport={RTP} ");
            (!kernel::media_entries(&self.world.router).iter().any(|it| it.contains(&words))).then_some(())
        });
    }
}

/// A router that forgets media after two seconds of silence instead of two minutes.
fn forgetful(world: &World) {
    for knob in ["nf_conntrack_udp_timeout", "nf_conntrack_udp_timeout_stream"] {
        world.router.sysctl(&format!("net/netfilter/{knob}"), "2");
    }
}

/// An administrator who filters nothing.
const OPEN: &str = r#"flush ruleset
table ip nat {
    chain postrouting {
        type nat hook postrouting priority srcnat;
        oifname "wan" masquerade
    }
}
"#;

/// A network with that administrator's router.
fn unfiltered(phones: u8, config: &str) -> World {
    let mut world = World::without_gateway(Nat::Masquerade, phones);
    world.load(OPEN);
    if world.mode == Mode::Sipalg {
        world.gateway = Some(Gateway::start(&world.router, config));
    }
    world
}

#[test]
fn f17_f39_media_that_comes_back_after_a_long_silence_is_let_in_with_a_word_and_without() {
    let mut talk = Talk::new(World::new(Nat::Masquerade, 1));
    if talk.world.mode != Mode::Sipalg {
        return;
    }
    forgetful(&talk.world);
    let public = talk.dial().media();
    talk.far.asks(public, "phone");
    // On hold: nobody sends.
    assert_eq!(talk.offer_again(2, "a=inactive\n"), public);
    talk.await_silence();
    // The far end is first to speak, before anybody has said that the hold is over.
    talk.far.asks(public, "phone");
    talk.await_silence();
    // Resumed by the book: not even the first packet is lost.
    assert_eq!(talk.offer_again(3, ""), public);
    talk.far.asks_without_loss(public, "phone", 5);
    talk.await_silence();
    // After a mute both ends, the phone is first.
    let elsewhere = Speaker::bind(&talk.world.outside, (MEDIA, FAR_RTP + 10));
    drop(std::mem::replace(&mut talk.far, elsewhere));
    talk.far.asks(public, "phone");
    // That was another port than the negotiated one. From another address nothing is let in.
    let heard = talk.handset.sources();
    let mut stranger = Speaker::bind(&talk.world.outside, (OTHER, FAR_RTP));
    for _ in 0..3 {
        stranger.speak(public);
    }
    talk.far.asks(public, "phone");
    assert_eq!(talk.handset.sources().len(), heard.len());
    assert_eq!(kernel::refused_media(&talk.world.router), 3);
    talk.hang_up();
    wait::until("all entries of media to go", || {
        kernel::media_entries(&talk.world.router).is_empty().then_some(())
    });
}

#[test]
fn f01_only_who_was_negotiated_is_heard_also_where_the_firewall_lets_everybody_pass() {
    let mut talk = Talk::new(unfiltered(1, ""));
    if talk.world.mode != Mode::Sipalg {
        return;
    }
    let public = talk.dial().media();
    let mut stranger = Speaker::bind(&talk.world.outside, (OTHER, FAR_RTP));
    for _ in 0..3 {
        stranger.speak(public);
        talk.far.asks_without_loss(public, "phone", 1);
    }
    assert_eq!(talk.handset.sources(), [SocketAddr::from((MEDIA, FAR_RTP))]);
    assert_eq!(kernel::refused_media(&talk.world.router), 3);
    talk.hang_up();
    // Nor is anybody heard afterwards: the port rests, and stays shut.
    wait::until("the pinholes to close", || {
        let open = |(name, count): (&str, usize)| name != "owned4" && count > 0;
        (!kernel::elements(&talk.world.router).into_iter().any(open)).then_some(())
    });
    let before = talk.handset.heard_from((MEDIA, FAR_RTP).into());
    talk.far.speak(public);
    stranger.speak(public);
    wait::until("both to be refused", || (kernel::refused_media(&talk.world.router) == 5).then_some(()));
    assert_eq!(talk.handset.heard_from((MEDIA, FAR_RTP).into()), before);
}

#[test]
fn f01_everybody_is_heard_where_the_administrator_says_so_but_only_while_the_call_lives() {
    let mut talk = Talk::new(unfiltered(1, "[media]\nsource = \"any\"\n"));
    if talk.world.mode != Mode::Sipalg {
        return;
    }
    let public = talk.dial().media();
    let mut other = Speaker::bind(&talk.world.outside, (OTHER, 7000));
    other.asks(public, "phone");
    talk.far.asks(public, "phone");
    talk.hang_up();
    wait::until("the pinholes to close", || (kernel::elements(&talk.world.router)[0].1 == 0).then_some(()));
    let late = SocketAddr::from((OTHER, 7002));
    Speaker::bind(&talk.world.outside, late).speak(public);
    wait::until("it to be refused", || (kernel::refused_media(&talk.world.router) == 1).then_some(()));
    assert_eq!(talk.handset.heard_from(late), 0);
}

#[test]
fn f02_media_that_overtakes_its_own_answer_is_put_right() {
    let mut world = World::new(Nat::Masquerade, 1);
    let (phone, provider) = (Party::new(&world.phones[0], inside(0)), Party::new(&world.outside, PROXY));
    if world.mode != Mode::Sipalg {
        return;
    }
    let asked = phone.ask(&provider, "REGISTER", 1, "register", "");
    provider.agree(&asked, &phone, "Expires: 600\n", "");
    // A call comes in, and the phone's media is on its way before the phone's 200 is.
    let invite = super::party::request("INVITE", 1, "in", provider.address(), &sdp(MEDIA, FAR_RTP, ""));
    provider.send(asked.from, &invite);
    let got = phone.receive();
    let far = world.outside.within(|| UdpSocket::bind((MEDIA, FAR_RTP)).expect("the port is free"));
    far.set_read_timeout(Some(wait::LONG)).expect("not zero");
    let early = world.phones[0].within(|| UdpSocket::bind((inside(0), RTP)).expect("the port is free"));
    early.send_to(b"early", (MEDIA, FAR_RTP)).expect("sent");
    let mut buffer = [0; 64];
    let (_, from) = far.recv_from(&mut buffer).expect("it arrives");
    assert_eq!(from, SocketAddr::from((PUBLIC, RTP)), "masquerade has kept the port");
    let public = phone.agree(&got, &provider, "", &sdp(inside(0), RTP, "")).media();
    assert_ne!(public, from);
    // From now on it comes from where the answer said, and what goes there arrives.
    early.send_to(b"in time", (MEDIA, FAR_RTP)).expect("sent");
    assert_eq!(far.recv_from(&mut buffer).expect("it arrives").1, public);
    drop((early, far));
    let _handset = Handset::start(&world.phones[0], "phone", inside(0), [RTP]);
    Speaker::bind(&world.outside, (MEDIA, FAR_RTP)).asks_without_loss(public, "phone", 3);
    world.gateway().end("TERM");
}

#[test]
fn f02_an_entry_that_a_stray_packet_has_left_on_the_public_port_is_put_right() {
    let mut talk = Talk::new(unfiltered(1, ""));
    if talk.world.mode != Mode::Sipalg {
        return;
    }
    // Late media of an earlier call, perhaps: the router takes it for its own.
    talk.far.speak((PUBLIC, FIRST).into());
    wait::until("the stray's entry", || {
        let stray = format!("dport={FIRST} ");
        kernel::media_entries(&talk.world.router).iter().any(|it| it.contains(&stray)).then_some(())
    });
    let public = talk.dial().media();
    assert_eq!(public, SocketAddr::from((PUBLIC, FIRST)));
    talk.far.asks_without_loss(public, "phone", 5);
}

#[test]
fn f02_another_hosts_flow_that_has_the_public_port_is_put_right() {
    let mut talk = Talk::new(World::new(Nat::Masquerade, 2));
    if talk.world.mode != Mode::Sipalg {
        return;
    }
    // Some other program inside sends to the media server, and masquerade keeps its port.
    let other =
        talk.world.phones[1].within(|| UdpSocket::bind((inside(1), FIRST)).expect("the port is free"));
    other.send_to(b"unrelated", (MEDIA, FAR_RTP)).expect("sent");
    wait::until("its entry", || {
        let entries = kernel::media_entries(&talk.world.router);
        entries
            .iter()
            .any(|it| it.contains(&format!("dst={PUBLIC} sport={FAR_RTP} dport={FIRST} ")))
            .then_some(())
    });
    let public = talk.dial().media();
    assert_eq!(public, SocketAddr::from((PUBLIC, FIRST)));
    talk.far.asks_without_loss(public, "phone", 5);
    // The other one gets another port, and both go on.
    other.send_to(b"unrelated", (MEDIA, FAR_RTP)).expect("sent");
    talk.far.asks_without_loss(public, "phone", 5);
}

#[test]
fn f34_two_phones_behind_one_nat_hear_each_other_by_the_router_where_the_administrator_says_so() {
    let world = World::configured(Nat::Masquerade, 2, "[media]\nlocal = \"hairpin\"\n");
    if world.mode != Mode::Sipalg {
        return;
    }
    let parties = [0, 1].map(|index| Party::new(&world.phones[usize::from(index)], inside(index)));
    let provider = Party::new(&world.outside, PROXY);
    let [alice, bob] = &parties;
    let registered = bob.ask(&provider, "REGISTER", 1, "register", "");
    provider.agree(&registered, bob, "Expires: 600\n", "");
    let offer = alice.ask(&provider, "INVITE", 1, "out", &sdp(inside(0), RTP, ""));
    // The provider hands both descriptions on as they are.
    let to_bob =
        super::party::request("INVITE", 1, "in", provider.address(), &sdp(PUBLIC, offer.media().port(), ""));
    provider.send(registered.from, &to_bob);
    let got = bob.receive();
    assert_eq!(got.media(), offer.media(), "by the router");
    let answer = bob.agree(&got, &provider, "", &sdp(inside(1), RTP, ""));
    let heard = provider.agree(&offer, alice, "", &sdp(PUBLIC, answer.media().port(), ""));
    assert_eq!(heard.media(), answer.media());
    // Each hears the other from the endpoint that it was told.
    let handset = Handset::start(&world.phones[1], "bob", inside(1), [RTP]);
    let mut speaker = Speaker::bind(&world.phones[0], (inside(0), RTP));
    speaker.until_answered(answer.media(), |text, _| format!("bob heard {text} from {}", offer.media()));
    assert_eq!(handset.sources(), [offer.media()]);
}

#[test]
fn f41_what_was_opened_for_nobody_closes_by_itself_when_the_gateway_is_gone() {
    let mut world =
        World::configured(Nat::Masquerade, 1, "[media]\nhalf-open = \"2s\"\nquarantine = \"2s\"\n");
    if world.mode != Mode::Sipalg {
        return;
    }
    let (phone, provider) = (Party::new(&world.phones[0], inside(0)), Party::new(&world.outside, PROXY));
    phone.ask(&provider, "INVITE", 1, "call", &sdp(inside(0), RTP, ""));
    assert!(kernel::elements(&world.router).iter().any(|&(_, count)| count > 0));
    world.gateway().end("KILL");
    wait::until("the kernel to close what nobody has asked for again", || {
        kernel::elements(&world.router).iter().all(|&(_, count)| count == 0).then_some(())
    });
}

#[test]
fn f43_s6_nobody_but_the_registrar_comes_in_by_a_registered_phones_door() {
    let world = World::new(Nat::MasqueradeRandom, 1);
    if world.mode != Mode::Sipalg {
        return;
    }
    let (phone, provider) = (Party::new(&world.phones[0], inside(0)), Party::new(&world.outside, PROXY));
    let asked = phone.ask(&provider, "REGISTER", 1, "register", "");
    provider.agree(&asked, &phone, "Expires: 600\n", "");
    let text = |call: &str, from| super::party::request("OPTIONS", 1, call, from, "");
    let stranger = Party::new(&world.outside, OTHER);
    let elsewhere = world.outside.within(|| UdpSocket::bind((PROXY, 5070)).expect("the port is free"));
    stranger.send(asked.from, &text("stranger", stranger.address()));
    elsewhere.send_to(text("elsewhere", provider.address()).as_bytes(), asked.from).expect("sent");
    provider.send(asked.from, &text("provider", provider.address()));
    assert_eq!(phone.receive().header("Call-ID"), "provider");
    assert!(phone.receive_within(Duration::from_millis(300)).is_none(), "somebody else came in");
}
