# A small Internet in network namespaces: every test and the demo start here.
#
#                                      underlay (documentation addresses)        private network
#   laptop   198.51.100.11 ──┐                                                      ┌─ 192.0.2.10     kube API :6443, sshd :22
#   laptop2  198.51.100.12 ──┤                                                      ├─ 5.75.198.10    sshd :22
#   stock    198.51.100.13 ──┼── inet ── 203.0.113.2 gateway 10.77.0.1 ── 10.77.0.2 ┼─ 91.107.250.5   sshd :22
#   server   198.51.100.14 ──┤  (router)                               cluster      ├─ 65.109.212.122 sshd :22
#   outside  198.51.100.66 ──┘                                                      └─ 2001:db8:a::10 kube API, sshd
#
#   laptop   `postern up` as ana, group admins         stock   wireguard-go + wg as a client of the gateway
#   laptop2  `postern up` as bob, group visitors       server  wireguard-go + wg as the far end of `postern up`
#   outside  no key: the attacker on the Internet      inet    routes between everybody, owns the .1 addresses
#
# A test may name more hosts: idp, 198.51.100.15, an identity provider.
# IPv6: laptops 2001:db8:100::11…66/64, gateway 2001:db8:203::2, private side 2001:db8:77::1 and ::2.
# No packet leaves the machine. Namespaces are named postern-PID-HOST. Each host has its own /run, /var/lib
# and HOME. Whatever ends the script (exit, failure, ^C, TERM) takes everything away; processes end by pid.
#
#   source "$(dirname "$0")/lib.sh" || exit 1     # then: test_begin, world_up, gateway_up, …, test_ok

set -Eeuo pipefail

NETNS_DIR=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
REPO=$(cd "$NETNS_DIR/../.." && pwd)
BIN=${POSTERN_BIN:-$REPO/target/release}
PYTHON=$([ -x /usr/bin/python3 ] && echo /usr/bin/python3 || command -v python3)

for part in world process check services postern enrol login stock load; do
  # shellcheck source=/dev/null
  source "$NETNS_DIR/lib/$part.sh"
done
unset part
