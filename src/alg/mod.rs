//! The engine: what to do with a packet, and what to ask of the kernel for it.
//!
//! Pure: bytes and the time in, verdicts, edits and commands out. No sockets, files, clocks, randomness or locks; the
//! same inputs give the same outputs. It can be driven by the kernel, a capture, a test or a fuzzer.
//!
//! # The contract
//!
//! 1. [`Engine::handle`] takes one [`Input`] and the time.
//! 2. [`Engine::poll_output`] is drained, first in, first out. Only then comes the next input.
//! 3. A [`Command`] is carried out, now or later, and answered with [`Input::CommandDone`].
//! 4. Every packet gets exactly one [`Verdict`]. If it has to wait for commands it gets none at first; when they are
//!    done, [`Output::Again`] asks for the same packet once more. So **handling is idempotent**: a packet that is
//!    handled twice, like a retransmission, changes nothing and is rewritten to the same bytes.
//! 5. [`Engine::poll_timeout`] tells when to call with [`Input::Timeout`], whatever else happens: other inputs bring the
//!    tables up to their time, but what has to be renewed in the kernel waits for this one.
//!
//! Everything that the peer may rely on is in the kernel before the message that announces it is released.
//!
//! # Where to read on
//!
//! The vocabulary first ([`io`], [`command`], [`verdict`], [`event`]), then [`engine`], which does little itself:
//! [`flow`] and [`learning`] know the NAT, [`envelope`] and [`transaction`] know who is talking, [`call`],
//! [`registration`] and [`binding`] hold what lives on, [`rewrite`] makes the edits, [`guard`] says no.

pub mod binding;
pub mod call;
pub mod call_names;
pub mod command;
pub mod endpoint;
pub mod engine;
pub mod envelope;
pub mod event;
pub mod flow;
pub mod guard;
pub mod io;
pub mod key;
pub mod learning;
pub mod names;
pub mod parking;
pub mod policy;
pub mod ports;
pub mod registration;
pub mod rewrite;
pub mod shares;
pub mod state;
pub mod stats;
pub mod tcp;
pub mod transaction;
pub mod verdict;
pub mod views;

pub use command::*;
pub use endpoint::*;
pub use engine::Engine;
pub use event::Event;
pub use io::*;
pub use policy::*;
pub use rewrite::{Edits, Rule};
pub use state::{Held, State};
pub use stats::{Sizes, Stats};
pub use verdict::{Action, Reason, Verdict};
