//! stub guided tour
pub mod alg;
pub mod daemon;
pub mod edit;
pub mod expiring;
pub mod ip_text;
pub mod kernel;
pub mod netlink;
pub mod packet;
pub mod queue;
pub mod sdp;
pub mod sip;
pub mod span;
