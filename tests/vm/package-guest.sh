#!/bin/sh
# In the guest of package.sh, started by systemd when everything else is up: what an administrator does with the package.
#
# Each line for the other side of the console begins with "vm: "; the last one is "vm: end N", N the number of steps that
# failed: the first that fails is the last.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root LC_ALL=C DEBIAN_FRONTEND=noninteractive

end() {
    echo "vm: end $1"
    sync
    echo b >/proc/sysrq-trigger
    sleep 60
}

fail() {
    echo "--- $*"
    systemctl status --no-pager -l sipalg
    journalctl --no-pager -n 60
    nft list tables
    echo "vm: FAILED  $step: $*"
    end 1
}

# A step has to say what it is before it is done.
begin() {
    [ -z "${step-}" ] || echo "vm: ok      $step"
    step=$1
}

await() {
    for _ in $(seq 600); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "waited in vain: $*"
}

says() {
    journalctl --no-pager -o cat -u sipalg | grep -qF "$1"
}

property() {
    systemctl show -P "$1" sipalg
}

# Files of ours that are anywhere but where they came from and in the log.
traces() {
    find / -xdev \( -path /root -o -path /proc -o -path /sys -o -path /var/log -o -path /run/log \) -prune -o \
        -name '*sipalg*' -print | sort
}

echo "vm: kernel $(uname -r), ready after $(sed 's/ .*//' /proc/uptime) s"

begin "installed, it runs at once"
[ -z "$(traces)" ] || fail "there is something already: $(traces)"
dpkg -i /root/packages/old.deb || fail "dpkg"
await systemctl is-active -q sipalg
systemctl is-enabled -q sipalg || fail "it will not be there after a reboot"
await says ready
nft list chain inet sipalg q_sip | grep -q "queue flags bypass to 5060" || fail "no rule"
sipalg check || fail "sipalg check: $?"
sipalg status || fail "sipalg status: $?"

begin "as its own user, with one capability, confined"
pid=$(property MainPID)
[ "$(sed -n 's/^Uid:\t//p' "/proc/$pid/status")" = "$(printf '%s\t%s\t%s\t%s' $(for _ in 1 2 3 4; do id -u sipalg; done))" ] ||
    fail "another user: $(cat "/proc/$pid/status")"
for line in CapEff:0000000000001000 CapPrm:0000000000001000 CapBnd:0000000000001000 CapInh:0000000000000000 \
    CapAmb:0000000000000000 NoNewPrivs:1 Seccomp:2; do
    tr -d '\t' <"/proc/$pid/status" | grep -qx "$line" || fail "not $line: $(cat "/proc/$pid/status")"
done
says 'confined' || fail "it does not say so"
[ "$(stat -c '%U %a' /var/lib/sipalg /run/sipalg)" = "sipalg 700
sipalg 700" ] || fail "directories: $(stat -c '%U %a' /var/lib/sipalg /run/sipalg)"
exposure=$(systemd-analyze security --no-pager sipalg | sed -n 's/.*exposure level.*: \([0-9]*\)\.\([0-9]\).*/\1\2/p')
[ "$exposure" -le 20 ] || fail "systemd finds it exposed: $exposure"

begin "its pages, its completions, its documentation"
for file in man/man8/sipalg.8.gz man/man8/sipalg-run.8.gz man/man8/sipalg-explain.8.gz sipalg/sipalg.nft \
    bash-completion/completions/sipalg zsh/vendor-completions/_sipalg fish/vendor_completions.d/sipalg.fish \
    doc/sipalg/copyright doc/sipalg/README.md; do
    dpkg -L sipalg | grep -qx "/usr/share/$file" || fail "no $file: $(dpkg -L sipalg)"
done
zgrep -q '^======== nftnl ' /usr/share/doc/sipalg/licences* || fail "the licences of the libraries are not there"
nft -c -f /usr/share/sipalg/sipalg.nft || fail "the ruleset as shipped can't be loaded"

begin "a new configuration, a flushed ruleset, the watchdog"
sed -i 's/^# ports = \[5060\]$/ports = [5060, 5070]/' /etc/sipalg/sipalg.toml
systemctl reload sipalg || fail "reload"
await says 'the configuration was read again'
nft list set inet sipalg sip_udp | grep -q 5070 || fail "not taken over"
nft flush ruleset
await says 'is mended'
nft list chain inet sipalg q_sip | grep -q "queue flags bypass to 5060" || fail "not mended"
[ "$(property WatchdogUSec)" = 30s ] || fail "no watchdog"
first=$(property WatchdogTimestampMonotonic)
later() { [ "$(property WatchdogTimestampMonotonic)" -gt "$first" ]; }
await later
[ "$(cat /proc/sys/net/netfilter/nf_conntrack_acct)" = 1 ] || fail "conntrack does not count"

begin "upgraded, it takes over from itself"
nft add element inet sipalg owned4 '{ udp . 203.0.113.1 . 16384 timeout 1h }' || fail "no element"
dpkg -i /root/packages/new.deb || fail "dpkg"
await systemctl is-active -q sipalg
[ "$(property MainPID)" != "$pid" ] || fail "the old one still runs"
[ "$(property NRestarts)" = 0 ] || fail "it did not start at once"
grep -q 5070 /etc/sipalg/sipalg.toml || fail "the administrator's settings are lost"
nft list set inet sipalg sip_udp | grep -q 5070 || fail "the table is not the same"
[ "$(stat -c '%U %a' /var/lib/sipalg/state)" = "sipalg 600" ] || fail "no state was written"
journalctl --no-pager -o cat -u sipalg | grep -i 'denied\|not permitted' && fail "something is denied that it needs"

begin "killed, it comes back"
pid=$(property MainPID)
kill -9 "$pid"
back() { [ "$(property MainPID)" != "$pid" ] && [ "$(property MainPID)" != 0 ] && systemctl is-active -q sipalg; }
await back

begin "removed, nothing of it is in the kernel"
dpkg -r sipalg || fail "dpkg"
! nft list table inet sipalg 2>/dev/null || fail "the table is left"
! systemctl is-active -q sipalg || fail "it still runs"
[ -e /etc/sipalg/sipalg.toml ] || fail "the settings are gone before they were purged"

begin "purged, there is no trace"
dpkg -P sipalg || fail "dpkg"
[ -z "$(traces)" ] || fail "left: $(traces)"
[ "$(systemctl --failed --no-legend | wc -l)" = 0 ] || fail "failed: $(systemctl --failed --no-legend)"

begin "installed again"
dpkg -i /root/packages/new.deb || fail "dpkg"
await systemctl is-active -q sipalg
await says ready
echo "vm: ok      $step"
end 0
