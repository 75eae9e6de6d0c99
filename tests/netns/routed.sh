#!/usr/bin/env bash
# egress: routed — targets see the device's own address, nothing is translated, and stopping leaves nothing (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up "egress: routed"
client_up laptop ana-laptop ana@example.com admins

step "the target sees the device itself"
device=$(address_of ana-laptop)
assert_ok "ssh" ssh_in laptop $KUBE 'echo $SSH_CONNECTION'
assert_match "the source that sshd sees" "^$device " "$OUT"
wait_record "that ssh with the source that sshd saw" \
  ".state == \"closed\" and .egress_address == \"$device\" and .egress_port == $(cut -d' ' -f2 <<<"$OUT")"
assert_ok "kubectl get pods" kubectl_in laptop get pods

step "no address is translated, and what is not allowed is refused as ever"
assert_eq "masquerade rules" 0 "$(in_ns gateway nft list ruleset | grep -c masquerade)"
assert_probe laptop refused 1000 tcp $KUBE 8080

step "a target that knows the device's address opens nothing"
capture_start inner laptop postern0 tcp
before=$(drops unsolicited)
in_ns cluster timeout 2 nc -z -w 1 "$device" 22 || true
assert_at_least "packets dropped as unsolicited" $((before + 1)) "$(drops unsolicited)"
# what was asked for comes back on the same wire, after whatever came before it
assert_ok "ssh" ssh_in laptop $KUBE true
wait_for 5 "the answers to ssh" grep -q "IP $KUBE.22 > $device" "$(log_of inner)"
stop inner
assert_eq "SYNs from targets" "" "$(grep 'Flags \[S\],' "$(log_of inner)" || true)"

step "stopping puts the host back"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_eq "tables of ours" "" "$(in_ns gateway nft list tables | grep postern || true)"
assert_clean_logs 'does not answer|no answer'
test_ok
