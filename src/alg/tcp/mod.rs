//! SIP over TCP: messages are rewritten in the stream that is forwarded. There is no connection of our own.
//!
//! Each direction of a connection is a [`half::Half`]: what its sender sends is put together again, read message by message
//! from the first byte on ([`frame`]), and each segment goes on as the wire form of its own bytes ([`map`]). All numbers
//! are translated on the way: sequence, acknowledgment, selective acknowledgments. Conntrack counts with the inside end:
//! what comes from outside is translated before conntrack sees it, what leaves after.
//!
//! Security: rules S1 and S2 of [`super::guard`] are kept here. A connection that is not known from its SYN is not touched,
//! one that says anything but SIP is let go for ever, and so is one that sends a byte twice and not the same. No port is
//! ever opened for a TCP connection (S7): whoever calls a phone uses the connection that it has made.
//!
//! What this module does not do: it gives no verdicts and knows no messages; see `engine::tcp`.

pub mod buffer;
pub mod connection;
pub mod frame;
pub mod half;
pub mod map;

pub use connection::{Connection, Opening, Stage};
pub use half::{Extent, Half, Load, News};
