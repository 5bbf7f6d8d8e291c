//! How many cases a property is tried with.

use proptest::prelude::ProptestConfig;

/// That many, or as many as PROPTEST_CASES in the environment says. A failure is printed, and wants to become a test of its
/// own rather than a file of seeds.
pub(crate) fn cases(usual: u32) -> ProptestConfig {
    let asked = std::env::var("PROPTEST_CASES").ok().and_then(|cases| cases.parse().ok());
    ProptestConfig { cases: asked.unwrap_or(usual), failure_persistence: None, ..ProptestConfig::default() }
}
