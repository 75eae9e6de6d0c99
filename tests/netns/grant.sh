#!/usr/bin/env bash
# Access for a while: ana asks, bob approves from his laptop, and its end cuts; nobody approves their own; break-glass needs
# nobody and is counted (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000

# The lab and ssh are for nobody by rule: grants give them.
with_grants() {
  policy_without 'ssh to the nodes' | grep -v 'name: the lab'
  cat <<YAML
grants:
  - { name: nodes for a while, from: { groups: [admins] }, to: [nodes], max: 1h, approvers: { groups: [leads] } }
  - { name: the lab in an emergency, from: { groups: [admins] }, to: [lab], max: 30m, break_glass: true }
YAML
}
gateway_up
with_grants | policy_put
assert_ok "policy reload" admin policy reload
joined laptop --user ana@example.com --group admins --group leads
joined laptop2 --user bob@example.com --group leads
assert_ok "ana's second device to join" join stock "$(invite --user ana@example.com --group admins --group leads)" --name ana-tablet
second() { in_ns stock env HOME="$W/host/stock" "$CLIENT_BIN" "$@"; }

ask() { client laptop request "$@" -o json; }
id_of() { jq -r .id <<<"$OUT"; }
state_of_grant() { admin grant list --all -o json | jq -r '.[] | select(.id == "'"$1"'") | .state'; }
is_in_state() { [ "$(state_of_grant "$1")" = "$2" ]; }
refused_ssh() { assert_fails "ssh without a grant" ssh_in laptop "$KUBE" true; }

step "without a grant nothing; what nobody may ask for is refused with a word"
refused_ssh
assert_fails "a request without an entry" ask kube-api --for 10m --reason "INC-1 no entry"
assert_match "who can be asked" 'admin' "$OUT"
assert_fails "too long" ask nodes --for 2h --reason "INC-1 too long"
assert_match "the most" '3600' "$OUT"
assert_fails "break-glass where it is not allowed" ask nodes --for 10m --reason "INC-1 glass" --break-glass
assert_match "what is missing" 'break_glass' "$OUT"
assert_fails "no reason" ask nodes --for 10m --reason x
assert_audit "a refused request" '.action == "grant-request" and .outcome == "refused" and .device == "laptop-laptop" and .user == "ana@example.com"'

step "ana asks and waits, bob sees it and approves, ana's ssh works"
start asking laptop "$CLIENT_BIN" request nodes --for 1h --reason "INC-42 disk full" --wait
waiting() { client laptop2 requests -o json | jq -e '.to_decide | length == 1' >/dev/null; }
wait_for 5 "bob to see the request" waiting
id=$(client laptop2 requests -o json | jq -r '.to_decide[0].id')
assert_match "what bob reads" 'INC-42 disk full' "$(client laptop2 requests)"
is_running asking || fail "ana's request to wait" "$(cat "$(log_of asking)")"

step "nobody approves their own: not here, not from another device, not by another name at the gateway"
assert_fails "ana approves" client laptop approve "$id"
assert_match "why not" 'their own' "$OUT"
client_start stock
assert_fails "ana approves from her second device" second approve "$id"
assert_match "why not" 'their own' "$OUT"
stop client-stock
assert_fails "an admin who is ana" admin grant approve "$id" --as ana@example.com
assert_fails "an admin who is nobody" admin grant approve "$id"
assert_match "what to say" '--as' "$OUT"
assert_fails "bob's word from ana's laptop" in_ns gateway env SSH_CONNECTION="$(address_of laptop-laptop) 40000 10.77.0.1 22" \
  "$GATEWAY_BIN" grant approve "$id" --as bob@example.com --config "$GW/gateway.yaml"
assert_eq "the state after all that" waits "$(state_of_grant "$id")"
assert_audit "such a try" '.action == "grant-approve" and .outcome == "refused" and .object == "'"$id"'"'

assert_ok "bob approves" client laptop2 approve "$id" --reason "be quick"
wait_for 5 "ana's request to end" gone "$(pid_of asking)"
assert_match "what ana reads" 'live until .*be quick' "$(cat "$(log_of asking)")"
assert_ok "ssh" ssh_in laptop "$KUBE" echo granted
assert_eq "what ssh printed" granted "$OUT"
wait_record "the ssh, with its grant and reason" '.device == "laptop-laptop" and .dst_port == 22 and .verdict == "allow"
  and .rule == "nodes for a while" and .grant == "'"$id"'" and .grant_reason == "INC-42 disk full"'
assert_match "status" "grant +$id nodes until" "$(client laptop status)"
assert_audit "the request" '.action == "grant-request" and .outcome == "done" and .object == "'"$id"'" and .from != null and .reason == "INC-42 disk full"'
assert_audit "the approval" '.action == "grant-approve" and .outcome == "done" and .object == "'"$id"'" and .user == "bob@example.com"'

