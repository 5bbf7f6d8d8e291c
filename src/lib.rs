//! sipalg: guided tour to come.
pub mod alg;
pub mod cli;
pub mod config;
pub mod edit;
pub mod expiring;
pub mod netlink;
pub mod packet;
pub mod sdp;
pub mod sip;
pub mod span;
