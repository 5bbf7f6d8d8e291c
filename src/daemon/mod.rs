//! The running gateway.

pub mod gate;
pub mod held;
pub mod log;
pub mod worker;
