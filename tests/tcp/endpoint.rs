//! A strict TCP: it sends a stream cut as it likes, repeats what is lost, and refuses what no TCP may be told.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use etherparse::{IpSlice, PacketBuilder, TcpOptionElement, TcpSlice};

/// Random numbers (splitmix64).
#[derive(Clone, Debug)]
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.roll() % n.max(1)
    }

    pub fn percent(&mut self, chance: u64) -> bool {
        self.below(100) < chance
    }
}

/// How an endpoint behaves.
#[derive(Clone, Copy, Debug)]
pub struct Habits {
    pub isn: u32,
    pub mss: u16,
    pub window: u16,
    /// By how many bits its window is shifted (RFC 7323), if the other end does it too; 0: it does not say so.
    pub scale: u8,
    pub sack: bool,
    pub nagle: bool,
    /// Cuts segments anywhere, and not the same way when it repeats them.
    pub cuts: bool,
    /// Acknowledges only every second segment at once.
    pub lazy: bool,
    /// First window of congestion control, in segments.
    pub cwnd: usize,
    /// Timestamps, and what protects against wrapped numbers with them (RFC 7323).
    pub stamps: bool,
}

impl Default for Habits {
    fn default() -> Self {
        Self {
            isn: 1000,
            mss: 1460,
            window: 65_535,
            scale: 0,
            sack: true,
            nagle: false,
            cuts: false,
            lazy: false,
            cwnd: 10,
            stamps: false,
        }
    }
}

const FIRST_RTO: Duration = Duration::from_millis(300);
const LONGEST_RTO: Duration = Duration::from_secs(8);
const LAZY: Duration = Duration::from_millis(40);

#[derive(Debug)]
pub struct Endpoint {
    pub name: &'static str,
    pub at: SocketAddr,
    pub to: SocketAddr,
    pub habits: Habits,
    pub dice: Dice,
    /// All that it writes.
    pub stream: Vec<u8>,
    /// Ends of single writes, where Nagle and PSH matter.
    pub closing: bool,
    pub peer_isn: Option<u32>,
    /// By how many bits the other end's window is shifted.
    peer_scale: u8,
    pub una: u64,
    next: u64,
    highest: u64,
    edge: u64,
    /// The widest window that it was given.
    widest: u64,
    room: usize,
    cwnd: usize,
    threshold: usize,
    rto: Duration,
    pub longest_rto: Duration,
    timer: Option<Instant>,
    dups: u32,
    pub received: Vec<u8>,
    later: BTreeMap<u64, u8>,
    later_fin: Option<u64>,
    pub fin_received: bool,
    /// The highest number that was acknowledged.
    told: u64,
    ack_due: Option<Instant>,
    unacked: u32,
    pub reset: bool,
    syn_sent: bool,
    is_server: bool,
    outbox: VecDeque<Vec<u8>>,
    pub retransmissions: usize,
    latest_block: Option<(u64, u64)>,
    clock: u32,
    /// The latest timestamp of the other end.
    recent: u32,
}

fn unwrap(number: u32, base: u32, reference: u64) -> u64 {
    let here = base.wrapping_add(reference as u32);
    reference.wrapping_add_signed(i64::from(number.wrapping_sub(here) as i32))
}

impl Endpoint {
    pub fn new(
        name: &'static str,
        at: SocketAddr,
        to: SocketAddr,
        habits: Habits,
        seed: u64,
        is_server: bool,
    ) -> Self {
        Self {
            name,
            at,
            to,
            habits,
            dice: Dice(seed),
            stream: Vec::new(),
            closing: false,
            peer_isn: None,
            peer_scale: 0,
            una: 0,
            next: 0,
            highest: 0,
            edge: 0,
            widest: 0,
            room: 536,
            cwnd: habits.cwnd,
            threshold: 64,
            rto: FIRST_RTO,
            longest_rto: LONGEST_RTO,
            timer: None,
            dups: 0,
            received: Vec::new(),
            later: BTreeMap::new(),
            later_fin: None,
            fin_received: false,
            told: 0,
            ack_due: None,
            unacked: 0,
            reset: false,
            syn_sent: false,
            is_server,
            outbox: VecDeque::new(),
            retransmissions: 0,
            latest_block: None,
            clock: u32::MAX - 500,
            recent: 0,
        }
    }

