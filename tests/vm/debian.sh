#!/bin/sh
# Makes the smallest Debian of this machine's own release that systemd boots, for packages and containers to be tried in.
#
#   tests/vm/debian.sh target/vm       prints the archive (cpio) of it; needs root, for debootstrap
#
# This machine's release, because programs that are built here need its libraries. Made once and kept. It is fetched from
# the machine's own mirror, unless MIRROR= names another. Whoever asks while it is being made waits.
set -eu
store=$(realpath "$1")
here=$(realpath "$(dirname "$0")")
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
archive=$store/debian-$release.cpio

exec 8>"$store/debian.lock"
flock 8
if [ ! -s "$archive" ]; then
    MIRROR=${MIRROR:-$("$here/mirror.sh" "$store")}
    [ "$(id -u)" = 0 ] || { echo "debootstrap needs root" >&2; exit 1; }
    system=$store/debian-$release
    make_system() {
        rm -rf "$system"
        debootstrap --variant=minbase \
            --include=systemd,systemd-sysv,kmod,nftables,libmnl0,libnftnl11,libnftables1,iproute2 \
            "$release" "$system" "$MIRROR" >"$store/debootstrap.log" 2>&1 || {
            tail -n 20 "$store/debootstrap.log" >&2
            return 1
        }
    }
    # Mirrors fail now and then.
    make_system || { sleep 15; make_system; }
    # What only takes memory.
    rm -rf "$system"/var/cache/apt/* "$system"/var/lib/apt/lists/* "$system"/usr/share/doc/* "$system"/usr/share/locale/* \
        "$system"/usr/share/man/* "$system"/usr/share/i18n
    ln -sf /lib/systemd/systemd "$system/init"
    echo sipalg-test >"$system/etc/hostname"
    # Nobody logs in.
    ln -sf /dev/null "$system/etc/systemd/system/getty.target"
    ln -sf /dev/null "$system/etc/systemd/system/serial-getty@ttyS0.service"
    (cd "$system" && find . -print0 | cpio --null --create --format=newc --quiet) >"$archive.new"
    rm -rf "$system"
    # The whole of it, or nothing.
    mv "$archive.new" "$archive"
fi
echo "$archive"
