#!/bin/sh
# Fetches Debian's newest cloud kernel of a series and unpacks it.
#
#   tests/vm/kernel.sh 6.12 target/vm
#
# Prints the directory, in which there are boot/vmlinuz and lib/modules. It is named after the package and its version
# and is complete as soon as it exists, so a kernel is fetched once for each new version. Nothing is installed, and no
# root is needed. A kernel that is not to be had is an error.
set -eu
series=$1
store=$(realpath "$2")

# Package and version that the newest metapackage of the series stands for: "linux-image-6.12.1-cloud-amd64 6.12.1-1".
newest() {
    for meta in "linux-image-$series-cloud-amd64" linux-image-cloud-amd64; do
        apt-cache "$@" show --no-all-versions "$meta" 2>/dev/null |
            sed -n "s/^Depends: \(linux-image-$series\.[^ ]*\) (= \([^)]*\)).*/\1 \2/p"
    done | head -n 1
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
    (cd "$kernel.new" && apt-get "$@" -qq download "$package=$version" >&2) || return 1
    dpkg -x "$kernel.new"/*.deb "$kernel.new" || return 1
    rm "$kernel.new"/*.deb
    mv "$kernel.new"/boot/vmlinuz-* "$kernel.new/boot/vmlinuz"
    # The whole of it, or nothing.
    mv "$kernel.new" "$kernel"
}

# First by the machine's own package lists. If they are missing or too old: by fresh ones of the same sources, kept here.
apt=$store/apt
if ! fetch -q; then
    mkdir -p "$apt/lists/partial" "$apt/cache/archives/partial"
    private="-o Dir::State::Lists=$apt/lists -o Dir::Cache=$apt/cache -o APT::Sandbox::User="
    # shellcheck disable=SC2086 # words of an option list; the store's path has no blanks
    { apt-get $private -qq update >&2 || true; } && fetch $private || {
        echo "no package source of this machine has a cloud kernel of the series $series" >&2
        exit 1
    }
fi
echo "$kernel"
