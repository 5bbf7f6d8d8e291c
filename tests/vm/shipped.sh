#!/bin/sh
# In the guest, in its first network namespace, as on a router: what `sipalg check` finds on a kernel of Debian, and
# nft-rules/sipalg.nft as it is shipped: loaded by nft, included, loaded over itself, flushed, removed.
set -eu

fail() {
    echo "$*" >&2
    echo "--- ruleset:" >&2
    nft list ruleset >&2
    cat /tmp/sipalg.log >&2 2>/dev/null || true
    exit 1
}

SHIPPED=/usr/share/sipalg/sipalg.nft
BEFORE=/tmp/before

# `sipalg check` has a line with these words.
finds() {
    sipalg check >/tmp/check || { cat /tmp/check; fail "sipalg check: a problem"; }
    grep -q "^$1" /tmp/check || { cat /tmp/check; fail "sipalg check does not say: $1"; }
}

# Every queue point has its one rule, in nft's own words, and nothing else. Where a new flow is learned in one trip
# ($1: one), its first packet is accepted in front of the NAT. What belongs to a connection never bypasses.
is_native() {
    for point in q_sip:5060 q_new:5061 q_syn:5061 q_learn:5062 q_latch:5063 q_tcp:5064 q_followed:5064 \
        q_followed_in:5065; do
        rules=$(nft -s list chain inet sipalg "${point%:*}" 2>/dev/null | sed -n 's/^\t\t//p')
        case $1:$point in
        one:q_new:*) [ "$rules" = accept ] || return 1 ;;
        *:q_followed*) [ "$rules" = "queue to ${point#*:}" ] || return 1 ;;
        *) [ "$rules" = "queue flags bypass to ${point#*:}" ] || return 1 ;;
        esac
    done
}

await() {
    for _ in $(seq 600); do
        "$@" && return
        sleep 0.1
    done
    fail "waited in vain: $*"
}

# With $1 trips.
start() {
    config=/tmp/$1.toml
    echo >"$config"
    [ "$1" = one ] || printf '[queue]\nconntrack = false\n' >"$config"
    sipalg run --config "$config" 2>/tmp/sipalg.log &
    daemon=$!
    await grep -q ' ready ' /tmp/sipalg.log
    is_native "$1" || fail "sipalg is ready without native queue rules"
}

stop() {
    kill "$daemon"
    wait "$daemon" || fail "sipalg ended with $?"
}

same_as_before() {
    nft -s list ruleset >/tmp/after
    [ "$(cat /tmp/after)" = "$(cat $BEFORE)" ] || fail "a trace is left"
}

# What the kernel has. Nothing is loaded yet: whatever is needed comes by modprobe.
sysctl -qw net.ipv4.ip_forward=1
finds 'ok  *ruleset'
finds "ok  *queue  *nft's queue statement"
finds 'ok  *queue-conntrack  *queued packets can come with .* one trip'
finds 'ok  *cthelper  *helpers in user space are possible'
finds 'ok  *flowtable  *none'
finds 'ok  *admission  *expectation: '

# A flowtable hides flows from every ALG: it is named.
ip link add lan0 type veth peer name lan1
flowtable() {
    nft -f - <<'RULES'
table inet fast {
	flowtable lane { hook ingress priority 0; devices = { lan0, lan1 }; }
	chain forward { type filter hook forward priority filter; ip protocol { tcp, udp } flow add @lane; }
}
RULES
}
flowtable
finds 'note  *flowtable  *.*inet fast lane'
nft delete table inet fast

# The administrator's file, without and with ours.
cat >/etc/nftables.conf <<'RULES'
#!/usr/sbin/nft -f
flush ruleset
table inet filter {
	chain input { type filter hook input priority filter; policy drop; ct state established,related accept; }
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		iifname "lan0" accept
	}
}
table ip nat {
	chain postrouting { type nat hook postrouting priority srcnat; oifname "lan1" masquerade; }
}
RULES
nft -f /etc/nftables.conf
nft -s list ruleset >$BEFORE
echo "include \"$SHIPPED\"" >>/etc/nftables.conf
nft -f /etc/nftables.conf
! is_native one || fail "the file as shipped leaves its queue points empty"
start one
nft list chain inet sipalg about | grep -q '"sipalg ruleset 3"$' || fail "the included table was replaced"

# Elements and timeouts outlive a load over itself; the daemon puts its rules in again.
nft add element inet sipalg owned4 '{ udp . 203.0.113.1 . 16384 timeout 1h }'
nft -f $SHIPPED
await is_native one
nft list set inet sipalg owned4 | grep -q '203.0.113.1 . 16384 timeout 1h expires' || fail "an element is lost"
# `systemctl reload nftables`: everything is flushed first.
nft -f /etc/nftables.conf
await is_native one

# A flowtable that comes while calls run is named in the log, and so is one that was there before.
flowtable
await grep -q 'WARN .*flowtable inet fast lane.*keep SIP out of it' /tmp/sipalg.log
stop
start one
await grep -q 'flowtable: .*inet fast lane' /tmp/sipalg.log
nft delete table inet fast

# Without the daemon the table stays; then nothing does.
stop
is_native one || fail "the ruleset must stay"
sipalg unload
same_as_before

# The file's own queue rules, for those who take the comment signs away.
sed 's/# queue \(flags bypass\|to [0-9]\)/queue \1/' $SHIPPED >/tmp/uncommented.nft
nft -f /tmp/uncommented.nft
is_native two || fail "the file's queue rules are others than the daemon's"
start two
stop
sipalg unload
same_as_before

# The daemon's own copy, with nothing loaded before.
nft flush ruleset
nft -s list ruleset >$BEFORE
start one
nft list chain inet sipalg about | grep -q 'loaded by the daemon' || fail "somebody else loaded it"
nft flush ruleset
await is_native one
stop
sipalg unload
same_as_before
