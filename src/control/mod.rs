//! How other programs ask a running gateway: a Unix socket, one line of JSON in, one line out.
//!
//! [`protocol`] is what may be asked and what comes back, [`path`] where the socket is, [`server`] the gateway's side
//! and [`client`] that of the `sipalg` command. Whatever is asked is answered by who starts the server; nothing here knows
//! the engine. The protocol has a version, and so does every line of it: a program of another version is told so.

pub mod client;
pub mod path;
pub mod protocol;
pub mod server;
