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
LIMIT=1200 # seconds for all of it, far above what it takes

# What runs in the guest, in this order. `shipped` and `lab` are the guest's own; the others are test programs of cargo,
# with arguments of theirs behind a colon, separated by commas, if not all of their tests shall run. Two emulated
# processors take three minutes for these. What is left out tests nothing of the kernel, or asks for more calls in a
# second than an emulated processor makes. It all fits by hand, in half an hour: SUITES=netns_clients.
SUITES=${SUITES:-shipped lab netns_daemon netns_kernel netns_queue netns_routed netns_ipv6 netns_expect:--test-threads=1 netns_clients:rulesets::}

need() {
    command -v "$1" >/dev/null || { echo "$1 is not installed: .ci/deps test" >&2; exit 1; }
}
for tool in qemu-system-x86_64 cpio depmod xz strip apt-get dpkg timeout; do need "$tool"; done

mkdir -p $store
${CARGO:-cargo} build --locked --quiet
executables=
for suite in $SUITES; do
    test=${suite%%:*}
    case $test in shipped | lab) continue ;; esac
    case "$executables " in *" $test="*) continue ;; esac
    built=$(${CARGO:-cargo} test --locked --no-run --test "$test" 2>&1) || { echo "$built" >&2; exit 1; }
    file=$(echo "$built" | sed -n "s/.*Executable.*(\(.*\/$test-[0-9a-f]*\))\$/\1/p")
    [ -x "$file" ] || { echo "cargo names no executable of $test: $built" >&2; exit 1; }
    executables="$executables $test=$file"
done
# shellcheck disable=SC2086 # a list
$here/mkinitramfs.sh programs $store/programs.cpio "$SUITES" $executables

# A processor that has it, or qemu's own; memory and two processors are what a small router has.
accel="tcg,thread=multi" cpu=max
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then accel=kvm cpu=host; fi

# Boots one kernel; its console goes into the log, and what became of each suite to the output.
boot() {
    timeout -k 10 $LIMIT qemu-system-x86_64 -accel "$accel" -cpu $cpu -smp 2 -m 2048 -nodefaults -no-user-config \
        -display none -no-reboot -serial stdio -kernel "$2/boot/vmlinuz" -initrd "$store/$1.cpio" \
        -append "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check" </dev/null 2>&1 |
        sed -u 's,\r$,,' | tee "$store/$1.log" | sed -u -n "s/^vm: \(ok\|FAILED\|kernel\)/Linux $1: \1/p"
}

# What a log says in the end.
judge() {
    end=$(sed -n 's/^vm: end //p' "$store/$1.log")
    case $end in
    0) return 0 ;;
    "") echo "FAILED on Linux $1: it ended without a verdict; its console, $store/$1.log:" ;;
    *) echo "FAILED on Linux $1: $end suites failed; its console, $store/$1.log:" ;;
    esac
    tail -n 300 "$store/$1.log"
    return 1
}

# All at once: each of them waits for something half of the time.
start=$(date +%s)
echo "Linux $* in qemu ($accel):"
status=0 machines=
for series in "$@"; do
    : >"$store/$series.log"
    if kernel=$($here/kernel.sh "$series" $store) &&
        $here/mkinitramfs.sh modules "$store/$series.modules.cpio" "$kernel"; then
        cat $store/programs.cpio "$store/$series.modules.cpio" >"$store/$series.cpio"
        boot "$series" "$kernel" &
        machines="$machines $!"
    fi
done
# shellcheck disable=SC2086 # a list
[ -z "$machines" ] || wait $machines || true
for series in "$@"; do
    judge "$series" || status=1
    rm -f "$store/$series.cpio"
done
echo "Linux $*: $(($(date +%s) - start)) s"
exit $status
