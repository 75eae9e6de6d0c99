#!/usr/bin/env bash
# A device takes a new key under live flows; the old one never comes back (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up "workers: 2"
joined laptop --user ana@example.com --group admins
wait_for 5 "the target" is_open laptop
key_of() { admin device show laptop-laptop -o json | jq -r .public_key; }
address=$(address_of laptop-laptop)
cp "$W/host/laptop/profile" "$W/stolen"

step "rotate-key: another key, the same flows and addresses"
for round in 1 2; do
  stream laptop talk
  ssh_ticking ticks laptop $KUBE
  wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
  before=$(key_of)
  assert_ok "rotate-key, round $round" client laptop rotate-key
  other_key() { [ "$(key_of)" != "$before" ]; }
  wait_for 5 "another key" other_key
  assert_alive talk "the stream, after the change of keys"
  assert_alive ticks "the ssh session, after the change of keys"
  assert_eq "the address" "$address" "$(address_of laptop-laptop)"
  stop talk; stop ticks
done
assert_audit "the new key" '.action == "key-rotate" and .outcome == "done"'
assert_eq "mode of the profile" 600 "$(stat -c %a "$W/host/laptop/profile")"

step "a copy of the old profile is worth nothing"
cp "$W/stolen" "$W/host/laptop2/profile"
start client-laptop2 laptop2 "$CLIENT_BIN" up "$W/host/laptop2/profile"
capture_start answers laptop2 eth0 "src host $GATEWAY4 and udp"
sleep 6   # more than one try of a handshake
assert_match "the thief's way to a target" '^(timeout|unreachable|prohibited|refused)' "$(probe laptop2 tcp $KUBE 7000)"
assert_eq "answers to the old key" "" "$(capture_stop answers laptop2 inet 198.51.100.12)"
assert_probe laptop open 2000 tcp $KUBE 7000

step "the new key works after both ends restart"
stop client-laptop
stop gateway KILL || true
gateway_start
client_start laptop
wait_for 5 "the target" is_open laptop
assert_ok "flows verify" admin flows verify
test_ok
