#!/bin/sh
# What a station of compose.yml does: "provider", or "phone ROUTER PROVIDER".
set -eu
cd /tmp
case $1 in
provider)
    exec sipp -sf /station/provider.xml -i "$(hostname -i)" -rtp_echo -nostdin -trace_err -error_file /dev/stderr
    ;;
phone)
    ip route replace default via "$2"
    # Half a second of silence in G.711, again and again.
    head -c 4000 /dev/zero | tr '\0' '\377' >silence.pcmu
    # The default Call-ID has an address in it, which is nobody's to change. The first INVITE may be sent before the router is
    # there; SIP repeats it.
    exec sipp -sf /station/phone.xml -cid_str "%u-%p" -i "$(hostname -i)" -m 10 -r 1 -rp 2000 -nostdin -trace_err \
        -error_file /dev/stderr "$3:5060"
    ;;
*)
    echo "usage: provider | phone ROUTER PROVIDER" >&2
    exit 2
    ;;
esac
