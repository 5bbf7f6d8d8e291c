//! A connection: two halves that translate for each other, and how far it has come.

use serde::{Deserialize, Serialize};

use super::half::{Extent, Half};
use crate::alg::command::{FlowKey, Line};
use crate::alg::endpoint::Outside;
use crate::alg::flow::Direction;
use crate::packet::{Numbers, Options, Segment, TooLarge};

/// Segments are made smaller by so much, so that they have room to grow.
const MARGIN: u16 = 128;
/// What is taken for the largest payload of an end that does not say: whatever path there is carries it.
const UNSAID: usize = 1220;

/// What a SYN says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opening {
    /// Its number.
    pub isn: u32,
    /// Largest payload that its sender takes.
    pub mss: Option<u16>,
    /// Shift of its sender's windows.
    pub window_scale: Option<u8>,
    /// The first window, not shifted.
    pub window: u16,
}

impl Opening {
    /// What this SYN says, with these options.
    pub fn new(segment: &Segment<'_>, options: &Options) -> Self {
        Self {
            isn: segment.sequence(),
            mss: options.mss,
            window_scale: options.window_scale,
            window: segment.window(),
        }
    }

    /// The MSS that is written instead.
    pub fn lowered(&self) -> Option<u16> {
        self.mss.map(|mss| mss - MARGIN.min(mss / 4))
    }

    fn room(&self) -> usize {
        self.mss.map_or(UNSAID, usize::from)
    }
}

/// How far a connection has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Stage {
    /// A SYN was seen.
    Opening(Opening),
    /// Both.
    Open,
    /// Both have finished, or one has ended it at once; late segments are still translated.
    Closed,
}

/// One connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// What the far end takes for the inside one; `None`: there is no NAT.
    pub public: Option<Outside>,
    /// How far it has come.
    pub stage: Stage,
    /// Who began.
    pub begun: Direction,
    /// From inside to outside.
    outbound: Half,
    /// From outside to inside.
    inbound: Half,
    /// Whether segments before conntrack are asked for.
    #[serde(skip)]
    pub following: Following,
    /// A SYN of a new connection between the same endpoints, which nobody has answered yet.
    #[serde(skip)]
    pub reopening: Option<(Direction, Opening)>,
    /// What has been counted of it.
    #[serde(skip)]
    pub counted: Load,
    /// Whether anything has passed since its lifetime was last renewed.
    pub active: bool,
}

/// What is kept for somebody.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Bytes of streams.
    pub bytes: usize,
    /// Segments without a verdict.
    pub held: usize,
}

/// Whether segments from outside come to us before conntrack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Following {
    /// Not yet.
    No,
    /// It has been asked for.
    Asked(crate::alg::CommandId),
    /// They do. (A connection that was kept from another process is followed.)
    #[default]
    Yes,
}

impl Connection {
    /// A connection whose SYN went in this direction.
    pub fn begun(direction: Direction, opening: Opening, public: Option<Outside>) -> Self {
        let unknown = Half::new(0, UNSAID, 0, 0);
        Self {
            public,
            stage: Stage::Opening(opening),
            begun: direction,
            outbound: unknown.clone(),
            inbound: unknown,
            following: if public.is_some() { Following::No } else { Following::Yes },
            reopening: None,
            counted: Load::default(),
            active: true,
        }
    }

    /// Whether a SYN in this direction is the one that began it.
    pub fn repeats(&self, direction: Direction, opening: &Opening) -> bool {
        let isn = match self.stage {
            Stage::Opening(first) => first.isn,
            Stage::Open | Stage::Closed => self.half(self.begun).isn(),
        };
        self.begun == direction && isn == opening.isn
    }

    /// The SYN in the other direction has come: from here on there are streams.
    pub fn answered(&mut self, answer: Opening) {
        let Stage::Opening(opening) = self.stage else { return };
        let both = opening.window_scale.is_some() && answer.window_scale.is_some();
        let shift = |of: &Opening| if both { of.window_scale.unwrap_or(0) } else { 0 };
        // Each half is about its sender's numbers, and its receiver's room.
        let forth = Half::new(opening.isn, answer.room(), answer.window, shift(&answer));
        let back = Half::new(answer.isn, opening.room(), opening.window, shift(&opening));
        *self.half_mut(self.begun) = forth;
        *self.half_mut(reverse(self.begun)) = back;
        self.stage = Stage::Open;
    }

    /// The stream in this direction.
    pub fn half(&self, direction: Direction) -> &Half {
        match direction {
            Direction::Outbound => &self.outbound,
            Direction::Inbound => &self.inbound,
        }
    }

    /// The stream in this direction, to be changed.
    pub fn half_mut(&mut self, direction: Direction) -> &mut Half {
        match direction {
            Direction::Outbound => &mut self.outbound,
            Direction::Inbound => &mut self.inbound,
        }
    }

    /// Its name for the kernel, if there is a NAT.
    pub fn line(&self, key: &FlowKey) -> Option<Line> {
        self.public.map(|public| Line { inside: key.inside, far: key.far, public })
    }

