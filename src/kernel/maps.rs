//! stub
use crate::alg::{Outside, Peer, Pinhole};
use std::time::Duration;

/// What the maps and sets of the table hold, each with the time that is left to it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Pinholes that are there in both directions.
    pub pinholes: Vec<(Pinhole, Duration)>,
    /// Public endpoints that only admitted peers may reach, quarantined ones included.
    pub owned: Vec<(Outside, Duration)>,
    /// Who may send.
    pub peers: Vec<(Peer, Duration)>,
}
