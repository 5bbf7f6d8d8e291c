#!/bin/sh
# docker/ as it stands, without a registry: Dockerfile built, compose.yml's network run, calls made through it.
#
#   tests/container.sh                 as `make test-container`, after `make build`; needs root
#
# Built by buildah and run by podman, in a network namespace and a storage of their own. The base is debian.sh's. In the
# place of Rust's image stands that base with a `cargo` that hands over what was built on this machine: the same program by
# the same steps, but it is not compiled once more. apt-get asks the mirror.
set -eu
cd "$(dirname "$0")/.."
project=$(pwd)
store=$project/target/container
[ "$(id -u)" = 0 ] || { echo "containers with networks need root" >&2; exit 1; }
for tool in buildah podman runc cpio nft unshare; do
    command -v $tool >/dev/null || { echo "$tool is not installed: .ci/deps package" >&2; exit 1; }
done
[ -x target/release/sipalg ] || { echo "there is no target/release/sipalg: make build" >&2; exit 1; }

# Everything below happens in a network namespace, so that no bridge and no rule of podman's is left to anybody.
if [ -z "${SIPALG_CONTAINER_TEST-}" ]; then
    mkdir -p "$store" target/vm
    SIPALG_CONTAINER_BASE=$(tests/vm/debian.sh target/vm)
    export SIPALG_CONTAINER_BASE
    SIPALG_CONTAINER_TEST=build "$0"
    SIPALG_CONTAINER_TEST=run exec unshare --net "$0"
fi

# No place of the system's is touched. Limits and the runtime are what works inside of other containers, too.
export CONTAINERS_CONF=$store/containers.conf CONTAINERS_STORAGE_CONF=$store/storage.conf
cat >"$CONTAINERS_CONF" <<CONF
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=4096:4096"]
log_driver = "k8s-file"
[engine]
runtime = "runc"
events_logger = "file"
tmp_dir = "$store/tmp"
[network]
network_backend = "cni"
network_config_dir = "$store/networks"
CONF
cat >"$CONTAINERS_STORAGE_CONF" <<CONF
[storage]
driver = "vfs"
graphroot = "$store/graph"
runroot = "$store/run"
CONF

fail() {
    echo "FAILED  $*" >&2
    for container in router provider phone; do
        echo "--- $container" >&2
        podman logs --tail 40 $container >&2 2>&1 || true
    done
    exit 1
}

build() {
    buildah bud --isolation chroot --build-arg BASE=localhost/debian --build-arg RUST=localhost/rust "$@" \
        >"$store/build.log" 2>&1 || { tail -n 40 "$store/build.log"; echo "FAILED  to build"; exit 1; } >&2
}

images() {
    context=$(mktemp -d)
    trap 'rm -rf "$context"' EXIT
    mkdir "$context/debian"
    (cd "$context/debian" && cpio --extract --make-directories --quiet) <"$SIPALG_CONTAINER_BASE"
    tar -C "$context/debian" -c . | podman import --quiet - localhost/debian >/dev/null
    rm -rf "$context/debian"
    cp target/release/sipalg "$context/sipalg"
    cat >"$context/cargo" <<'CARGO'
#!/bin/sh
set -e
[ "$*" = "build --locked --release" ] && [ -f Cargo.lock ] && [ ! -e target ]
install -D /sipalg target/release/sipalg
CARGO
    chmod 755 "$context/cargo"
    printf 'FROM localhost/debian\nCOPY cargo /usr/bin/cargo\nCOPY sipalg /sipalg\n' >"$context/Dockerfile"
    build --tag localhost/rust "$context"
    build --file docker/Dockerfile --tag localhost/sipalg .
    echo "ok      sipalg is built: $(podman image inspect --format '{{.Size}}' localhost/sipalg) bytes"
    build --file docker/Dockerfile --target station --tag localhost/sipalg-station .
    echo "ok      station is built"
}

await() {
    for _ in $(seq 300); do
        "$@" >/dev/null 2>&1 && return
        sleep 0.2
    done
    fail "waited in vain: $*"
}

