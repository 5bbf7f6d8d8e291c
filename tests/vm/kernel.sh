#!/bin/sh
# Fetches Debian's newest cloud kernel of a series and unpacks it.
#
#   tests/vm/kernel.sh 6.12 target/vm
#
# Prints the directory, in which there are boot/vmlinuz and lib/modules. It is named after the package and its version
# and is complete as soon as it exists, so a kernel is fetched once for each new version. Nothing is installed, the
# machine's own package sources stay as they are, and no root is needed. A kernel that is not to be had is an error.
set -eu
series=$1
store=$(realpath "$2")
here=$(realpath "$(dirname "$0")")
apt=$store/apt
# Root's downloads are as private as root's directories: apt need not try to become somebody else first.
options="-qq -o APT::Sandbox::User=root -o Acquire::Retries=3"
# Package lists of our own.
private="$options -o Dir::State::Lists=$apt/lists -o Dir::Cache=$apt/cache"

# Package and version that the newest metapackage of the series stands for: "linux-image-6.12.1-cloud-amd64 6.12.1-1".
newest() {
    for meta in "linux-image-$series-cloud-amd64" linux-image-cloud-amd64; do
        apt-cache "$@" show "$meta" 2>/dev/null |
            sed -n "s/^Depends: \(linux-image-$series\.[^ ]*\) (= \([^)]*\)).*/\1 \2/p"
    done | sort -Vr | head -n 1
}

# Downloads and unpacks what `newest` says; done at once if it is there.
fetch() {
    set -- "$(newest "$@")" "$@"
    [ -n "$1" ] || return 1
    package=${1% *} version=${1#* }
    shift
    kernel=$store/${package}_$version
    [ ! -d "$kernel" ] || return 0
    rm -rf "$kernel.new"
    mkdir -p "$kernel.new"
    (cd "$kernel.new" && apt-get "$@" download "$package=$version" >&2) || return 1
    dpkg -x "$kernel.new"/*.deb "$kernel.new" || return 1
    rm "$kernel.new"/*.deb
    # `set -e` does not hold here, behind an `||`. The whole of it, or nothing.
    mv "$kernel.new"/boot/vmlinuz-* "$kernel.new/boot/vmlinuz" || return 1
    mv "$kernel.new" "$kernel"
}

# Sources of our own: all suites that have one of the kernels, at the machine's mirror.
wider() {
    at=$("$here/mirror.sh" "$store") || return 1
    for suite in bookworm bookworm-backports trixie; do
        echo "deb $at $suite main"
    done >"$apt/sources.list"
    private="$private -o Dir::Etc::SourceList=$apt/sources.list -o Dir::Etc::SourceParts=-"
}

# An update that fails in a part may still have brought the part that is needed.
update() {
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    # shellcheck disable=SC2086 # an option list
    apt-get $private update >&2 || true
}

# First by the machine's own package lists; then, if they are missing or too old, by fresh ones of the same sources; then,
# if no suite of these has the series, by wider sources.
# shellcheck disable=SC2086 # option lists; the store's path has no blanks
fetch $options || { update && fetch $private; } || { wider && update && fetch $private; } || {
    echo "no package source of this machine has a cloud kernel of the series $series" >&2
    exit 1
}
echo "$kernel"
