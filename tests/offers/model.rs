//! What must be open, from what the two sides have said and were told.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use super::common::Kernel;
use super::description::Read;

/// A flow of media: the phone's endpoint, the public one that the far end was told, and the far end's.
pub(crate) type Flow = (SocketAddr, SocketAddr, SocketAddr);

/// The phone's endpoint and the public one, of RTP or RTCP; nothing if there is none.
type Place = Option<(SocketAddr, SocketAddr)>;

/// What one description of the phone was, on both sides of the NAT.
#[derive(Clone, Debug, Default)]
pub(crate) struct Own {
    pub(crate) wrote: Vec<Read>,
    pub(crate) told: Vec<Read>,
}

impl Own {
    /// The phone's endpoint and the public one, RTP and RTCP of all streams; by the index of the line.
    fn places(&self) -> Vec<(usize, Vec<[Place; 2]>)> {
        assert_eq!(self.wrote.len(), self.told.len(), "a line got lost");
        let lines = self.wrote.iter().zip(&self.told).enumerate();
        let lines = lines.map(|(index, (wrote, told))| {
            assert_eq!((wrote.pairs.len(), wrote.mux), (told.pairs.len(), told.mux), "line {index}");
            let pairs = wrote.pairs.iter().zip(&told.pairs).map(|(wrote, told)| {
                assert_eq!(wrote.1.is_some(), told.1.is_some());
                [Some((wrote.0, told.0)), wrote.1.zip(told.1)]
            });
            (index, pairs.collect())
        });
        lines.collect()
    }

    /// Where the kernel must lead what comes to a public endpoint. `muxed`: RTCP of this line comes with RTP.
    fn doors(&self, muxed: impl Fn(usize) -> bool) -> BTreeMap<SocketAddr, SocketAddr> {
        let mut doors = BTreeMap::new();
        for (index, pairs) in self.places() {
            for [rtp, rtcp] in pairs {
                let all = rtp.into_iter().chain(rtcp.filter(|_| !muxed(index)));
                doors.extend(all.map(|(inside, public)| (public, inside)));
            }
        }
        doors
    }

    /// All endpoints that the phone has named.
    pub(crate) fn named(&self) -> BTreeSet<SocketAddr> {
        let pairs = self.wrote.iter().flat_map(|it| &it.pairs);
        pairs.flat_map(|(rtp, rtcp)| [Some(*rtp), *rtcp]).flatten().collect()
    }

    /// What lies between these streams and those of the far end. `spare`: RTCP also where it comes with RTP.
    fn flows(&self, far: &[Read], spare: bool) -> BTreeSet<Flow> {
        let mut flows = BTreeSet::new();
        for (index, pairs) in self.places() {
            let Some(far) = far.get(index) else { continue };
            let muxed = self.wrote[index].mux && far.mux;
            for ([rtp, rtcp], (far_rtp, far_rtcp)) in pairs.into_iter().zip(&far.pairs) {
                let rtcp = rtcp.zip(*far_rtcp).filter(|_| spare || !muxed);
                let both = rtp.map(|it| (it, *far_rtp)).into_iter().chain(rtcp);
                flows.extend(both.map(|((inside, public), far)| (inside, public, far)));
            }
        }
        flows
    }
}

/// The pinned flows of the kernel.
pub(crate) fn pins(kernel: &Kernel) -> BTreeSet<Flow> {
    kernel.pins.iter().map(|it| (it.inside.0, it.public.0, it.far)).collect()
}

/// Who has a flow is let in, and nobody else.
fn assert_admitted(kernel: &Kernel) {
    let admitted: BTreeSet<_> = kernel.peers.iter().map(|it| (it.public.0, it.far)).collect();
    let flows = kernel.pins.iter();
    assert_eq!(admitted, flows.map(|it| (it.public.0, Some(it.far.ip()))).collect(), "{:?}", kernel.pins);
}

/// What was agreed upon, and what was before.
#[derive(Default)]
pub(crate) struct Model {
    /// The phone's last description that named anything.
    own: Own,
    /// What the far end said last of each line where media goes; on hold it says nothing of it.
    far: Vec<Read>,
    /// Flows that must be there.
    agreed: BTreeSet<Flow>,
    /// Inside endpoints, by public ones, of the last two exchanges.
    doors: [BTreeMap<SocketAddr, SocketAddr>; 2],
    /// What the phone's last two descriptions that differ have named.
    named: [BTreeSet<SocketAddr>; 2],
    /// What the phone's first INVITE has named: other branches of a fork may answer it for a while.
    pub(crate) forks: BTreeSet<SocketAddr>,
}

