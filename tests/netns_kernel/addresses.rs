//! Addresses of the router that go, heard or not.

use super::*;

fn gone(events: &mut Events) -> Vec<IpAddr> {
    let mut gone = Vec::new();
    let sink = &mut |event| {
        if let KernelEvent::AddressGone(address) = event {
            gone.push(address);
        }
    };
    events.drain(sink).expect("the socket works");
    gone
}

/// How many messages the sockets of the namespace had no room for.
fn dropped(router: &Netns) -> u64 {
    let sockets = router.enter(|| std::fs::read_to_string("/proc/thread-self/net/netlink")).unwrap();
    let drops = |line: &str| line.split_whitespace().nth(8).unwrap().parse::<u64>().unwrap();
    sockets.lines().skip(1).map(drops).sum()
}

#[test]
fn an_address_that_goes_unheard_in_a_storm_of_changes_is_missed_all_the_same() {
    let network = Network::new();
    let router = &network.router;
    let kernel = network.kernel();
    let mut events = router.enter(|| Events::open(&kernel)).unwrap();
    // More than the queue of the socket holds, which nobody reads meanwhile.
    let storm = "address add 198.51.100.7/32 dev lan\naddress del 198.51.100.7/32 dev lan\n".repeat(2000);
    let batch = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(batch.path(), storm).unwrap();
    for _ in 0..50 {
        router.run(&format!("ip -batch {}", batch.path().display()));
        if dropped(router) > 0 {
            break;
        }
    }
    assert!(dropped(router) > 0, "the queue never ran over");
    router.run("ip address del 203.0.113.1/24 dev wan");
    assert_eq!(gone(&mut events), ["198.51.100.7", "203.0.113.1"].map(|it| it.parse::<IpAddr>().unwrap()));
    // What came meanwhile is known, and its end is heard as ever.
    router.run("ip address add 203.0.113.77/24 dev wan");
    assert_eq!(gone(&mut events), [] as [IpAddr; 0]);
    router.run("ip address del 203.0.113.77/24 dev wan");
    assert_eq!(gone(&mut events), [IpAddr::from([203, 0, 113, 77])]);
}
