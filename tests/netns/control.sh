#!/usr/bin/env bash
# What a running tunnel says to the gateway: status, why, a changed include list, another key (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up
client_up laptop ana-laptop ana@example.com admins
heard() { client laptop status -o json | jq -e ".device.$1" >/dev/null; }

step "status: how the gateway sees this device"
wait_for 5 "the gateway's word" heard 'state == "active"'
status=$(client laptop status)
assert_match "status" 'device +ana-laptop \(ana@example.com, admins\): active' "$status"
assert_match "status" 'post-quantum key: no' "$status"

step "why says what the packets would meet, by address and by exit code"
assert_ok "why" client laptop why $KUBE:22
assert_match "why" 'ssh to the nodes' "$OUT"
assert_fails "why not" client laptop why $KUBE:8080
assert_eq "why as JSON" true "$(client laptop why $KUBE:22/tcp -o json | jq .allow)"

step "no program of the laptop reaches the control API"
assert_probe laptop refused 1000 tcp 100.96.0.1 9477

step "the include list follows the policy while connections live, and the profile with it"
stream laptop talk
routed() { in_ip laptop route get 192.0.2.77 | grep -q 'dev postern'; }
! routed || fail "192.0.2.77 to be beside the tunnel before" "$(in_ip laptop route get 192.0.2.77)"
{ policy | sed 's/^targets:/&\n  more: { addresses: [192.0.2.77], ports: [443\/tcp] }/'; } | policy_put
assert_ok "policy reload" admin policy reload
wait_for 2 "the new target to be routed, long before the next report" routed
assert_match "the profile" '192\.0\.2\.77' "$(cat "$W/host/laptop/profile")"
echo 'keepalive: 20s' >>"$GW/gateway.yaml"
wait_for 3 "the profile to follow gateway.yaml" grep -qE 'keepalive: "?20s' "$W/host/laptop/profile"
assert_eq "mode of the profile" 600 "$(stat -c %a "$W/host/laptop/profile")"
assert_eq "what reports and questions met" null "$(client laptop status -o json | jq -c .trouble)"
assert_alive talk "the stream"

step "rotate-key: another key, a post-quantum one, and the same connections"
before=$(admin device show ana-laptop -o json | jq -r .public_key)
assert_ok "rotate-key" client laptop rotate-key
other_key() { [ "$(admin device show ana-laptop -o json | jq -r .public_key)" != "$before" ]; }
wait_for 5 "another key" other_key
assert_alive talk "the stream"
pq() { client laptop status -o json | jq -e .post_quantum_key >/dev/null; }
wait_for 5 "a post-quantum key" pq
assert_probe laptop open 2000 tcp $KUBE 7000

step "and the new key works after a restart of the client"
stop talk
stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
client_start laptop
wait_for 5 "the target" is_open laptop
stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
