#!/usr/bin/env bash
# What was taken away stays away: after kill -9 right behind the command, with the same profile, the same string, the same key
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up
string=$(invite --user ana@example.com --group admins)
assert_ok "join" join laptop "$string" --name ana-laptop
client_start laptop
wait_for 5 "the target" is_open laptop

step "device revoke: cut at once, and on disk when the command returns"
stream laptop talk
assert_ok "revoke" admin device revoke ana-laptop
stop gateway KILL || true
wait_for 5 "the stream to end" gone "$(pid_of talk)"
gateway_start
assert_eq "the state after a restart" revoked "$(state_of ana-laptop)"
assert_audit "the revocation" '.action == "device-revoke" and .outcome == "done" and .object == "ana-laptop"'
assert_match "the target" '^(timeout|unreachable|prohibited|refused)' "$(probe laptop tcp $KUBE 7000)"

step "neither the same string nor the same key comes back"
stop client-laptop || true
rm -f "$W/host/laptop/profile"
assert_fails "join with the same string" join laptop "$string" --name ana-again
key=$(admin device show ana-laptop -o json | jq -r .public_key)
assert_fails "device add with the same key" admin device add ana-third --user ana@example.com --public-key "$key"
assert_fails "device add with the same name" admin device add ana-laptop --user ana@example.com

step "a device that was about to take another key: revoked with that one, over kill -9"
stock_client stock bob-phone bob@example.com admins 100.96.0.1/32
assert_probe stock open 5000 tcp $KUBE 7000
next=$(wg genkey)
code=$(in_ns stock curl -s -m 5 -o "$W/said" -w '%{http_code}' -H 'content-type: application/json' \
  -d "{\"public_key\":\"$(wg pubkey <<<"$next")\"}" http://100.96.0.1:9477/v1/keys)
assert_eq "the answer to a new key" 200 "$code"
assert_ok "revoke" admin device revoke bob-phone
stop gateway KILL || true
gateway_start
assert_eq "the state after a restart" revoked "$(state_of bob-phone)"
in_ns stock wg set wg0 private-key /dev/stdin <<<"$next"
capture_start answers stock eth0 "src host $GATEWAY4 and udp"
assert_match "the target, with the key that was to come" '^(timeout|unreachable)' "$(probe stock tcp $KUBE 7000)"
assert_eq "answers to it" "" "$(capture_stop answers stock inet 198.51.100.13)"

step "history stays: who it was, and every line of the log"
assert_eq "the user in the history" ana@example.com "$(admin device show ana-laptop -o json | jq -r .user)"
assert_ok "flows verify" admin flows verify
lost=$(log_events '.event == "crashed-run"' | jq -s 'map(.audit_lost) | add')
assert_eq "audit events lost by kill -9" 0 "$lost"
test_ok
