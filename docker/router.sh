#!/bin/sh
# The router of compose.yml: what stands in a router's own /etc/nftables.conf, and then sipalg.
set -eu
nft -f - <<'RULES'
table inet filter {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ip saddr 192.168.77.0/24 accept
	}
}
table ip nat {
	chain postrouting {
		type nat hook postrouting priority srcnat;
		ip saddr 192.168.77.0/24 ip daddr != 192.168.77.0/24 masquerade random
	}
}
RULES
exec /usr/sbin/sipalg run
