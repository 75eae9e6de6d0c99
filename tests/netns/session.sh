#!/usr/bin/env bash
# A rule that asks for a young login: what needs it is cut when the login becomes too old, what does not lives on
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up 'session: { required: true, max_age: 12h }'
# A personal invitation is itself a login; the rule for port 7000 asks for one of the last twelve seconds.
young() { policy | sed 's/name: the lab, action: allow, from: { groups: \[admins\] }/name: the lab, action: allow, from: { groups: [admins], session_age: '"$1"' }/'; }
young 1h | policy_put
assert_ok "policy reload" admin policy reload
joined laptop --user ana@example.com --group admins
wait_for 5 "the target" is_open laptop
since=$(admin session list -o json | jq '.[0].since')
id=$(admin session list -o json | jq -r '.[0].id')
assert_match "login --status" 'ana@example.com|invitation' "$(client laptop login --status)"

step "a policy that asks for a younger login cuts, by itself, when the login becomes too old"
stream laptop talk
ssh_ticking ticks laptop $KUBE
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
age=$(($(date +%s) - since + 5))
young "${age}s" | policy_put
end_ms=$(( $(now_ms) + (since + age - $(date +%s)) * 1000 ))
wait_for 15 "the stream to end" gone "$(pid_of talk)"
read -r _ _ how at < <(grep '^ended' "$(log_of talk)")
assert_eq "how it ended" reset "$how"
assert_at_most "ms after the login became too old" 1500 $((at - end_ms))
assert_at_least "ms after the login became too old" -1500 $((at - end_ms))
wait_record "the cut" '.close_reason == "session" and .dst_port == 7000 and .device == "laptop-laptop"'
assert_alive ticks "the ssh session, whose rule asks for no age"
assert_match "a new one" '^(refused|prohibited)' "$(probe laptop tcp $KUBE 7000)"
assert_fails "why" client laptop why $KUBE:7000
assert_match "why" 'session|login' "$OUT"

step "the record names the session and its age, and no secret of it"
wait_record "the session" '.session == "'"$id"'" and .session_age_s != null'
assert_ok "logout" client laptop logout
wait_for 3 "ssh to be cut by the logout" gone "$(pid_of ticks)"
assert_audit "the end of the login" '.action == "session-end" and .outcome == "done"'
assert_ok "flows verify" admin flows verify
test_ok
