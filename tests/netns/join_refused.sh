#!/usr/bin/env bash
# An invitation that is bent, forged, used, too old or taken back lets nobody in; two laptops with one string are one device;
# a throw-away key reaches nothing but enrolment (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
guest() { "$PYTHON" "$NETNS_DIR/guest.py" "$@"; }
devices() { admin device list -o json | jq length; }

late=$(invite --user carl@example.com --expires 60s)

step "a mangled paste is told on the laptop, before any packet"
string=$(invite --user ana@example.com --group admins)
capture_start sent laptop eth0 "udp and dst host $GATEWAY4"
for bent in "$(guest mangle "$string")" "${string%??????}" "postern1-" "hello" "${string/postern1-/postern9-}"; do
  assert_fails "join with a bent string" join laptop "$bent"
  assert_no_match "what it says" 'used|expired|revoked|no answer' "$OUT"
done
stop sent
assert_fails "join with a forged secret" join laptop "$(guest forge "$string")"
assert_match "what it says of a forged one" 'no answer' "$OUT"

step "two laptops, one personal string, at the same time: exactly one wins"
for h in laptop laptop2; do
  start "join-$h" $h "$CLIENT_BIN" join "$string" --profile "$W/host/$h/profile" --name "$h-laptop"
done
for h in laptop laptop2; do wait_for 60 "the join of $h to end" gone "$(pid_of "join-$h")"; done
won=0
for h in laptop laptop2; do [ ! -e "$W/host/$h/profile" ] || { won=$((won + 1)); winner=$h; }; done
assert_eq "laptops that joined" 1 $won
assert_eq "devices" 1 "$(devices)"
loser=$([ "$winner" = laptop ] && echo laptop2 || echo laptop)
assert_match "what the other was told" 'used already|no answer' "$(cat "$(log_of "join-$loser")")"

step "used: another key is refused and recorded, with the address"
# While the winner's throw-away tunnel lives (10 s), a second place gets no answer at all.
told() { ! join "$loser" "$string" >"$W/said" 2>&1 && grep -q 'used already' "$W/said"; }
wait_for 30 "a used string to be called so" told
assert_audit "the refused join" '.action == "join" and .outcome == "refused" and .actor == "guest" and .from != null'
assert_eq "devices" 1 "$(devices)"

step "expired and revoked, each in its own words"
is_late() { admin invite list --all -o json | jq -e 'any(.user == "carl@example.com" and .state == "expired")'; }
wait_for 70 "an invitation to expire" is_late
assert_fails "join with an expired string" join "$loser" "$late"
assert_match "what it says" 'expired|no answer' "$OUT"
gone=$(invite --user bob@example.com)
id=$(admin invite list -o json | jq -r '[.[] | select(.user == "bob@example.com")] | last | .id')
assert_ok "invite revoke" admin invite revoke "$id"
assert_fails "join with a revoked string" join "$loser" "$gone"
assert_match "what it says" 'revoked|no answer' "$OUT"
assert_audit "the revocation" '.action == "invitation-revoke" and .object == "'"$id"'"'
assert_eq "devices" 1 "$(devices)"

step "a throw-away key reaches enrolment and nothing else"
capture_start target cluster lan
guest wg "$(invite --open --require login)" 0 >"$W/guest.conf"
stock_up stock "$W/guest.conf"
assert_probe stock open 3000 tcp fd70:6f73:7465:726e::1 9477
said=$(in_ns stock curl -s -m 5 -g 'http://[fd70:6f73:7465:726e::1]:9477/v1/hello')
assert_match "hello" '"api": ?1' "$said"
for path in device config login keys posture why; do
  code=$(in_ns stock curl -s -m 5 -g -o /dev/null -w '%{http_code}' "http://[fd70:6f73:7465:726e::1]:9477/v1/$path")
  assert_match "the answer to /v1/$path" '^(403|405)$' "$code"
done
for at in "$KUBE 22" "$KUBE6 6443" "100.96.0.1 9477" "100.96.0.2 22" "fd70:6f73:7465:726e::1 22"; do
  # shellcheck disable=SC2086
  assert_match "a guest at $at" '^(refused|timeout|unreachable|prohibited)' "$(probe stock tcp $at)"
done
assert_cluster_silent target "while a guest tried"
wait_record "what the guest tried" '.verdict == "deny" and .deny_reason == "not-enrolled"'
assert_audit "what it asked and may not" '.action == "forbidden" and .actor == "guest"'
assert_eq "devices in the end" 1 "$(devices)"
assert_ok "flows verify" admin flows verify
test_ok
