#!/usr/bin/env bash
# IPv6 inside and outside: kubectl and ssh to an IPv6 target, over an IPv6 underlay (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
kubectl6() { in_ns laptop kubectl --kubeconfig "$W/kube/config6" "$@"; }

step "inner IPv6 over outer IPv4"
assert_ok "kubectl over IPv6" kubectl6 get pods
assert_ok "ssh over IPv6" ssh_in laptop $KUBE6 echo hello
capture_start target cluster lan
assert_probe laptop refused 1000 tcp $KUBE6 8080
assert_probe laptop prohibited 1000 udp $KUBE6 5354
assert_probe laptop prohibited 1000 ping $KUBE6
assert_cluster_silent target "during denied attempts over IPv6"
wait_record "ssh over IPv6" '.dst_address == "'$KUBE6'" and .dst_port == 22 and .state == "closed" and .rule == "ssh to the nodes"'
wait_record "the denial over IPv6" '.dst_address == "'$KUBE6'" and .verdict == "deny" and .device == "ana-laptop"'

step "outer IPv6"
stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
sed -i "s|['\"]\?$GATEWAY4:51820['\"]\?|\"[$GATEWAY6]:51820\"|" "$W/host/laptop/profile"
client_start laptop
assert_ok "kubectl, both IPv6" kubectl6 get pods
assert_ok "ssh, inner IPv4" ssh_in laptop $KUBE echo hello
assert_match "the endpoint that the gateway sees" '2001:db8:100::11' "$(admin status -o json | jq -r '.worker.peers[0].endpoint')"

step "roaming to IPv6 addresses"
ssh_ticking ticks laptop $KUBE6
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
lines=$(lines_in ticks) since=$(now_ms)
underlay_address laptop 121
# only the far side speaks: the client itself must say where it is now
wait_for 5 "the ssh session to go on after roaming" more_lines_than ticks $((lines + 2))
echo "      the far side is heard again $(($(now_ms) - since)) ms after the address changed"
assert_alive ticks "the ssh session"
assert_clean_logs
test_ok
