#!/bin/sh
# The Debian package in a whole Debian system: installed, started, used, upgraded, removed and purged.
#
#   tests/vm/package.sh [SERIES]       as `make test-package`, after `make deb`; needs root for debootstrap
#
# The system is debian.sh's, the smallest that systemd boots. It runs from memory, on Debian's kernel of the SERIES, in
# qemu, as the machines of run.sh. package-guest.sh is what happens inside; its words on the serial console decide.
set -eu
cd "$(dirname "$0")/../.."
series=${1:-6.1}
here=tests/vm store=target/vm
LIMIT=900 # seconds, far above what it takes

need() {
    command -v "$1" >/dev/null || { echo "$1 is not installed: .ci/deps package" >&2; exit 1; }
}
for tool in qemu-system-x86_64 cpio debootstrap depmod dpkg-deb timeout flock; do need "$tool"; done
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root" >&2; exit 1; }
mkdir -p $store
. $here/machine.sh
alone $store

# The newest package, and the same under a higher version.
package=$(ls -t target/debian/sipalg_*.deb 2>/dev/null | head -n 1)
[ -n "$package" ] || { echo "there is no package in target/debian: make deb" >&2; exit 1; }
root=$(mktemp -d)
leftovers=$root
mkdir -p "$root/root/packages" "$root/etc/systemd/system/multi-user.target.wants"
cp "$package" "$root/root/packages/old.deb"
dpkg-deb -R "$package" "$root/newer"
sed -i 's/^Version: .*/&+newer/' "$root/newer/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$root/newer" "$root/root/packages/new.deb" >/dev/null
rm -rf "$root/newer"

# Debian itself, as it is before anybody has installed sipalg.
base=$($here/debian.sh $store)

cp $here/package-guest.sh "$root/root/guest"
chmod 755 "$root/root/guest" "$root"
cat >"$root/etc/systemd/system/guest.service" <<'UNIT'
[Service]
Type=idle
ExecStart=/root/guest
StandardOutput=file:/dev/ttyS0
StandardError=inherit
UNIT
ln -s ../guest.service "$root/etc/systemd/system/multi-user.target.wants/guest.service"
(cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) >$store/package.add.cpio

kernel=$($here/kernel.sh "$series" $store)
$here/mkinitramfs.sh modules $store/package.modules.cpio "$kernel" ""
cat "$base" $store/package.modules.cpio $store/package.add.cpio >$store/package.cpio

log=$store/package.log
start=$(date +%s)
echo "$(basename "$package") on $(basename "$base" .cpio) with Linux $series in qemu ($ACCEL):"
boot $log $LIMIT "$kernel/boot/vmlinuz" $store/package.cpio "mitigations=off systemd.show_status=false"
echo "$(($(date +%s) - start)) s"
if [ "$end" != 0 ]; then
    echo "--- the end of $log:"
    tail -n 100 $log
    exit 1
fi
