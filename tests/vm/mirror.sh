#!/bin/sh
# Prints the machine's Debian mirror, as its own package sources name it.
#
#   tests/vm/mirror.sh target/vm       where package lists of our own are kept, if the machine has none
#
# Nothing is installed, and the machine's own package lists stay as they are.
set -eu
store=$(realpath "$1")
lists=$store/apt

# The mirror for security updates has no other suites; others than Debian have their own sources.
named() {
    # shellcheck disable=SC2016 # apt's variables
    apt-get -qq "$@" indextargets --format '$(ORIGIN) $(CODENAME) $(REPO_URI)' 'Created-By: Packages' |
        sed -n '/^Debian [^ ]*-security /d; s/^Debian [^ ]* //p' | head -n 1
}

mirror=$(named)
if [ -z "$mirror" ]; then
    # A machine whose lists were removed knows its sources, but not whose they are.
    mkdir -p "$lists/lists/partial" "$lists/cache/archives/partial"
    set -- -o APT::Sandbox::User=root -o Dir::State::Lists="$lists/lists" -o Dir::Cache="$lists/cache"
    # An update that fails in a part may still have brought the part that is needed.
    apt-get -qq "$@" update >&2 || true
    mirror=$(named "$@")
fi
[ -n "$mirror" ] || { echo "this machine's package sources name no Debian mirror" >&2; exit 1; }
echo "$mirror"
