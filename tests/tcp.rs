//! SIP over TCP through the engine, between two strict model TCPs.
//!
//! What must hold whatever the wires do: each end receives exactly the rewritten messages of the other, is never told that
//! something has arrived which it did not send, never gets a byte that differs from one that it had, and everything
//! comes to its end.

#![allow(clippy::unwrap_used)] // also in helpers, which are no tests to clippy
#![allow(dead_code, unreachable_pub)] // each test uses its own part

#[path = "tcp/bounds.rs"]
mod bounds;
#[path = "tcp/bytes.rs"]
mod bytes;
#[path = "tcp/connections.rs"]
mod connections;
#[path = "tcp/endpoint.rs"]
mod endpoint;
#[path = "tcp/hand.rs"]
mod hand;
#[path = "tcp/holding.rs"]
mod holding;
#[path = "tcp/messages.rs"]
mod messages;
#[path = "tcp/properties.rs"]
mod properties;
#[path = "tcp/reading.rs"]
mod reading;
#[path = "tcp/scenes.rs"]
mod scenes;
#[path = "tcp/world.rs"]
mod world;