    /// Everything that was written has been acknowledged, the FIN too, and the other end has finished.
    pub fn is_done(&self) -> bool {
        self.fin_received && self.closing && self.una == self.stream.len() as u64 + 1
    }

    pub fn is_open(&self) -> bool {
        self.peer_isn.is_some() && (self.syn_sent || !self.is_server)
    }

    pub fn connect(&mut self, now: Instant) {
        self.syn(now);
    }

    fn syn(&mut self, now: Instant) {
        self.syn_sent = true;
        self.timer = Some(now + self.rto);
        let mut options = self.stamped();
        options.push(TcpOptionElement::MaximumSegmentSize(self.habits.mss));
        if self.habits.sack {
            options.push(TcpOptionElement::SelectiveAcknowledgementPermitted);
        }
        if self.habits.scale > 0 && (!self.is_server || self.peer_scale > 0) {
            options.push(TcpOptionElement::WindowScale(self.habits.scale));
        }
        let builder = self.builder(self.habits.isn).syn().options(&options).unwrap();
        let builder = match self.peer_isn {
            Some(isn) => builder.ack(isn.wrapping_add(1)),
            None => builder,
        };
        let mut bytes = Vec::new();
        builder.write(&mut bytes, &[]).unwrap();
        self.outbox.push_back(bytes);
    }

    fn builder(&self, sequence: u32) -> etherparse::PacketBuilderStep<etherparse::TcpHeader> {
        let ip = match (self.at.ip(), self.to.ip()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => PacketBuilder::ipv4(a.octets(), b.octets(), 64),
            (IpAddr::V6(a), IpAddr::V6(b)) => PacketBuilder::ipv6(a.octets(), b.octets(), 64),
            _ => unreachable!("one family"),
        };
        ip.tcp(self.at.port(), self.to.port(), sequence, self.habits.window)
    }

    fn send(&mut self, from: u64, to: u64, fin: bool) {
        let sequence = self.habits.isn.wrapping_add(1).wrapping_add(from as u32);
        let mut options = self.stamped();
        if self.habits.sack
            && let (Some(isn), Some((left, right))) = (self.peer_isn, self.latest_block)
        {
            let number = |at: u64| isn.wrapping_add(1).wrapping_add(at as u32);
            options.push(TcpOptionElement::Noop);
            options.push(TcpOptionElement::Noop);
            options
                .push(TcpOptionElement::SelectiveAcknowledgement((number(left), number(right)), [None; 3]));
        }
        let mut builder = self.builder(sequence).options(&options).unwrap();
        if let Some(isn) = self.peer_isn {
            let fin = u32::from(self.fin_received);
            builder =
                builder.ack(isn.wrapping_add(1).wrapping_add(self.received.len() as u32).wrapping_add(fin));
        }
        if fin {
            builder = builder.fin();
        }
        let payload = &self.stream[from as usize..to as usize];
        if to == self.stream.len() as u64 && to > from {
            builder = builder.psh();
        }
        let mut bytes = Vec::new();
        builder.write(&mut bytes, payload).unwrap();
        if from < to || fin {
            if from < self.highest {
                self.retransmissions += 1;
            }
            self.highest = self.highest.max(to + u64::from(fin));
        }
        self.ack_due = None;
        self.unacked = 0;
        self.told = self.received.len() as u64;
        self.outbox.push_back(bytes);
    }

    fn size(&mut self, room: usize) -> usize {
        if self.habits.cuts { 1 + self.dice.below(room as u64) as usize } else { room }
    }

