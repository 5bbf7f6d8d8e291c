#!/bin/sh
# Runs sipalg's tests on the kernels that people run: Debian's newest 6.1 and 6.12, each in a machine of its own, both at
# the same time.
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
# with arguments of theirs behind a colon, separated by commas, if not all of their tests shall run. netns_expect runs nowhere
# else. An emulated router takes its time, so the longest suites are shared out between the kernels, though they hold on
# each. SUITES= names others, for every kernel. The whole of netns_clients takes five minutes by itself, and a few of its
# tests are too fast for an emulated processor, as are some of netns_tcp: ten thousand messages, and what counts on a restart
# that takes less than a few seconds.
slow=--skip,a_restart,--skip,a_daemon_that_hangs
suites_of() {
    if [ -n "${SUITES-}" ]; then
        echo "$SUITES"
        return
    fi
    echo shipped lab privileges netns_daemon netns_routed netns_ipv6 netns_admission netns_media_tcp netns_expect:--test-threads=1
    case $1 in
    6.1) echo netns_kernel netns_tcp:unload,kill_9,tcp_is_turned ;;
    *)
        echo netns_queue netns_clients:rulesets::,--test-threads=2
        echo netns_tcp:attack::,ends::,sixty_thousand,narrower,port_forward,pieces_of_any,many_small,$slow
        ;;
    esac
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

# What has to be fetched, one after the other; what has to be written, for the machine of one kernel.
for series in "$@"; do
    kernel=$($here/kernel.sh "$series" $store)
    $here/mkinitramfs.sh modules "$store/$series.modules.cpio" "$kernel" "$(suites_of "$series")"
    leftovers="$leftovers $store/$series.cpio"
    cat $store/programs.cpio "$store/$series.modules.cpio" >"$store/$series.cpio"
    ln -sfn "$(basename "$kernel")" "$store/$series.kernel"
done

# All at once: a machine waits for much of its time. Their consoles are judged when all have ended.
echo "Linux $* in qemu ($ACCEL):"
for series in "$@"; do
    (
        tidy
        start=$(date +%s)
        guest() {
            boot "$store/$series.log" $LIMIT "$store/$series.kernel/boot/vmlinuz" "$store/$series.cpio" \
                "mitigations=off no_timer_check" "$series: "
        }
        guest
        # A kernel changes its own code by way of an int3, and under load one emulated processor may meet it when the other
        # has long taken it back. That says nothing of sipalg.
        if [ -z "$end" ] && grep -q 'Oops: int3:' "$store/$series.log"; then
            echo "$series: the emulator has crashed its kernel (int3); once more"
            guest
        fi
        echo "$series: $(($(date +%s) - start)) s"
        [ "$end" = 0 ]
    ) &
    children="$children $!"
done
status=0
for machine in $children; do
    wait "$machine" || {
        status=1
        end=$(sed -n 's/^vm: end //p' "$store/$1.log")
        echo "FAILED on Linux $1: ${end:-all} suites; its console, $store/$1.log:" >&2
        tail -n 300 "$store/$1.log" >&2
    }
    shift
done
children=
exit $status
