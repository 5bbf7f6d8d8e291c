# The virtual machine of the scripts in this directory, which read this file: . tests/vm/machine.sh
# shellcheck shell=sh
#
# Software emulation, unless the processor has virtualisation of its own and lets us have it; memory and two processors are
# what a small router has. While a script has the store (`alone`), another one that needs it waits.

ACCEL="tcg,thread=multi" CPU=max
if [ -w /dev/kvm ] && grep -qwE 'vmx|svm' /proc/cpuinfo; then ACCEL=kvm CPU=host; fi
# Processes that end with this script, and paths that it removes in the end; it adds to both.
children= leftovers=

cleanup() {
    # Once is enough: a signal to all of them comes by more than one way.
    trap '' HUP INT TERM
    # shellcheck disable=SC2086 # lists without blanks in their words
    {
        [ -z "$children" ] || kill $children 2>/dev/null || true
        wait
        rm -rf $leftovers
    }
}

# A signal ends the machine too, and the machine ends before the script does. To be said again in a subshell.
tidy() {
    children= leftovers=
    trap cleanup EXIT
    trap 'exit 1' HUP INT TERM
}
tidy

# Waits until nobody else uses the store, for as long as this script runs.
alone() {
    exec 9>"$1/lock"
    flock -n 9 || { echo "waiting for another run to end" >&2; flock 9; }
}

# boot LOG LIMIT KERNEL INITRD WORDS-FOR-THE-KERNEL [PREFIX]: runs a machine for at most LIMIT seconds. The console goes to
# LOG; what it says of its tests, and which kernel it is, to stdout behind PREFIX. Afterwards $end is the number of tests that
# failed; it is empty if the machine went down without a word.
boot() {
    log=$1 limit=$2 console=$1.pipe prefix=${6-}
    leftovers="$leftovers $console"
    rm -f "$console"
    mkfifo "$console"
    sed -u 's,\r$,,' <"$console" 9>&- | tee "$log" 9>&- |
        sed -u -n "s/^vm: \(ok\|FAILED\|kernel\|note\)/$prefix\1/p" 9>&- &
    reader=$!
    # In the background, because a shell heeds no signal while it waits for one in front.
    timeout -k 10 "$limit" qemu-system-x86_64 -accel "$ACCEL" -cpu $CPU -smp 2 -m 2048 -nodefaults -no-user-config \
        -display none -no-reboot -serial stdio -kernel "$3" -initrd "$4" -append "console=ttyS0 quiet panic=-1 $5" \
        </dev/null >"$console" 2>&1 9>&- &
    others=$children
    children="$others $!"
    wait "$!" || true
    children=$others
    wait "$reader" || true
    rm -f "$console"
    end=$(sed -n 's/^vm: end //p' "$log")
}