    /// What every segment has of options.
    fn stamped(&self) -> Vec<TcpOptionElement> {
        let both = [
            TcpOptionElement::Noop,
            TcpOptionElement::Noop,
            TcpOptionElement::Timestamp(self.clock, self.recent),
        ];
        if self.habits.stamps { both.into() } else { Vec::new() }
    }

    /// Sends what may be sent.
    pub fn pump(&mut self, now: Instant) {
        if !self.is_open() || self.reset {
            return;
        }
        let end = self.stream.len() as u64;
        while self.next < end
            && (self.next - self.una) < (self.cwnd * self.room) as u64
            && self.next < self.edge
        {
            let left = (end - self.next).min(self.edge - self.next) as usize;
            if self.habits.nagle && left < self.room && self.next > self.una {
                break;
            }
            let size = self.size(self.room).min(left);
            let (from, to) = (self.next, self.next + size as u64);
            let fin = self.closing && to == end;
            self.send(from, to, fin);
            self.next = to + u64::from(fin);
        }
        if self.closing && self.next == end {
            self.send(end, end, true);
            self.next = end + 1;
        }
        let waits = self.una < self.next || (self.next < end && self.next >= self.edge);
        if waits {
            self.timer.get_or_insert(now + self.rto);
        } else {
            self.timer = None;
        }
    }

    fn resend(&mut self) {
        let end = self.stream.len() as u64;
        if self.una < end {
            let size = self.size(self.room).min((end - self.una) as usize);
            let to = (self.una + size as u64).min(self.highest.max(self.una + 1));
            let fin = self.closing && to == end && self.highest > end;
            self.send(self.una, to, fin);
            self.next = self.next.max(to + u64::from(fin));
        } else if self.closing && self.highest > end {
            self.send(end, end, true);
            self.next = self.next.max(end + 1);
        }
    }

    pub fn due(&self) -> Option<Instant> {
        [self.timer, self.ack_due].into_iter().flatten().min()
    }

    pub fn wake(&mut self, now: Instant) {
        self.clock = self.clock.wrapping_add(200);
        if self.reset {
            self.timer = None;
            self.ack_due = None;
            return;
        }
        if self.ack_due.is_some_and(|due| due <= now) {
            self.acknowledge();
        }
        if self.timer.is_some_and(|due| due <= now) {
            self.timer = None;
            self.rto = (self.rto * 2).min(self.longest_rto);
            if !self.is_open() {
                return self.syn(now);
            }
            if self.is_server
                && self.una == 0
                && self.received.is_empty()
                && self.highest == 0
                && self.edge == 0
            {
                return self.syn(now);
            }
            self.threshold = (self.cwnd / 2).max(2);
            self.cwnd = 1;
            if self.una < self.next {
                // As everybody does it: the first, and nothing else, until that is acknowledged.
                self.next = self.una;
                self.resend();
            } else if self.next < self.stream.len() as u64 {
                // A window probe: one byte.
                let at = self.next;
                self.send(at, at + 1, false);
                self.next = at + 1;
            }
            self.timer = Some(now + self.rto);
        }
    }

    fn acknowledge(&mut self) {
        // The number after all that was sent; behind the FIN, if there was one.
        if self.highest > self.stream.len() as u64 {
            self.bare(self.highest);
        } else {
            self.send(self.highest, self.highest, false);
        }
    }

    fn bare(&mut self, at: u64) {
        let sequence = self.habits.isn.wrapping_add(1).wrapping_add(at as u32);
        let isn = self.peer_isn.expect("a connection");
        let number =
            isn.wrapping_add(1).wrapping_add(self.received.len() as u32 + u32::from(self.fin_received));
        let mut bytes = Vec::new();
        self.builder(sequence).ack(number).options(&self.stamped()).unwrap().write(&mut bytes, &[]).unwrap();
        self.ack_due = None;
        self.unacked = 0;
        self.told = self.received.len() as u64;
        self.outbox.push_back(bytes);
    }