step "a restart changes nothing: the grant lives, a request still waits"
assert_ok "another request" ask nodes --for 10m --reason "INC-43 later"
other=$(id_of)
stop gateway KILL || true
gateway_start
assert_eq "the request" waits "$(state_of_grant "$other")"
assert_eq "the grant" live "$(state_of_grant "$id")"
wait_for 10 "ssh again" ssh_in laptop "$KUBE" true

step "revoke: the live ssh is cut within a second"
ssh_ticking ticks laptop "$KUBE"
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
since=$(date +%s%3N)   # the clock of records
assert_ok "revoke" admin grant revoke "$id" --reason "INC-42 is over"
wait_for 2 "the cut" record_exists '.dst_port == 22 and .close_reason == "grant-ended" and .grant == "'"$id"'"'
cut=$(records '.dst_port == 22 and .close_reason == "grant-ended" and .grant == "'"$id"'"' | tail -1 | jq -r .time)
at=$(date -d "$cut" +%s%3N)
assert_at_most "ms from the command to the cut" 1000 $((at - since))
wait_for 5 "ssh to end" gone "$(pid_of ticks)"
echo "      revoked: cut $((at - since)) ms after the command began"
refused_ssh
assert_audit "the revocation" '.action == "grant-revoke" and .object == "'"$id"'" and .actor == "admin" and .reason == "INC-42 is over"'

step "deny: nothing is given, and ana reads why"
assert_ok "deny" client laptop2 deny "$other" --reason "not today"
assert_eq "the state" denied "$(state_of_grant "$other")"
assert_match "what ana reads" 'denied.*not today' "$(client laptop requests)"
assert_fails "approving afterwards" client laptop2 approve "$other"
assert_match "why not" 'denied already' "$OUT"
refused_ssh
assert_audit "the denial" '.action == "grant-deny" and .object == "'"$other"'" and .user == "bob@example.com"'

step "the end of its time cuts the live ssh within a second; a restart meanwhile changes nothing"
assert_ok "a short request" ask nodes --for 12s --reason "INC-44 short"
short=$(id_of)
assert_ok "approve at the gateway" admin grant approve "$short" --as bob@example.com
until=$(admin grant list -o json | jq -r '.[] | select(.id == "'"$short"'") | .until')
stop gateway KILL || true
gateway_start
wait_for 5 "ssh" ssh_in laptop "$KUBE" true
ssh_ticking brief laptop "$KUBE"
wait_for 5 "the ssh session" grep -q tick "$(log_of brief)"
wait_for 20 "the cut" record_exists '.close_reason == "grant-ended" and .grant == "'"$short"'"'
cut=$(records '.close_reason == "grant-ended" and .grant == "'"$short"'"' | tail -1 | jq -r .time)
late=$(($(date -d "$cut" +%s%3N) - until * 1000))
echo "      the end: cut $late ms after it"
assert_at_most "ms from the end to the cut" 1000 $late
assert_at_least "ms from the end to the cut" 0 $late
wait_for 5 "ssh to end" gone "$(pid_of brief)"
wait_for 5 "the grant to be over" is_in_state "$short" over
audited_end() { audit_exists '.action == "grant-end" and .object == "'"$short"'" and .actor == "gateway"'; }
wait_for 5 "an audit line of the end" audited_end

step "break-glass: at once, counted, recorded"
before=$(metric postern_break_glass_total)
assert_fails "the lab before" is_open laptop
assert_ok "break-glass" ask lab --for 10m --reason "INC-45 all is on fire" --break-glass
glass=$(id_of)
assert_eq "its state" live "$(jq -r .state <<<"$OUT")"
assert_ok "the lab" is_open laptop
assert_eq "uses of break-glass" $((before + 1)) "$(metric postern_break_glass_total)"
assert_audit "the use" '.action == "break-glass" and .outcome == "done" and .object == "'"$glass"'" and .user == "ana@example.com" and .reason == "INC-45 all is on fire"'
wait_record "the flow" '.dst_port == 7000 and .verdict == "allow" and .grant == "'"$glass"'" and .grant_reason == "INC-45 all is on fire"'
assert_ok "withdraw" client laptop withdraw "$glass"
assert_fails "the lab afterwards" is_open laptop

step "who is disabled asks for nothing, and an admin's list has it all"
assert_ok "user disable" admin user disable ana@example.com
assert_fails "a request of a disabled user" ask nodes --for 10m --reason "INC-46 disabled"
assert_match "why not" 'disabled' "$OUT"
assert_eq "open grants" 0 "$(admin grant list -o json | jq length)"
assert_ok "flows verify" admin flows verify
test_ok
