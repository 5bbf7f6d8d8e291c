//! stub
pub mod command;
pub mod endpoint;
pub mod engine;
pub mod event;
pub mod io;
pub mod policy;
pub mod rewrite;
pub mod stats;
pub mod verdict;
pub use command::*;
pub use endpoint::*;
pub use engine::Engine;
pub use event::Event;
pub use io::*;
pub use policy::*;
pub use rewrite::{Edits, Rule};
pub use stats::{Sizes, Stats};
pub use verdict::{Action, Reason, Verdict};
