//! stub guided tour
pub mod alg;
pub mod edit;
pub mod expiring;
pub mod lab;
pub mod netlink;
pub mod packet;
pub mod sdp;
pub mod sip;
pub mod span;
