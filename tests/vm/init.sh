#!/bin/sh
# The guest's first and only service: runs every test once and says on the serial console what came of it.
#
# Each line for the other side of the console begins with "vm: "; the last one is "vm: end N", N the number of tests
# that failed. What a test printed is shown if it failed; what the kernel complained about is a failure too.
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TMPDIR=/tmp LC_ALL=C
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
exec </dev/ttyS0 >/dev/ttyS0 2>&1
ip link set lo up

failed=0
try() {
    name=$1
    shift
    start=$(date +%s)
    timeout -k 10 "$LIMIT" "$@" >/tmp/said 2>&1
    code=$?
    took=$(($(date +%s) - start))
    # A name that no test has any more chooses none, and cargo's harness calls that good.
    if grep -q '^test result: ok. 0 passed' /tmp/said; then code="0, but no test ran"; fi
    if [ "$code" = 0 ]; then
        # How many tests it had, if it says so.
        count=$(sed -n 's/^test result: ok. \([0-9]*\) passed.*/, \1 tests/p' /tmp/said)
        echo "vm: ok      $name ($took s$count)"
    else
        failed=$((failed + 1))
        cat /tmp/said
        echo "vm: FAILED  $name ($took s, exit code $code)"
    fi
}

# One for each test, far above what it takes.
LIMIT=600

echo "vm: kernel $(uname -r), ready after $(sed 's/ .*//' /proc/uptime) s"
for suite in $(cat /tests/suites); do
    case $suite in
    lab) try lab sipalg lab ;;
    # Behind the colon, separated by commas: the tests to run, or other arguments of a test program.
    *:*)
        # shellcheck disable=SC2046 # a list
        try "$suite" "/tests/${suite%%:*}" $(echo "${suite#*:}" | tr , ' ')
        ;;
    *) try "$suite" "/tests/$suite" ;;
    esac
done
if dmesg | grep -E 'BUG:|Oops|WARNING:|general protection|soft lockup|rcu: INFO' >/tmp/said; then
    failed=$((failed + 1))
    dmesg | tail -n 100
    echo "vm: FAILED  the kernel complains: $(head -n 1 /tmp/said)"
fi
echo "vm: end $failed"
sync
# With -no-reboot this ends qemu.
echo b >/proc/sysrq-trigger
sleep 60
