//! Looks into the router from outside, with the administrator's own tools.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use super::netns::Namespace;
use super::stop::Stop;
use super::tool;

/// How long the last pinhole may outlive the last call.
const PATIENCE: Duration = Duration::from_secs(10);

/// What there is at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    /// Elements of sipalg's map of public endpoints: one for RTP and one for RTCP of each stream. `None`: no such map.
    pub(super) pinholes: Option<usize>,
    /// Entries of the router's conntrack table.
    pub(super) conntrack: Option<usize>,
}

/// Looks.
pub(super) fn look(router: &Namespace) -> Sample {
    let count = router.run(|| fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count"));
    Sample {
        pinholes: listing(router).map(|listed| elements(&listed)),
        conntrack: count.ok().and_then(|text| text.trim().parse().ok()),
    }
}

/// Looks until no pinhole is left, or it takes too long.
pub(super) fn wait_for_close(router: &Namespace, stop: &Stop) -> Sample {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let sample = look(router);
        if matches!(sample.pinholes, None | Some(0)) || stop.is_raised() || Instant::now() > deadline {
            return sample;
        }
        thread::sleep(Duration::from_millis(100));
    }
}

/// sipalg's map of public endpoints, as `nft` has it in JSON; `None` if there is none.
fn listing(router: &Namespace) -> Option<serde_json::Value> {
    let listed =
        tool::run(Some(router), "nft", &["-j", "list", "map", "inet", "sipalg", "inbound4"], "").ok()?;
    serde_json::from_str(&listed).ok()
}

fn elements(listed: &serde_json::Value) -> usize {
    let objects = listed.get("nftables").and_then(serde_json::Value::as_array);
    let map = objects.into_iter().flatten().find_map(|object| object.get("map"));
    map.and_then(|map| map.get("elem")?.as_array()).map_or(0, Vec::len)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_of_a_map_are_counted() {
        let empty = serde_json::json!({"nftables": [{"metainfo": {}}, {"map": {"name": "inbound4"}}]});
        assert_eq!(elements(&empty), 0);
        let two = serde_json::json!({"nftables": [{"metainfo": {}}, {"map": {"elem": [[1, 2], [3, 4]]}}]});
        assert_eq!(elements(&two), 2);
    }
}