# The network of compose.yml, made by hand: Debian 12's program for such files knows no fixed addresses. What is used here
# has to stand there.
network() {
    for word in 192.168.77.0/24 203.0.113.0/24 'ipv4_address: 192.168.77.2$' 'ipv4_address: 203.0.113.2$' \
        'ipv4_address: 203.0.113.20$' 'ipv4_address: 192.168.77.10$' 'net.ipv4.ip_forward: "1"' \
        'net.netfilter.nf_conntrack_acct: "1"' 'cap_drop: \[ALL\]' 'cap_add: \[NET_ADMIN\]' 'target: station' \
        './router.sh:/router.sh:ro' 'entrypoint: \["/bin/sh", "/router.sh"\]' 'command: \["provider"\]' \
        'command: \["phone", "192.168.77.2", "203.0.113.20"\]'; do
        grep -q "$word" docker/compose.yml || fail "compose.yml says nothing of $word"
    done
    podman rm --force --all --time 1 >/dev/null 2>&1 || true
    podman network prune --force >/dev/null 2>&1 || true
    trap 'podman rm --force --all --time 1 >/dev/null 2>&1 || true' EXIT
    trap 'exit 1' HUP INT TERM
    ip link set lo up
    # Where bridges are subject to the machine's rules, podman would NAT the phone's packets before the router sees them.
    bridge=/proc/sys/net/bridge/bridge-nf-call-iptables
    [ ! -e $bridge ] || echo 0 >$bridge
    podman network create --subnet 192.168.77.0/24 lan >/dev/null
    podman network create --subnet 203.0.113.0/24 wan >/dev/null
    station="--cap-drop ALL --cap-add NET_ADMIN --detach"
    # shellcheck disable=SC2086 # a list
    podman run $station --name router --sysctl net.ipv4.ip_forward=1 --sysctl net.netfilter.nf_conntrack_acct=1 \
        --volume "$project/docker/router.sh:/router.sh:ro" --entrypoint /bin/sh --network lan:ip=192.168.77.2 \
        --network wan:ip=203.0.113.2 localhost/sipalg /router.sh >/dev/null
    # shellcheck disable=SC2086
    podman run $station --name provider --network wan:ip=203.0.113.20 localhost/sipalg-station provider >/dev/null
    # shellcheck disable=SC2086
    podman run $station --name phone --network lan:ip=192.168.77.10 localhost/sipalg-station \
        phone 192.168.77.2 203.0.113.20 >/dev/null
    echo "ok      router, provider and phone run"

    await podman exec router sipalg status
    podman exec router sipalg check || fail "sipalg check"
    # Without the right to become another user it stays root, with one capability, and is confined all the same.
    status=$(podman exec router cat /proc/1/status | tr -d '\t')
    for line in CapEff:0000000000001000 CapBnd:0000000000001000 NoNewPrivs:1; do
        echo "$status" | grep -qx "$line" || fail "not $line: $status"
    done
    [ "$(echo "$status" | sed -n 's/^Seccomp_filters://p')" -ge 2 ] || fail "no filter of its own: $status"
    echo "ok      in the container it has one capability, and is confined"

    talks() {
        podman exec router sipalg calls --json | grep -qE '"packets_in":[1-9]' &&
            podman exec router sipalg calls --json | grep -qE '"packets_out":[1-9]'
    }
    await talks
    echo "ok      sound goes both ways"
    code=$(podman wait phone)
    [ "$code" = 0 ] || fail "the phone ends with $code: not every call was good"
    ! podman logs provider 2>&1 | grep -q 'with regexp' || fail "the provider has seen a private address"
    [ "$(podman exec router sipalg status --json | grep -c '"rewritten"')" = 1 ] || fail "nothing was rewritten"
    echo "ok      ten calls through NAT"
    podman stop --time 10 router >/dev/null
    [ "$(podman inspect --format '{{.State.ExitCode}}' router)" = 0 ] || fail "sipalg did not end well"
    podman logs router 2>&1 | grep -q 'stopping; the ruleset stays' || fail "it did not say so"
    echo "ok      stopped"
}

case $SIPALG_CONTAINER_TEST in
build) images ;;
run) network ;;
esac
