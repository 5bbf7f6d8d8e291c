//! What the tests in `netns_clients.rs` are made of. Nothing here knows how sipalg works inside.

pub(crate) mod baresip;
pub(crate) mod capture;
pub(crate) mod enter;
pub(crate) mod gateway;
pub(crate) mod kamailio;
pub(crate) mod kernel;
pub(crate) mod net;
#[path = "../common/notices.rs"]
pub(crate) mod notices;
pub(crate) mod party;
pub(crate) mod proc;
pub(crate) mod rtp;
pub(crate) mod sipp;
pub(crate) mod tone;
pub(crate) mod wait;
pub(crate) mod world;

mod calls;
mod connections;
mod life;
mod media;
mod rulesets;
mod sent_by;
mod stun;
mod upkeep;
mod voices;
mod ways;
