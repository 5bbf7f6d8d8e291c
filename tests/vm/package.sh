#!/bin/sh
# The Debian package in a whole Debian system: installed, started, used, upgraded, removed and purged.
#
#   tests/vm/package.sh [SERIES]       as `make test-package`, after `make deb`; needs root for debootstrap
#
# The system is the smallest Debian of this machine's own release that systemd boots (the package is built against its
# libraries), made once by debootstrap and kept in target/vm. It runs from memory, on Debian's kernel of the SERIES, in
# qemu, as the machines of run.sh. package-guest.sh is what happens inside; its words on the serial console decide.
set -eu
cd "$(dirname "$0")/../.."
series=${1:-6.1}
here=tests/vm store=target/vm
MIRROR=${MIRROR:-http://deb.debian.org/debian}
LIMIT=900 # seconds, far above what it takes

need() {
    command -v "$1" >/dev/null || { echo "$1 is not installed: .ci/deps package" >&2; exit 1; }
}
for tool in qemu-system-x86_64 cpio debootstrap depmod dpkg-deb timeout; do need "$tool"; done
[ "$(id -u)" = 0 ] || { echo "debootstrap needs root" >&2; exit 1; }
release=$(. /etc/os-release && echo "$VERSION_CODENAME")
mkdir -p $store

# The newest package, and the same under a higher version.
package=$(ls -t target/debian/sipalg_*.deb 2>/dev/null | head -n 1)
[ -n "$package" ] || { echo "there is no package in target/debian: make deb" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
trap 'exit 1' HUP INT TERM
mkdir -p "$root/root/packages" "$root/etc/systemd/system/multi-user.target.wants"
cp "$package" "$root/root/packages/old.deb"
dpkg-deb -R "$package" "$root/newer"
sed -i 's/^Version: .*/&+newer/' "$root/newer/DEBIAN/control"
dpkg-deb --root-owner-group -Znone -b "$root/newer" "$root/root/packages/new.deb" >/dev/null
rm -rf "$root/newer"

# Debian itself, as it is before anybody has installed sipalg.
base=$store/debian-$release.cpio
if [ ! -s "$base" ]; then
    system=$store/debian-$release
    rm -rf "$system"
    debootstrap --variant=minbase --include=systemd,systemd-sysv,kmod,nftables,libmnl0,libnftnl11,libnftables1,iproute2 \
        "$release" "$system" "$MIRROR" >"$store/debootstrap.log" 2>&1 || {
        tail -n 20 "$store/debootstrap.log" >&2
        exit 1
    }
    # What only takes memory.
    rm -rf "$system"/var/cache/apt/* "$system"/var/lib/apt/lists/* "$system"/usr/share/doc/* "$system"/usr/share/locale/* \
        "$system"/usr/share/man/* "$system"/usr/share/i18n
    ln -sf /lib/systemd/systemd "$system/init"
    echo sipalg-test >"$system/etc/hostname"
    # Nobody logs in.
    ln -sf /dev/null "$system/etc/systemd/system/getty.target"
    ln -sf /dev/null "$system/etc/systemd/system/serial-getty@ttyS0.service"
    (cd "$system" && find . -print0 | cpio --null --create --format=newc --quiet) >"$base.new"
    rm -rf "$system"
    mv "$base.new" "$base"
fi

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
$here/mkinitramfs.sh modules $store/package.modules.cpio "$kernel"
cat "$base" $store/package.modules.cpio $store/package.add.cpio >$store/package.cpio

accel="tcg,thread=multi" cpu=max
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=kvm cpu=host; fi
log=$store/package.log
start=$(date +%s)
echo "$(basename "$package") on Debian $release with Linux $series in qemu ($accel):"
timeout -k 10 $LIMIT qemu-system-x86_64 -accel "$accel" -cpu $cpu -smp 2 -m 2048 -nodefaults -no-user-config \
    -display none -no-reboot -serial stdio -kernel "$kernel/boot/vmlinuz" -initrd $store/package.cpio \
    -append "console=ttyS0 quiet panic=-1 mitigations=off systemd.show_status=false" </dev/null 2>&1 |
    sed -u 's,\r$,,' | tee $log | sed -u -n 's/^vm: \(ok\|FAILED\|kernel\)/\1/p'
echo "$(($(date +%s) - start)) s"
if [ "$(sed -n 's/^vm: end //p' $log)" != 0 ]; then
    echo "--- the end of $log:"
    tail -n 100 $log
    exit 1
fi
