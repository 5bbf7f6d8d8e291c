//! The router's own rules, as an administrator may have written them before sipalg came.
//!
//! Nothing in them knows of SIP or of sipalg. They hold what ALGs are known to trip over: source ports that the NAT
//! picks at random, one phone whose way out depends on its packet mark, and a firewall that lets in only what it
//! takes for an answer.

/// The phone (last octet of its address) that may go out only by its mark.
pub(super) const MARKED_PHONE: u8 = 19;
/// Where the marked phone's flows leave: shows that the mark was there at the NAT.
pub(super) const MARKED_PORTS: std::ops::RangeInclusive<u16> = 61000..=61999;
/// The routing table that marked packets use.
pub(super) const MARKED_TABLE: u16 = 102;

/// For `nft -f`. Interfaces: `lan0` inside, `wan0` outside.
pub(super) fn administrators() -> String {
    let (first, last) = (MARKED_PORTS.start(), MARKED_PORTS.end());
    format!(
        "table inet office {{
	chain mark_voice {{
		type filter hook prerouting priority mangle; policy accept;
		iifname \"lan0\" ip saddr 192.168.1.{MARKED_PHONE} meta mark set 0x2
	}}
	chain input {{
		type filter hook input priority filter; policy drop;
		iifname \"lo\" accept
		ct state established,related accept
	}}
	chain forward {{
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		meta mark 0x2 accept
		iifname \"lan0\" oifname \"wan0\" ip saddr != 192.168.1.{MARKED_PHONE} accept
	}}
	chain postrouting {{
		type nat hook postrouting priority srcnat; policy accept;
		oifname \"wan0\" meta mark 0x2 meta l4proto udp masquerade to :{first}-{last} random
		oifname \"wan0\" masquerade random
	}}
}}
"
    )
}