    pub fn outgoing(&mut self) -> Option<Vec<u8>> {
        self.outbox.pop_front()
    }

    /// A packet arrives.
    pub fn arrive(&mut self, now: Instant, bytes: &[u8]) {
        self.clock = self.clock.wrapping_add(1);
        let ip = IpSlice::from_slice(bytes).expect("an IP packet");
        let tcp = TcpSlice::from_slice(ip.payload().payload).expect("a TCP segment");
        let sum = match &ip {
            IpSlice::Ipv4(it) => {
                assert_eq!(it.header().to_header().calc_header_checksum(), it.header().header_checksum());
                tcp.calc_checksum_ipv4(it.header().source(), it.header().destination())
            }
            IpSlice::Ipv6(it) => tcp.calc_checksum_ipv6(it.header().source(), it.header().destination()),
        };
        assert_eq!(sum.unwrap(), tcp.checksum(), "{}: a wrong checksum", self.name);
        if self.reset {
            return;
        }
        if tcp.rst() {
            self.reset = true;
            return;
        }
        let options: Vec<_> = tcp.options_iterator().filter_map(Result::ok).collect();
        let stamp = options.iter().find_map(|it| match it {
            TcpOptionElement::Timestamp(stamp, _) => Some(*stamp),
            _ => None,
        });
        if tcp.syn() {
            self.recent = stamp.unwrap_or_default();
            if self.peer_isn.is_some_and(|isn| isn != tcp.sequence_number()) {
                return;
            }
            if !self.is_server && !tcp.ack() {
                return;
            }
            let mss = options.iter().find_map(|it| match it {
                TcpOptionElement::MaximumSegmentSize(mss) => Some(*mss),
                _ => None,
            });
            self.room = usize::from(mss.unwrap_or(536));
            let scale = options.iter().find_map(|it| match it {
                TcpOptionElement::WindowScale(scale) => Some(*scale),
                _ => None,
            });
            self.peer_scale = scale.filter(|_| self.habits.scale > 0).unwrap_or_default();
            self.peer_isn = Some(tcp.sequence_number());
            self.edge = if self.is_server { self.edge } else { u64::from(tcp.window_size()) };
            if self.is_server {
                self.syn(now);
            } else {
                assert_eq!(tcp.acknowledgment_number(), self.habits.isn.wrapping_add(1), "{}", self.name);
                self.timer = None;
                self.rto = FIRST_RTO;
                self.acknowledge();
                self.pump(now);
            }
            return;
        }
        if self.peer_isn.is_none() {
            return;
        }
        if let Some(stamp) = stamp {
            if (stamp.wrapping_sub(self.recent) as i32) < 0 {
                // PAWS: too old to be true.
                if !tcp.payload().is_empty() {
                    self.ack_due = Some(now);
                }
                return;
            }
            self.recent = stamp;
        }
        if self.is_overtaken(&tcp) {
            self.ack_due = Some(now);
            return;
        }
        self.take_ack(now, &tcp, &options);
        self.take_data(now, &tcp);
        self.pump(now);
    }

    /// Whether what it acknowledges is older than its sender can have known it, so that it is not believed (RFC 5961 section
    /// 5.2).
    fn is_overtaken(&mut self, tcp: &TcpSlice<'_>) -> bool {
        let at = unwrap(tcp.acknowledgment_number(), self.habits.isn.wrapping_add(1), self.una);
        self.widest = self.widest.max(self.offered(tcp));
        (at.wrapping_add(self.widest) as i64) < self.una as i64
    }

    /// The window in a segment that is not a SYN.
    fn offered(&self, tcp: &TcpSlice<'_>) -> u64 {
        u64::from(tcp.window_size()) << self.peer_scale
    }

    /// The window that it has.
    fn window(&self) -> i64 {
        i64::from(self.habits.window) << if self.peer_scale > 0 { self.habits.scale } else { 0 }
    }

