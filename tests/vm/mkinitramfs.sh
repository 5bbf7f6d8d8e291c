#!/bin/sh
# Makes the guest's file system: an initramfs (cpio) of this machine's own programs and one kernel's modules.
#
#   tests/vm/mkinitramfs.sh programs FILE [NAME=EXECUTABLE...]         the same for all kernels
#   tests/vm/mkinitramfs.sh modules FILE KERNEL-DIRECTORY SUITES       what one kernel adds; it takes one behind the other
#
# Programs come with the libraries that ldd names and keep their paths, so that what a test was compiled with (the path
# of sipalg, of its own scenarios) is true in the guest too. Each EXECUTABLE becomes /tests/NAME there; SUITES says which
# of them to run, in which order.
set -eu
here=$(realpath "$(dirname "$0")")
project=$(realpath "$here/../..")
what=$1
out=$(realpath "$(dirname "$2")")/$(basename "$2")
shift 2

root=$(mktemp -d)
chmod 755 "$root"
trap 'rm -rf "$root"' EXIT
trap 'exit 1' HUP INT TERM

# What the tests and the guest itself start.
PROGRAMS="sh bash cat cp date dmesg env grep head id kill ls mkdir mount rm sed sleep tail timeout true uname
    nft ip ss sysctl conntrack tcpdump ethtool modprobe unshare nsenter mktemp seq sync readlink xargs sort cut tr wc dirname basename
    iptables iptables-nft ip6tables-nft iptables-legacy iptables-legacy-save ip6tables-legacy ip6tables-legacy-save
    iptables-save sipp baresip kamailio tshark"
# What programs load by themselves.
DATA="/usr/lib/*/xtables /etc/iproute2 /etc/protocols /etc/services /etc/nsswitch.conf /etc/passwd /etc/group
    /usr/lib/baresip/modules /usr/share/baresip /usr/lib/*/kamailio /usr/lib/*/libnss_files.so.2 /usr/share/wireshark"

# Files at their own paths; a symbolic link becomes the file that it names.
keep() {
    for file in "$@"; do
        [ ! -e "$root$file" ] || continue
        mkdir -p "$root$(dirname "$file")"
        cp -L "$file" "$root$file"
    done
}

libraries() {
    # Exit code 1 for what is static or no program.
    { ldd "$@" 2>/dev/null || true; } | sed -n 's/.*[ \t]\(\/[^ ]*\) (0x.*/\1/p' | sort -u
}

cpio_of_root() {
    (cd "$root" && find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet) >"$out.new"
    mv "$out.new" "$out"
}

programs() {
    # As on the machine: /bin is a link to /usr/bin. Paths through it would otherwise make a directory of it.
    for link in bin sbin lib lib64; do
        [ ! -L "/$link" ] || { mkdir -p "$root/usr/$link" && ln -s "usr/$link" "$root/$link"; }
    done
    mkdir -p "$root/proc" "$root/sys" "$root/dev" "$root/run" "$root/tmp" "$root/root" "$root/var/lib" "$root/tests"
    chmod 1777 "$root/tmp"
    ln -s ../run "$root/var/run"
    for program in $PROGRAMS; do
        path=$(PATH="$PATH:/usr/sbin:/sbin" command -v "$program") || {
            echo "$program is not installed: .ci/deps test" >&2
            exit 1
        }
        # Bash's own commands have files too.
        case $path in /*) ;; *) path=/usr/bin/$program ;; esac
        keep "$path"
    done
    for data in $DATA; do
        [ ! -e "$data" ] || { mkdir -p "$root$(dirname "$data")" && cp -rL "$data" "$root$(dirname "$data")/"; }
    done
    # The project's own: sipalg, where the tests look for theirs; what they read; the tests.
    mkdir -p "$root$project/target/debug" "$root$project/tests"
    strip -o "$root$project/target/debug/sipalg" "$project/target/debug/sipalg"
    cp -r "$project/nft-rules" "$root$project/"
    cp -r "$project/tests/clients" "$root$project/tests/"
    mkdir -p "$root$project/src/daemon" && cp "$project/src/daemon/sipalg.service" "$root$project/src/daemon/"
    ln -s "$project/target/debug/sipalg" "$root/usr/sbin/sipalg"
    mkdir -p "$root/usr/share/sipalg" && cp "$project/nft-rules/sipalg.nft" "$root/usr/share/sipalg/"
    for test in "$@"; do
        strip -o "$root/tests/${test%%=*}" "${test#*=}"
    done
    find "$root" -type f \( -perm /111 -o -name '*.so*' \) >"$root.files"
    # shellcheck disable=SC2046 # paths without blanks
    keep $(tr '\n' '\0' <"$root.files" | xargs -0 sh -c '
        ldd "$@" 2>/dev/null | sed -n "s/.*[ \t]\(\/[^ ]*\) (0x.*/\1/p" | sort -u' ldd)
    rm "$root.files"
    cp "$here/init.sh" "$root/init"
    cp "$here/shipped.sh" "$root/tests/shipped"
    chmod 755 "$root/init" "$root/tests/shipped"
}

# Netfilter, what it stands on, cables, and what `ss -K` asks. The machine's modprobe is told where they are; the guest's
# finds them itself.
modules() {
    kernel=$(realpath "$1")
    version=$(ls "$kernel/lib/modules")
    from=$kernel/lib/modules/$version
    into=$root/lib/modules/$version
    mkdir -p "$into"
    cp "$from/modules.builtin" "$from/modules.builtin.modinfo" "$from/modules.order" "$into/"
    depmod -b "$kernel" "$version"
    find "$from/kernel/net" -path '*netfilter*' -name '*.ko*' -printf '%f\n' | sed 's/\.ko.*//' >"$root.names"
    printf '%s\n' veth bridge inet_diag tcp_diag >>"$root.names"
    xargs -n 100 modprobe -d "$kernel" -S "$version" -a --show-depends <"$root.names" |
        sed -n 's/^insmod \([^ ]*\).*/\1/p' | sort -u |
        while read -r module; do
            copy=$into/${module#"$from"/}
            mkdir -p "$(dirname "$copy")"
            # Decompressing is quicker here than in the guest.
            case $module in
            *.xz) xz -dc "$module" >"${copy%.xz}" ;;
            *) cp "$module" "$copy" ;;
            esac
        done
    rm "$root.names"
    depmod -b "$root" "$version"
    mkdir -p "$root/tests"
    echo "$2" >"$root/tests/suites"
    # Where /lib is a link, its directory has to come under its own name.
    [ ! -L /lib ] || { mkdir "$root/usr" && mv "$root/lib" "$root/usr/"; }
}

"$what" "$@"
cpio_of_root
