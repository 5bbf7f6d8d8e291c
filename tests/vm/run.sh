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
# takes its time, so what is not likely to differ runs on one kernel only: three minutes for each of them. What is left
# out tests nothing of the kernel, or asks for more calls in a second than an emulated processor makes. SUITES= names
# others, for every kernel; netns_clients takes five minutes by itself, and a few of its tests are too fast for it.
suites_of() {
    case $1 in
    6.1) more="netns_kernel netns_queue" ;;
    *) more="netns_clients:rulesets::,--test-threads=2" ;;
    esac
    echo "${SUITES:-shipped lab privileges netns_daemon netns_routed netns_ipv6 netns_expect:--test-threads=1 $more}"
}

need() {
    command -v "$1" >/dev/null || { echo "$1 is not installed: .ci/deps test" >&2; exit 1; }
}
for tool in qemu-system-x86_64 cpio depmod xz strip apt-get dpkg timeout; do need "$tool"; done

mkdir -p $store
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

# A processor that has it, or qemu's own; memory and two processors are what a small router has.
accel="tcg,thread=multi" cpu=max
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=kvm cpu=host; fi

# Boots one kernel and judges its console.
boot() {
    series=$1
    kernel=$($here/kernel.sh "$series" $store) || return 1
    $here/mkinitramfs.sh modules "$store/$series.modules.cpio" "$kernel" "$(suites_of "$series")" || return 1
    cat $store/programs.cpio "$store/$series.modules.cpio" >"$store/$series.cpio"
    log=$store/$series.log
    timeout -k 10 $LIMIT qemu-system-x86_64 -accel "$accel" -cpu $cpu -smp 2 -m 2048 -nodefaults -no-user-config \
        -display none -no-reboot -serial stdio -kernel "$kernel/boot/vmlinuz" -initrd "$store/$series.cpio" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" </dev/null 2>&1 |
        sed -u 's,\r$,,' | tee "$log" | sed -u -n 's/^vm: \(ok\|FAILED\|kernel\)/\1/p'
    rm "$store/$series.cpio"
    end=$(sed -n 's/^vm: end //p' "$log")
    case $end in
    0) return 0 ;;
    "") echo "it ended without a verdict; its console, $log:" ;;
    *) echo "$end suites failed; its console, $log:" ;;
    esac
    tail -n 300 "$log"
    return 1
}

status=0
for series in "$@"; do
    start=$(date +%s)
    echo "Linux $series in qemu ($accel):"
    boot "$series" || { status=1; echo "FAILED on Linux $series" >&2; }
    echo "Linux $series: $(($(date +%s) - start)) s"
done
exit $status