    fn take_ack(&mut self, now: Instant, tcp: &TcpSlice<'_>, options: &[TcpOptionElement]) {
        if !tcp.ack() {
            return;
        }
        let base = self.habits.isn.wrapping_add(1);
        let at = unwrap(tcp.acknowledgment_number(), base, self.una);
        assert!(
            at <= self.highest || at > 1 << 62,
            "{}: {at} acknowledged, {} sent",
            self.name,
            self.highest
        );
        for option in options {
            let TcpOptionElement::SelectiveAcknowledgement(first, rest) = option else { continue };
            for (left, right) in [Some(*first)].into_iter().chain(rest.iter().copied()).flatten() {
                let (left, right) = (unwrap(left, base, self.una), unwrap(right, base, self.una));
                assert!(
                    right <= self.highest || right > 1 << 62,
                    "{}: {left}..{right} of {}",
                    self.name,
                    self.highest
                );
            }
        }
        if at > 1 << 62 {
            return;
        }
        if self.edge == 0 && self.is_server {
            self.timer = None;
        }
        self.edge = self.edge.max(at + self.offered(tcp));
        if at > self.una {
            self.una = at;
            self.next = self.next.max(at);
            self.dups = 0;
            self.rto = FIRST_RTO;
            self.timer = (self.una < self.next).then(|| now + self.rto);
            self.cwnd = if self.cwnd < self.threshold { self.cwnd + 1 } else { self.cwnd.max(2) };
        } else if at == self.una && tcp.payload().is_empty() && self.una < self.highest {
            self.dups += 1;
            if self.dups == 3 {
                self.resend();
            }
        }
    }

    fn take_data(&mut self, now: Instant, tcp: &TcpSlice<'_>) {
        let payload = tcp.payload();
        let base = self.peer_isn.expect("a connection").wrapping_add(1);
        let have = self.received.len() as u64;
        let from = unwrap(tcp.sequence_number(), base, have);
        let behind = from.wrapping_add(payload.len() as u64);
        let signed = from.wrapping_sub(have) as i64;
        if payload.is_empty() && !tcp.fin() {
            // A probe without a byte, or a bare acknowledgment; what is not the next number is answered.
            if signed < i64::from(self.fin_received) {
                self.ack_due = Some(now);
            } else if !self.fin_received {
                assert!(signed <= self.window(), "{}: an acknowledgment from nowhere", self.name);
            }
            return;
        }
        self.unacked += 1;
        let prompt =
            signed != 0 || !self.later.is_empty() || !self.habits.lazy || self.unacked > 1 || tcp.fin();
        let due = if prompt { now } else { now + LAZY };
        self.ack_due = Some(self.ack_due.map_or(due, |old| old.min(due)));
        let is_probe = payload.len() == 1 && signed == -1;
        for (index, byte) in payload.iter().enumerate() {
            let at = from.wrapping_add(index as u64);
            let distance = at.wrapping_sub(have) as i64;
            if distance < 0 {
                let old = self.received.get(at as usize);
                // What was acknowledged once is thrown away unseen.
                assert!(
                    is_probe || (at as i64) < self.told as i64 || old == Some(byte),
                    "{}: byte {at} has changed",
                    self.name
                );
            } else if distance < self.window() {
                let old = self.later.insert(at, *byte);
                assert!(old.is_none_or(|old| old == *byte), "{}: byte {at} has changed", self.name);
            }
        }
        if tcp.fin() {
            assert!(self.later_fin.is_none_or(|old| old == behind), "{}: a second end", self.name);
            self.later_fin = Some(behind);
        }
        self.latest_block = None;
        while let Some(byte) = self.later.remove(&(self.received.len() as u64)) {
            self.received.push(byte);
        }
        if let Some((&left, _)) = self.later.first_key_value() {
            let mut right = left;
            while self.later.contains_key(&right) {
                right += 1;
            }
            self.latest_block = Some((left, right));
        }
        if self.later_fin == Some(self.received.len() as u64) {
            self.fin_received = true;
        }
    }
}
