//! stub
use super::*;
use std::time::Instant;
/// The engine.
#[derive(Debug)]
pub struct Engine {}
impl Engine {
    /// An engine with these settings.
    pub fn new(policy: Policy) -> Self {
        let _ = policy;
        todo!()
    }
    /// Takes one input. Drain [`Engine::poll_output`] before the next one.
    pub fn handle(&mut self, now: Instant, input: Input<'_>) {
        let _ = (now, input);
        todo!()
    }
    /// The next thing to do, first in, first out.
    pub fn poll_output(&mut self) -> Option<Output<'_>> {
        todo!()
    }
    /// When to call `handle` with [`Input::Timeout`] at the latest.
    pub fn poll_timeout(&self) -> Option<Instant> {
        todo!()
    }
    /// counters
    pub fn stats(&self) -> &Stats {
        todo!()
    }
    /// table sizes
    pub fn sizes(&self) -> Sizes {
        todo!()
    }
}
