#!/usr/bin/env bash
# One UDP port, and it answers no stranger: seen from outside, no datagram and no SYN is answered (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
assert_probe laptop open 2000 tcp $KUBE 6443

step "garbage of every kind and length is unanswered"
capture_start answers outside eth0 "src host $GATEWAY4 and udp"
assert_probe outside silent 4000 knock $GATEWAY4 51820 2000
assert_probe outside silent 4000 knock $GATEWAY6 51820 2000
seen=$(capture_stop answers outside inet 198.51.100.66)
[ -z "$seen" ] || fail "no datagram back" "$(head -3 <<<"$seen")"
wait_for 3 "the garbage to be counted" drops_above not-wireguard 500

step "a port scan finds no TCP port, and cannot tell the UDP port from a filtered one"
nmap_from_outside() { in_ns outside nmap -n -Pn --max-retries 1 "$@" -oG - $GATEWAY4; }
open=$(nmap_from_outside -sT -p 1-10000 | grep -oE '[0-9]+/open/tcp' || true)
assert_eq "open TCP ports" "" "$open"
assert_match "the UDP port" '51820/open\|filtered/udp' "$(nmap_from_outside -sU -p 51820)"
# Workers and the front door share one port.
listening=$(in_ns gateway ss -Hulnp | grep postern-gateway | grep -v '127.0.0.1:' | awk '{ sub(/.*:/, "", $4); print $4 }' | sort -u)
assert_eq "UDP ports of the gateway (v4 and v6)" 51820 "$listening"
assert_eq "TCP sockets of the gateway beyond loopback" "" "$(in_ns gateway ss -Htlnp | grep postern-gateway | grep -v '127.0.0.1:' || true)"

step "nothing grew, and the device works as before"
assert_probe laptop open 1000 tcp $KUBE 6443
assert_eq "devices" 1 "$(status_of_gateway | jq .devices)"
assert_clean_logs
test_ok
