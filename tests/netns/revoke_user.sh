#!/usr/bin/env bash
# user disable and session revoke cut live flows of every device of the user within a second, and nobody else's; enable gives
# back. Ana's and Bob's devices are each another worker's (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up $'workers: 2\nsession: { required: true }'
joined laptop --user ana@example.com --group admins
joined laptop2 --user bob@example.com --group admins
wait_for 5 "ana's target" is_open laptop
wait_for 5 "bob's target" is_open laptop2

step "user disable: ana's flows are cut, bob's live"
stream laptop anas
stream laptop2 bobs
since=$(now_ms)
assert_ok "user disable" admin user disable ana@example.com
assert_cut "$since" anas "user disable"
assert_alive bobs "bob's stream"
assert_match "afterwards" '^(refused|prohibited|timeout)' "$(probe laptop tcp $KUBE 7000)"
wait_record "the cut" '.user == "ana@example.com" and .close_reason == "revoked"'
assert_audit "the change" '.action == "user-disable" and .object == "ana@example.com" and .actor == "admin"'

step "it holds over kill -9 and a restart"
stop gateway KILL || true
gateway_start
wait_for 10 "bob to be back" is_open laptop2
assert_match "ana" '^(refused|prohibited|timeout|unreachable)' "$(probe laptop tcp $KUBE 7000)"

step "user enable gives back"
assert_ok "user enable" admin user enable ana@example.com
wait_for 10 "ana's target" is_open laptop

step "session revoke: the login ends, and with it what needs it"
stop bobs
stream laptop anas
stream laptop2 bobs
id=$(admin session list -o json | jq -r '[.[] | select(.user == "ana@example.com")][0].id')
since=$(now_ms)
assert_ok "session revoke" admin session revoke "$id"
assert_cut "$since" anas "session revoke"
wait_record "the cut" '.user == "ana@example.com" and .close_reason == "session"'
assert_audit "the end" '.action == "session-end" and .object == "'"$id"'"'
assert_match "login --status" 'log' "$(client laptop login --status 2>&1 || true)"
assert_alive bobs "bob's stream"
assert_ok "flows verify" admin flows verify
test_ok
