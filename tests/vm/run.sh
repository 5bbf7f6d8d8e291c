#!/bin/sh
# Runs sipalg's tests on the kernels that people run: Debian's newest 6.1 and 6.12, each in a machine of its own.
#
#   tests/vm/run.sh [SERIES...]        as `make test-vm`; root is not needed
#
# Kernels are fetched with apt-get; the machines are qemu's, in software where the processor has no virtualisation of
# its own. A machine's console is kept in target/vm/SERIES.log. Exit code 0 if every test held on every kernel; a kernel
# that can't be fetched, a guest that hangs and one that ends without a word are failures.
set -eu
cd "$(dirname "$0")/../.."
[ $# -gt 0 ] || set -- 6.1 6.12
here=tests/vm store=target/vm
LIMIT=1200 # seconds for one kernel, far above what it takes

# What runs in the guest, in this order. `shipped` and `lab` are the guest's own; the others are test programs of cargo,
# with arguments of theirs behind a colon, separated by commas, if not all of their tests shall run. An emulated router
# takes its time: about three minutes for these. SUITES= names others, for every kernel: netns_kernel, netns_queue,
# netns_expect:--test-threads=1 (runs nowhere else), netns_clients:rulesets::,--test-threads=2. netns_clients takes five
# minutes by itself, and a few of its tests are too fast for an emulated processor, as are some of netns_tcp.
suites_of() {
    echo "${SUITES:-shipped lab privileges netns_daemon netns_routed netns_ipv6}"
}

need() {
    command -v "$1" >/dev/null || { echo "$1 is not installed: .ci/deps test" >&2; exit 1; }
}
for tool in qemu-system-x86_64 cpio depmod xz strip apt-get dpkg timeout flock; do need "$tool"; done

mkdir -p $store
. $here/machine.sh
alone $store
${CARGO:-cargo} build --locked --quiet
executables=
for suite in $(for series in "$@"; do suites_of "$series"; done); do
    test=${suite%%:*}
    case $test in shipped | lab) continue ;; esac
    case "$executables " in *" $test="*) continue ;; esac
    built=$(${CARGO:-cargo} test --locked --no-run --test "$test" 2>&1) || { echo "$built" >&2; exit 1; }
    file=$(echo "$built" | sed -n "s/.*Executable.*(\(.*\/$test-[0-9a-f]*\))\$/\1/p")
    [ -x "$file" ] || { echo "cargo names no executable of $test: $built" >&2; exit 1; }
    executables="$executables $test=$file"
done
# shellcheck disable=SC2086 # a list
$here/mkinitramfs.sh programs $store/programs.cpio $executables

# Tries one kernel and judges its console.
try() {
    series=$1
    kernel=$($here/kernel.sh "$series" $store) || return 1
    $here/mkinitramfs.sh modules "$store/$series.modules.cpio" "$kernel" "$(suites_of "$series")" || return 1
    leftovers="$leftovers $store/$series.cpio"
    cat $store/programs.cpio "$store/$series.modules.cpio" >"$store/$series.cpio"
    boot "$store/$series.log" $LIMIT "$kernel/boot/vmlinuz" "$store/$series.cpio" "mitigations=off no_timer_check"
    rm "$store/$series.cpio"
    case $end in
    0) return 0 ;;
    "") echo "it ended without a verdict; its console, $store/$series.log:" ;;
    *) echo "$end suites failed; its console, $store/$series.log:" ;;
    esac
    tail -n 300 "$store/$series.log"
    return 1
}

status=0
for series in "$@"; do
    start=$(date +%s)
    echo "Linux $series in qemu ($ACCEL):"
    try "$series" || { status=1; echo "FAILED on Linux $series" >&2; }
    echo "Linux $series: $(($(date +%s) - start)) s"
done
exit $status