    /// What another process has to know of it.
    pub fn at_rest(&self) -> Self {
        let mut copy =
            Self { following: Following::Yes, reopening: None, counted: Load::default(), ..self.clone() };
        copy.outbound.rest();
        copy.inbound.rest();
        copy
    }

    /// What is kept for it.
    pub fn load(&self) -> Load {
        let halves = [&self.outbound, &self.inbound];
        Load {
            bytes: halves.iter().map(|half| half.bytes()).sum(),
            held: halves.iter().map(|half| half.held()).sum(),
        }
    }

    /// Whether it was let go before anything was changed in either direction, and nothing is kept.
    pub fn is_needless(&self) -> bool {
        [&self.outbound, &self.inbound].iter().all(|half| {
            !half.is_inspected() && half.is_untouched() && half.is_within_window() && half.held() == 0
        })
    }

    /// Whether it goes on, and its ends take it for longer or shorter than the other has made it.
    pub fn is_translated(&self) -> bool {
        self.stage != Stage::Closed && !(self.outbound.is_untouched() && self.inbound.is_untouched())
    }

    /// Whether both ends have sent all that they had, and know that it has arrived.
    pub fn is_finished(&self) -> bool {
        self.outbound.is_finished() && self.inbound.is_finished()
    }

    /// The place of a segment in its stream.
    pub fn extent(&self, segment: &Segment<'_>, direction: Direction) -> Extent {
        self.half(direction).extent(segment.sequence(), segment.payload().len(), segment.fin())
    }

    /// Takes in what a segment in this direction acknowledges.
    pub fn acknowledge(&mut self, segment: &Segment<'_>, direction: Direction) {
        if let Some(number) = segment.acknowledgment() {
            // A block before the number tells of something that came twice (RFC 2883).
            let behind = |(left, _): (u32, u32)| i32::try_from(left.wrapping_sub(number)).ok();
            let gap = segment.sack().into_iter().filter_map(behind).filter(|gap| *gap > 0).min();
            let gap = gap.map(i32::unsigned_abs);
            self.half_mut(reverse(direction)).acknowledge(number, segment.window(), segment.is_bare(), gap);
        }
    }

    /// Writes `segment` as the other end is to get it; a [probe](Connection::probe) if that end has had all of it long
    /// since. `room`: what its way takes of payload.
    ///
    /// # Errors
    /// [`TooLarge`]: it cannot be sent, or not all of it is known any more.
    pub fn forward(
        &mut self,
        segment: &Segment<'_>,
        extent: Extent,
        direction: Direction,
        room: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        let options = segment.options_length();
        let half = self.half_mut(direction);
        let Some(load) = half.load(extent, options, room) else {
            return self.probe(segment, direction, out);
        };
        let (sequence, stamp) = (half.wire_number(load, extent.fin), half.restamp(segment.stamp()));
        let half = self.half(direction);
        let write = |out: &mut Vec<u8>| half.image(load, extent, segment.payload(), out);
        self.write(segment, direction, (sequence, stamp), load.whole, write, out)?;
        // Rather no segment than one with other bytes in its place.
        let is_all = out.len() - segment.headers() == half.wire_length(load);
        debug_assert!(is_all, "bytes that nobody has any more");
        if is_all { Ok(()) } else { Err(TooLarge) }
    }

    /// Writes, in place of `segment`, a segment that its receiver has to answer and that tells it nothing new but what
    /// `segment` acknowledges.
    ///
    /// # Errors
    /// [`TooLarge`], never for a segment that was valid.
    pub fn probe(
        &mut self,
        segment: &Segment<'_>,
        direction: Direction,
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        let half = self.half_mut(direction);
        let ((sequence, byte), stamp) = (half.probe(), half.restamp(segment.stamp()));
        let write = |out: &mut Vec<u8>| out.extend(byte);
        self.write(segment, direction, (sequence, stamp), false, write, out)
    }

    fn write(
        &self,
        segment: &Segment<'_>,
        direction: Direction,
        (sequence, stamp): (u32, Option<u32>),
        keep_end: bool,
        write: impl FnOnce(&mut Vec<u8>),
        out: &mut Vec<u8>,
    ) -> Result<(), TooLarge> {
        let other = self.half(reverse(direction));
        let said = |number| other.acknowledgment(number, !segment.is_bare());
        let (acknowledgment, window) = segment.acknowledgment().map_or((0, None), said);
        let numbers = Numbers { sequence, acknowledgment, window, stamp, keep_end };
        let mut is_left = false;
        let mut edge = |number| {
            is_left = !is_left;
            other.edge(number, is_left)
        };
        // What was acknowledged beyond the segment's word contradicts what it says it lacks.
        segment.rebuild(numbers, if window.is_some() { None } else { Some(&mut edge) }, write, out)
    }
}

/// The other direction.
pub fn reverse(direction: Direction) -> Direction {
    match direction {
        Direction::Outbound => Direction::Inbound,
        Direction::Inbound => Direction::Outbound,
    }
}
