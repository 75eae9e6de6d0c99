# Hosts as network namespaces, and the wires between them. Topology: ../lib.sh.

WORLD=${WORLD:-postern-$$}                # prefix of the namespaces of this run
[ -n "${HOSTS:-}" ] || HOSTS=(inet gateway cluster laptop laptop2 stock server outside)
GATEWAY4=203.0.113.2 GATEWAY6=2001:db8:203::2
KUBE=192.0.2.10 KUBE6=2001:db8:a::10
NODES=(192.0.2.10 5.75.198.10 91.107.250.5 65.109.212.122)
PRIVATE_GATEWAY=10.77.0.1 PRIVATE_CLUSTER=10.77.0.2

# The number that a host has on the underlay: 198.51.100.N and 2001:db8:100::N.
host_number() { case $1 in laptop) echo 11 ;; laptop2) echo 12 ;; stock) echo 13 ;; server) echo 14 ;; idp) echo 15 ;; outside) echo 66 ;; esac; }

# Makes the scratch directory and every host; fewer where HOSTS names fewer.
world_up() {
  [ "$(id -u)" = 0 ] || skip "needs root for network namespaces"
  W=${W:-$(mktemp -d "${TMPDIR:-/tmp}/postern-test.XXXXXX")}
  mkdir -p "$W/log" "$W/pid"
  local h
  for h in "${HOSTS[@]}"; do host_add "$h"; done
  underlay_up
  private_up
}

host_add() {
  local n=$WORLD-$1
  ip netns add "$n"
  # bind targets: each host has its own, so two laptops never share a socket or a state file
  mkdir -p "$W/host/$1/run/sshd" "$W/host/$1/lib" "$W/host/$1/home"
  in_ns "$1" sh -c 'for f in all default; do
    echo 0 >/proc/sys/net/ipv6/conf/$f/accept_dad; echo 0 >/proc/sys/net/ipv6/conf/$f/accept_ra
    echo 0 >/proc/sys/net/ipv6/conf/$f/disable_ipv6; echo 0 >/proc/sys/net/ipv6/conf/$f/autoconf; done
    echo 0 >/proc/sys/net/ipv4/ip_forward; echo 0 >/proc/sys/net/ipv6/conf/all/forwarding'
  ip -n "$n" link set lo up
}

# Runs a command inside a host, in place (its pid is the command's own).
in_ns() {
  local h=$1; shift
  set_enter "$h"
  "${ENTER[@]}" "$@"
}

# Sets ENTER: the words that stand before a command to run it in a host.
set_enter() {
  # shellcheck disable=SC2016
  ENTER=(ip netns exec "$WORLD-$1" sh -c
    'mount --bind "$0/run" /run && mount --bind "$0/lib" /var/lib && export HOME="$0/home" && exec "$@"'
    "$W/host/$1")
}

in_ip() { local h=$1; shift; ip -n "$WORLD-$h" "$@"; }

# One wire: wire HOST IFACE PEER_HOST PEER_IFACE
wire() {
  ip link add "$2" netns "$WORLD-$1" type veth peer name "$4" netns "$WORLD-$3"
  in_ip "$1" link set "$2" up
  in_ip "$3" link set "$4" up
}

underlay_up() {
  in_ip inet link add home type bridge
  in_ip inet link set home up
  in_ip inet addr add 198.51.100.1/24 dev home
  in_ip inet addr add 2001:db8:100::1/64 dev home
  local h
  for h in "${HOSTS[@]}"; do
    [ -n "$(host_number "$h")" ] || continue
    wire "$h" eth0 inet "$h"
    in_ip inet link set "$h" master home
    underlay_address "$h" "$(host_number "$h")"
  done
  wire gateway wan inet gateway
  in_ip inet addr add 203.0.113.1/24 dev gateway
  in_ip inet addr add 2001:db8:203::1/64 dev gateway
  in_ip gateway addr add $GATEWAY4/24 dev wan
  in_ip gateway addr add $GATEWAY6/64 dev wan
  in_ip gateway route add default via 203.0.113.1
  in_ip gateway -6 route add default via 2001:db8:203::1
  in_ns inet sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
}

# Gives a laptop its place on the underlay; called again with another number, it has roamed.
underlay_address() {
  in_ip "$1" addr flush dev eth0 scope global
  in_ip "$1" addr add "198.51.100.$2/24" dev eth0
  in_ip "$1" addr add "2001:db8:100::$2/64" dev eth0
  in_ip "$1" route replace default via 198.51.100.1
  in_ip "$1" -6 route replace default via 2001:db8:100::1
}

private_up() {
  wire gateway lan cluster lan
  in_ip gateway addr add $PRIVATE_GATEWAY/24 dev lan
  in_ip gateway addr add 2001:db8:77::1/64 dev lan
  in_ip cluster addr add $PRIVATE_CLUSTER/24 dev lan
  in_ip cluster addr add 2001:db8:77::2/64 dev lan
  local a
  for a in "${NODES[@]}"; do
    in_ip cluster addr add "$a/32" dev lo
    in_ip gateway route add "$a/32" via $PRIVATE_CLUSTER
  done
  in_ip cluster addr add $KUBE6/128 dev lo
  in_ip gateway -6 route add $KUBE6/128 via 2001:db8:77::2
  in_ip cluster route add default via $PRIVATE_GATEWAY
  in_ip cluster -6 route add default via 2001:db8:77::1
}

# Takes everything of this run away. Safe to call at any time and twice.
world_down() {
  [ -n "${W:-}" ] || return 0
  processes_end
  local h
  for h in "${HOSTS[@]}"; do
    [ -e "/run/netns/$WORLD-$h" ] && ip netns del "$WORLD-$h"
  done
  [ -n "${KEEP_LOGS:-}" ] && mkdir -p "$KEEP_LOGS" && cp -r "$W/log" "$KEEP_LOGS/${TEST:-world}-$$"
  # A gateway that was killed leaves its counts in shared memory; a test may have mounted a disk of its own.
  rm -f /dev/shm/postern*"${W//\//_}"*.made
  awk -v w="$W/" 'index($2, w) == 1 { print $2 }' /proc/self/mounts | xargs -r umount
  rm -rf "$W"
  W=
}
