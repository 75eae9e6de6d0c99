#!/usr/bin/env bash
# With require_approval a device that joined reaches nothing until an admin says so; join waits and says it; denying cuts
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up 'require_approval: true'

step "join waits and says so; nothing is reachable"
start join laptop "$CLIENT_BIN" join "$(invite --user ana@example.com --group admins)" --profile "$W/host/laptop/profile" --name ana-laptop
wait_for 20 "join to say that it waits" grep -q 'approval' "$(log_of join)"
is_running join || fail "join to wait" "$(cat "$(log_of join)")"
assert_match "device list" 'approval' "$(admin device list)"

step "approve: join ends, the tunnel comes up, policy decides"
assert_ok "approve" admin device approve ana-laptop
wait_for 10 "join to end" gone "$(pid_of join)"
client_start laptop
wait_for 5 "the target" is_open laptop
assert_audit "the approval" '.action == "device-approve" and .outcome == "done" and .actor == "admin" and .object == "ana-laptop"'

step "before approval, with the tunnel up, no packet reaches a target"
assert_ok "join without waiting" join laptop2 "$(invite --user bob@example.com --group admins)" --name bob-laptop --no-wait
capture_start target cluster lan
client_start laptop2
for port in 22 6443 7000; do
  assert_match "port $port" '^(refused|prohibited)' "$(probe laptop2 tcp $KUBE $port)"
done
assert_cluster_silent target "from a device that waits for approval"
wait_record "the refusal" '.verdict == "deny" and .device == "bob-laptop" and .deny_reason == "not-approved"'
assert_match "why" 'approv' "$(client laptop2 status; client laptop2 why $KUBE:7000 2>&1 || true)"
since=$(now_ms)
assert_ok "approve" admin device approve bob-laptop
wait_for 5 "the target, without a restart of the client" is_open laptop2
echo "      reachable $(($(now_ms) - since)) ms after the command began"

step "deny: live flows are cut on both sides"
stream laptop2 talk
since=$(now_ms)
assert_ok "deny" admin device deny bob-laptop
assert_cut "$since" talk "device deny"
assert_match "afterwards" '^(refused|prohibited|timeout)' "$(probe laptop2 tcp $KUBE 7000)"
wait_record "the cut" '.device == "bob-laptop" and .close_reason == "revoked"'
assert_audit "the denial" '.action == "device-deny" and .object == "bob-laptop"'
assert_ok "flows verify" admin flows verify
test_ok
