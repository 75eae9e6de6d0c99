#!/usr/bin/env bash
# A change of the policy: applied, confirmed through the tunnel, taken back by itself, rolled back; refused where it would cut
# who applies it; and with watch: false nothing else changes it (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up
joined laptop --user ana@example.com --group admins
wait_for 5 "ana's target" is_open laptop

in_force() { status_of_gateway | jq -r .policy.hash; }
hash_of() { sha256sum "$1" | cut -d' ' -f1; }
file_agrees() { gateway_says '.policy.file_in_force' >/dev/null && [ "$(hash_of "$GW/policy.yaml")" = "$(in_force)" ]; }
none_waits() { gateway_says '.policy.pending == null'; }
FIRST=$(in_force)
policy_without 'kubectl to the API server' >"$W/narrow.yaml"
policy_without 'the lab' >"$W/lockout.yaml"
NARROW=$(hash_of "$W/narrow.yaml")

step "apply, and a confirmation through the tunnel"
assert_ok "apply" admin policy apply "$W/narrow.yaml" --confirm-within 2m --as ana@example.com -o json
token=$(grep -v ^note: <<<"$OUT" | jq -r .token)
assert_eq "the policy in force" "$NARROW" "$(in_force)"
file_agrees || fail "the file to be what is in force" "$(status_of_gateway | jq -c .policy)"
assert_probe laptop refused 1000 tcp $KUBE 6443
assert_at_least "the deadline" 1 "$(metric postern_policy_pending_deadline_timestamp_seconds)"
policy | policy_put
wait_for 3 "an edit to be refused meanwhile" gateway_says '.policy.ok == false and .policy.file_in_force == false'
assert_eq "the metric of the file" 1 "$(metric postern_policy_file_differs)"
cp "$W/narrow.yaml" "$GW/policy.yaml"
wait_for 3 "the file to be well again" file_agrees
assert_fails "a wrong token" client laptop confirm aaaa-bbbb-cccc
assert_audit "the wrong token" '.action == "policy-confirm" and .outcome == "refused" and .actor == "device"'
assert_ok "confirm" client laptop confirm "$token"
none_waits >/dev/null || fail "nothing to wait" "$(status_of_gateway | jq -c .policy)"
assert_audit "the confirmation" '.action == "policy-confirm" and .outcome == "done" and .after.policy == "'"$NARROW"'"'
assert_fails "a second confirmation" client laptop confirm "$token"

step "rollback"
assert_ok "rollback" admin policy rollback
assert_eq "the policy in force" "$FIRST" "$(in_force)"
file_agrees || fail "the file to follow" "$(status_of_gateway | jq -c .policy)"
assert_probe laptop open 1000 tcp $KUBE 6443

step "a change that cuts who applies it is refused"
stream laptop anas
assert_fails "apply" admin policy apply "$W/lockout.yaml" --as ana@example.com
assert_match "the refusal" "live flows of ana@example.com.*$KUBE:7000/tcp" "${OUT//$'\n'/ }"
assert_alive anas "ana's stream"
assert_eq "the policy in force" "$FIRST" "$(in_force)"
SSH_CONNECTION="$(admin device list -o json | jq -r '.[0].addresses[0]') 50000 192.0.2.1 22"
export SSH_CONNECTION
assert_fails "apply over ssh through the tunnel" admin policy apply "$W/lockout.yaml"
unset SSH_CONNECTION

step "forced with a reason, and taken back by itself"
since=$(now_ms)
assert_ok "a forced change" admin policy apply "$W/lockout.yaml" --confirm-within 3s --as ana@example.com --force --reason INC-42
assert_cut "$since" anas "the forced change"
assert_audit "the force" '.action == "policy-apply" and .outcome == "done" and .after.forced == "INC-42" and .after.own_flows_cut >= 1'
is_shut laptop || fail "the target to be shut" "it is open"
wait_for 5 "the policy before" is_open laptop
assert_at_most "ms until it came back" 4500 $(($(now_ms) - since))
assert_eq "the policy in force" "$FIRST" "$(in_force)"
file_agrees || fail "the file to follow" "$(status_of_gateway | jq -c .policy)"
assert_audit "the way back" '.action == "policy-revert" and .actor == "gateway"'
assert_fails "a rollback to what was taken back" admin policy rollback
assert_match "where to look" 'no earlier policy.*policy history' "${OUT//$'\n'/ }"
assert_eq "the policy in force" "$FIRST" "$(in_force)"

step "a killed gateway takes it back when it starts again"
assert_ok "apply" admin policy apply "$W/narrow.yaml" --confirm-within 1s --as ana@example.com
stop gateway KILL || true
wait_for 3 "its time to be over" eval '[ "$(hash_of "$GW/policy.yaml")" = "$NARROW" ] && sleep 1'
gateway_start
assert_eq "the policy in force" "$FIRST" "$(in_force)"
wait_for 3 "the file to follow" file_agrees

step "watch: false: an edit only differs"
echo 'policy_change: { watch: false }' >>"$GW/gateway.yaml"
assert_ok "reload" admin policy reload
cp "$W/narrow.yaml" "$GW/policy.yaml"
wait_for 3 "the difference to be said" gateway_says '.policy.ok and .policy.file_in_force == false'
assert_eq "the policy in force" "$FIRST" "$(in_force)"
stop gateway
gateway_start
assert_eq "the policy in force after a restart" "$FIRST" "$(in_force)"
assert_ok "apply of the file" admin policy apply --as ana@example.com
assert_eq "the policy in force" "$NARROW" "$(in_force)"

step "history, show and diff"
assert_eq "the history, newest first" "apply revert apply revert apply rollback apply" \
  "$(admin policy history -o json | jq -r '[.[].how][:7] | join(" ")')"
admin policy show "${FIRST:0:8}" | cmp - <(policy) || fail "the first policy to be kept" "another text"
assert_fails "diff of different policies" admin policy diff "${FIRST:0:8}" current
assert_match "the difference" "- rule kubectl to the API server" "$OUT"
assert_ok "flows verify" admin flows verify
test_ok