impl Model {
    /// The phone's offer has left: media may come at once to where it says, and goes on as before (RFC 3264 section 8.3.1).
    pub(crate) fn offered(&self, own: &Own, kernel: &Kernel) {
        self.assert_led(&own.doors(|_| false), kernel);
        self.assert_goes_on(kernel);
    }

    /// What was agreed upon is still there.
    pub(crate) fn assert_goes_on(&self, kernel: &Kernel) {
        let missing: Vec<_> = self.agreed.difference(&pins(kernel)).copied().collect();
        assert_eq!(missing, [], "an offer has cut what was agreed upon: {:?}", kernel.pins);
    }

    /// Both sides have agreed.
    pub(crate) fn agreed(&mut self, own: Own, far: Vec<Read>, before: &Kernel, kernel: &Kernel) {
        let muxed = |index: usize| own.wrote[index].mux && far[index].mux;
        let doors = own.doors(muxed);
        // 1: what the far end was told leads to where the phone is.
        self.assert_led(&doors, kernel);
        // 2: each flow is there, and its far end let in.
        self.agreed = own.flows(&far, false);
        let there = pins(kernel);
        let missing: Vec<_> = self.agreed.difference(&there).collect();
        assert!(missing.is_empty(), "not pinned: {missing:?} of {:?}", kernel.pins);
        assert_admitted(kernel);

        // 5: nothing more is there than this exchange and the one before account for.
        let silent = own.named().is_empty();
        if !silent {
            if self.named[0] != own.named() {
                self.named.swap(0, 1);
                self.named[0] = own.named();
            }
            self.own = own;
        }
        self.far.resize(far.len(), Read::default());
        for (known, far) in self.far.iter_mut().zip(far).filter(|(_, far)| !far.pairs.is_empty()) {
            *known = far;
        }
        for (public, inside) in &kernel.pinholes {
            let known = self.named.iter().chain([&self.forks]).any(|it| it.contains(&inside.0));
            assert!(known, "{public} leads to {inside}, which nobody has named lately: {:?}", self.named);
        }
        let mut allowed = self.own.flows(&self.far, true);
        if allowed.is_empty() {
            // Nothing runs: what was there may stay.
            allowed = pins(before);
            allowed.extend(self.begun(before, &there));
        }
        let spare: Vec<_> = there.difference(&allowed).collect();
        assert!(spare.is_empty(), "pinned for nothing: {spare:?}");

        // 6: an endpoint keeps its public one for as long as it is used, and through one exchange more.
        let all = self.own.doors(|_| false);
        for (public, inside) in if silent { &self.doors[0] } else { &doors } {
            let earlier = self.doors.iter().flatten().find(|(_, it)| *it == inside);
            assert_eq!(earlier.map_or(public, |(public, _)| public), public, "{inside} has moved");
        }
        self.doors.swap(0, 1);
        self.doors[0] = if silent { self.doors[1].clone() } else { all };
    }

    /// All is as it was. `forks_end`: doors that were kept for other answers only may have closed.
    pub(crate) fn assert_as(&self, before: &Kernel, kernel: &Kernel, forks_end: bool, when: &str) {
        let (mut expected, there) = (pins(before), pins(kernel));
        if self.own.flows(&self.far, true).is_empty() {
            expected.extend(self.begun(before, &there));
        }
        assert_eq!(there, expected, "{when}");
        assert_admitted(kernel);
        assert_eq!(kernel.expected, before.expected, "{when}");
        let mut expected = before.pinholes.clone();
        expected.retain(|public, inside| {
            let is_spare = self.forks.contains(&inside.0) && !self.named[0].contains(&inside.0);
            kernel.pinholes.contains_key(public) || !forks_end || !is_spare
        });
        assert_eq!(kernel.pinholes, expected, "{when}");
    }

    /// As long as nothing runs, what an offer has begun may stay: between a door that was there, and where the far end was.
    fn begun(&self, before: &Kernel, there: &BTreeSet<Flow>) -> Vec<Flow> {
        let known: Vec<_> = self.far.iter().flat_map(|it| &it.pairs).collect();
        let known = |far| known.iter().any(|(rtp, rtcp)| *rtp == far || *rtcp == Some(far));
        there.iter().filter(|it| before.pinholes.contains_key(&it.1) && known(it.2)).copied().collect()
    }

    fn assert_led(&self, doors: &BTreeMap<SocketAddr, SocketAddr>, kernel: &Kernel) {
        for (public, inside) in doors {
            let led = kernel.pinholes.get(public).map(|it| it.0);
            assert_eq!(led, Some(*inside), "{public} was announced for {inside}: {:?}", kernel.pinholes);
        }
    }
}
