#!/bin/sh
# The rules of a router on which Docker runs, by iptables over nf_tables, as Docker makes them; with what its
# administrator added for the phones. `docker.sh start` makes them, `docker.sh restart` does to them what a restart of
# Docker does: its own are taken away one by one and made again, the administrator's stay.
set -eu
ipt() {
    iptables-nft -w "$@"
}

docker_up() {
    for chain in DOCKER DOCKER-BRIDGE DOCKER-CT DOCKER-FORWARD DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2; do
        ipt -N $chain
    done
    ipt -N DOCKER-USER 2>/dev/null || true
    ipt -P FORWARD DROP
    ipt -A DOCKER-FORWARD -j DOCKER-CT
    ipt -A DOCKER-FORWARD -j DOCKER-ISOLATION-STAGE-1
    ipt -A DOCKER-FORWARD -j DOCKER-BRIDGE
    ipt -A DOCKER-FORWARD -i docker0 -j ACCEPT
    ipt -A DOCKER-CT -o docker0 -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    ipt -A DOCKER-BRIDGE -o docker0 -j DOCKER
    ipt -A DOCKER-ISOLATION-STAGE-1 -i docker0 ! -o docker0 -j DOCKER-ISOLATION-STAGE-2
    ipt -A DOCKER-ISOLATION-STAGE-2 -o docker0 -j DROP
    ipt -A DOCKER -d 172.17.0.2/32 ! -i docker0 -o docker0 -p tcp -m tcp --dport 80 -j ACCEPT
    ipt -A DOCKER ! -i docker0 -o docker0 -j DROP
    ipt -I FORWARD -j DOCKER-FORWARD
    ipt -I FORWARD -j DOCKER-USER
    ipt -t nat -N DOCKER
    ipt -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    ipt -t nat -A OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
    ipt -t nat -I POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    ipt -t nat -A DOCKER ! -i docker0 -p tcp -m tcp --dport 8080 -j DNAT --to-destination 172.17.0.2:80
    ipt -t raw -A PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
}

docker_down() {
    ipt -t raw -D PREROUTING -d 172.17.0.2/32 ! -i docker0 -j DROP
    ipt -t nat -D PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
    ipt -t nat -D OUTPUT ! -d 127.0.0.0/8 -m addrtype --dst-type LOCAL -j DOCKER
    ipt -t nat -D POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
    ipt -t nat -F DOCKER
    ipt -t nat -X DOCKER
    ipt -D FORWARD -j DOCKER-USER
    ipt -D FORWARD -j DOCKER-FORWARD
    for step in -F -X; do
        for chain in DOCKER-FORWARD DOCKER-BRIDGE DOCKER-CT DOCKER-ISOLATION-STAGE-1 DOCKER-ISOLATION-STAGE-2 DOCKER; do
            ipt $step $chain
        done
    done
}

case $1 in
start)
    docker_up
    ipt -A DOCKER-USER -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT
    ipt -A DOCKER-USER -i lan -o wan -j ACCEPT
    ipt -t nat -A POSTROUTING -o wan -j MASQUERADE
    ;;
restart)
    docker_down
    docker_up
    ;;
esac
