//! What the router's kernel holds, asked with the administrator's own tools.

use super::net::Namespace;

/// The tables that grow with calls: maps and sets of `inet sipalg`.
const TABLES: [(&str, &str); 4] =
    [("map", "inbound4"), ("map", "outbound4"), ("set", "owned4"), ("set", "peers4")];

/// How many elements each of sipalg's tables has.
pub(crate) fn elements(router: &Namespace) -> Vec<(&'static str, usize)> {
    let count = |(kind, name): (&'static str, &'static str)| {
        let listing = router.run("nft", ["-j", "list", kind, "inet", "sipalg", name]);
        let listing: serde_json::Value = serde_json::from_str(&listing).expect("nft -j prints JSON");
        let table =
            listing["nftables"].as_array().and_then(|list| list.iter().find_map(|entry| entry.get(kind)));
        let table = table.unwrap_or_else(|| panic!("{name} in {listing}"));
        (name, table["elem"].as_array().map_or(0, Vec::len))
    };
    TABLES.into_iter().map(count).collect()
}

/// How many packets of media were refused because nobody had negotiated their source.
pub(crate) fn refused_media(router: &Namespace) -> u64 {
    let chain = router.run("nft", ["list", "chain", "inet", "sipalg", "guard"]);
    let rule = chain.lines().find(|line| line.contains("@owned4")).expect("the guard looks at owned4");
    let mut words = rule.split_whitespace().skip_while(|&word| word != "packets").skip(1);
    words.next().and_then(|count| count.parse().ok()).unwrap_or_else(|| panic!("a counter in {rule}"))
}

/// The conntrack entries of media: UDP, neither side on the port of SIP.
pub(crate) fn media_entries(router: &Namespace) -> Vec<String> {
    let listing = router.run("conntrack", ["-L", "-p", "udp"]);
    let is_media = |line: &&str| !line.contains(" dport=5060 ") && !line.contains(" sport=5060 ");
    listing.lines().filter(is_media).map(str::to_owned).collect()
}

/// The whole ruleset, as nft lists it.
pub(crate) fn ruleset(router: &Namespace) -> String {
    router.run("nft", ["list", "ruleset"])
}

/// How many rules send packets to a queue.
pub(crate) fn queue_rules(router: &Namespace) -> usize {
    ruleset(router).lines().filter(|line| line.contains("queue ")).count()
}
