#!/usr/bin/env bash
# One pasted string: a laptop without root joins, comes up, and reaches what policy gives; each step has its audit line
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up

step "a personal invitation, redeemed by somebody without any privilege"
string=$(invite --user ana@example.com --group admins --expires 1h)
assert_match "the invitation" '^postern1-' "$string"
mkdir "$W/nobody"
cp "$CLIENT_BIN" "$W/nobody/postern"
chmod 711 "$W"; chown 65534:65534 "$W/nobody"
before=$(in_ip laptop -o link show; in_ip laptop -o addr show; in_ip laptop route show table all)
as_nobody() { in_ns laptop env HOME="$W/nobody" setpriv --reuid 65534 --regid 65534 --clear-groups --no-new-privs --bounding-set -all "$@"; }
assert_ok "join" as_nobody "$W/nobody/postern" join - --name ana-laptop --profile "$W/nobody/ana.yaml" -o json <<<"$string"
assert_match "what join says" '"post_quantum_key": true' "$OUT"
assert_eq "mode and owner of the profile" "600 65534" "$(stat -c '%a %u' "$W/nobody/ana.yaml")"
assert_eq "the laptop's interfaces, addresses and routes" "$before" \
  "$(in_ip laptop -o link show; in_ip laptop -o addr show; in_ip laptop route show table all)"
left=$(cd "$W/nobody" && ls -A | sort | tr '\n' ' ')
assert_eq "what join leaves behind" "ana.yaml postern " "$left"

step "the tunnel comes up, and policy decides"
cp "$W/nobody/ana.yaml" "$W/host/laptop/profile"
client_start laptop
assert_ok "kubectl" kubectl_in laptop get pods
assert_ok "ssh" ssh_in laptop $KUBE true
assert_probe laptop refused 1000 tcp $KUBE 8080
status=$(client laptop status -o json)
assert_match "status" 'post.?quantum' "$(client laptop status)$status"
assert_eq "the user of the device" ana@example.com "$(admin device show ana-laptop -o json | jq -r .user)"
wait_record "kubectl, as ana" '.verdict == "allow" and .user == "ana@example.com" and .device == "ana-laptop" and .dst_port == 6443'

step "postern why says the same as the packets"
assert_ok "why" client laptop why $KUBE:22
assert_match "why" 'ssh to the nodes' "$OUT"
assert_fails "why not" client laptop why $KUBE:8080

step "a machine joins, and has no user"
assert_ok "a machine to join" join laptop2 "$(invite --machine ci-runner --group admins)"
client_start laptop2
wait_for 5 "the machine to reach a target" is_open laptop2
assert_eq "the user of the machine" null "$(admin device show ci-runner -o json | jq -r .user)"

step "each step is in the log, and no secret"
assert_audit "the invitation" '.action == "invite" and .outcome == "done" and .actor == "admin" and .uid == 0'
assert_audit "the join" '.action == "join" and .outcome == "done" and .actor == "guest" and .object == "ana-laptop"
  and (.from | startswith("198.51.100.11:"))'
key=$(sed -n 's/^private_key: *//p' "$W/nobody/ana.yaml" | tr -d '"')
shared=$(sed -n 's/^preshared_key: *//p' "$W/nobody/ana.yaml" | tr -d '"')
[ -n "$key" ] && [ -n "$shared" ] || fail "secrets to look for" "a profile without them"
for secret in "$string" "$key"; do
  ! grep -rqF -- "$secret" "$GW/data" "$W/log/gateway.log" || fail "no secret of the laptop on the gateway's disk" "${secret:0:9}…"
done
# The pre-shared key is the gateway's as well: in its store, and nowhere else.
! grep -rqF -- "$shared" "$GW/data/flows" "$W/log/gateway.log" || fail "no pre-shared key in a log" "${shared:0:9}…"
sentence=$(admin flows list --kind audit --all)
assert_match "flows list" 'guest of [^ ]+ at 198\.51\.100\.11:[0-9]+  join  device ana-laptop  done' "$sentence"
assert_ok "flows verify" admin flows verify
numbers=$(audits true | jq -s -c 'map(.audit) == [range(1; length + 1)]')
assert_eq "audit numbers without a gap" true "$numbers"
assert_at_least "postern_audit_events_total" 4 "$(metric postern_audit_events_total)"
stop client-laptop; stop client-laptop2
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
