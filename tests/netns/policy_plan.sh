#!/usr/bin/env bash
# What a policy would break is known before it is in force, by judging real flows again (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up
client_up laptop ana-laptop ana@example.com admins

step "kubectl and ssh are used, and something is refused"
assert_ok "kubectl version" kubectl_in laptop version
assert_ok "ssh to a node" ssh_in laptop "$KUBE" true
assert_probe laptop refused 1000 tcp $KUBE 8080
wait_record "kubectl" '.rule == "kubectl to the API server" and .state == "closed"'
wait_record "ssh" '.rule == "ssh to the nodes" and .state == "closed"'
wait_record "the refusal" '.state == "denied" and .dst_port == 8080'

# plan STATUS FILE [SINCE]: judges it; the JSON is in PLAN, what people see in SEEN
plan() {
  local status=0 since=${3:-1h}
  PLAN=$(admin policy plan "$2" --since "$since" -o json 2>"$W/log/plan.log") || status=$?
  [ "$status" = "$1" ] || fail "policy plan to exit with $1" "status $status: $(cat "$W/log/plan.log")"
  SEEN=$(admin policy plan "$2" --since "$since" 2>&1) || true
}
of_plan() { jq -r "$1" <<<"$PLAN"; }

step "the same policy changes nothing"
policy >"$W/same.yaml"
plan 0 "$W/same.yaml"
assert_eq "newly denied" 0 "$(of_plan .newly_denied.attempts)"
assert_eq "newly allowed" 0 "$(of_plan .newly_allowed.attempts)"
assert_eq "by another rule" 0 "$(of_plan .by_another_rule)"
assert_eq "judged without facts" 0 "$(of_plan .approximate)"
assert_eq "what is unchanged" "$(of_plan .attempts)" "$(of_plan .unchanged)"
assert_at_least "attempts" 3 "$(of_plan .attempts)"
assert_eq "differences" 0 "$(of_plan '.differences | length')"

step "a policy that breaks ssh and opens a port: exit code 2, and both are named"
policy_without 'ssh to the nodes' | sed 's|6443/tcp|6443/tcp, 8080/tcp|' >"$W/new.yaml"
plan 2 "$W/new.yaml"
assert_eq "what breaks" "ssh to the nodes $KUBE:22/tcp ana@example.com ana-laptop" \
  "$(of_plan '.examples[] | select(.change == "newly-denied") | [.was, .to, .user, .device] | join(" ")')"
assert_eq "what opens" "$KUBE:8080/tcp kubectl to the API server" \
  "$(of_plan '.examples[] | select(.change == "newly-allowed") | [.to, .is] | join(" ")')"
assert_eq "the difference" "removed ssh to the nodes, changed kube-api" \
  "$(of_plan '[.differences[] | "\(.change) \(.name)"] | join(", ")')"
assert_match "the table" 'Newly denied:' "$SEEN"
assert_match "its row" 'ana@example.com on ana-laptop +192\.0\.2\.10:22/tcp +ssh to the nodes -> default' "$SEEN"
echo "$SEEN" | sed 's/^/      /'

step "a policy whose tests fail: exit code 2"
{ policy; echo 'tests: [{ user: ana@example.com, to: "192.0.2.10:22/tcp", expect: allow }]'; } >"$W/untested.yaml"
plan 2 "$W/untested.yaml"
assert_eq "its failing test" 1 "$(of_plan '[.tests[] | select(.passed | not)] | length')"

step "a name that nobody has is a warning, and what to write"
policy | sed 's/groups: \[admins\] }, to: \[nodes\]/groups: [admin] }, to: [nodes]/' >"$W/typo.yaml"
assert_ok "policy check" admin policy check "$W/typo.yaml"
assert_match "the warning" 'warning: nobody is in the group `admin`.*did you mean `admins`' "${OUT//$'\n'/ }"
assert_ok "policy check of the policy in force" admin policy check
! grep -q warning <<<"$OUT" || fail "no warning" "$OUT"

step "the suggestion is a policy, keeps what was used, and has no more"
admin policy suggest --since 1h >"$W/suggested.yaml" 2>"$W/log/suggest.log" ||
  fail "policy suggest to succeed" "$(cat "$W/log/suggest.log")"
sed 's/^/      /' "$W/suggested.yaml" "$W/log/suggest.log"
assert_ok "policy check of it" admin policy check "$W/suggested.yaml"
plan 0 "$W/suggested.yaml"
assert_eq "what it opens" 0 "$(of_plan .newly_allowed.attempts)"
grep -q 'name: "ssh to the nodes"' "$W/suggested.yaml" || fail "the rule for ssh to be kept" "$(cat "$W/suggested.yaml")"
grep -q '"the lab"' "$W/suggested.yaml" || fail "the unused rule to be listed" "$(cat "$W/suggested.yaml")"
assert_match "what is said of it" 'the lab: left out; last used -' "$(cat "$W/log/suggest.log")"
grep -q "$KUBE" "$W/suggested.yaml" || fail "the used address" "$(cat "$W/suggested.yaml")"
! grep -A3 'name: "ssh to the nodes"' "$W/suggested.yaml" | grep -q 91.107.250.5 || fail "no unused address" "91.107.250.5"

step "a flow that began before and is open counts, although no record of that time has it"
stream laptop anas
wait_record "the stream" '.rule == "the lab" and .state == "open"'
since=$(date -u +%FT%T.%3NZ)
policy_without 'the lab' >"$W/nolab.yaml"
plan 2 "$W/nolab.yaml" "$since"
assert_eq "open flows" '1 1 0 false' "$(of_plan '.open_flows | [.flows, .newly_denied, .not_judged, .more] | map(tostring) | join(" ")')"
assert_eq "what breaks" "1 the lab $KUBE:7000/tcp ana@example.com ana-laptop" \
  "$(of_plan '.examples[] | [.open, .was, .to, .user, .device] | map(tostring) | join(" ")')"
assert_match "the table" 'open flows: +1 of these attempts began before and are open: 1 newly denied' "$SEEN"
assert_match "its row" 'open +1 +ana@example.com on ana-laptop +192\.0\.2\.10:7000/tcp' "$SEEN"
plan 0 "$W/same.yaml" "$since"
assert_eq "open flows" '1 0' "$(of_plan '.open_flows | "\(.flows) \(.newly_denied)"')"
plan 2 "$W/nolab.yaml"
assert_eq "open flows that began since" 0 "$(of_plan .open_flows.flows)"
assert_eq "what breaks" 1 "$(of_plan .newly_denied.attempts)"
admin policy suggest --since "$since" >"$W/suggested.yaml" 2>"$W/log/suggest.log" ||
  fail "policy suggest to succeed" "$(cat "$W/log/suggest.log")"
grep -q 'name: "the lab"' "$W/suggested.yaml" || fail "the rule of the open flow to be kept" "$(cat "$W/suggested.yaml")"

stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"

step "without a gateway nobody knows them, and that is said"
plan 0 "$W/same.yaml" "$(date -u +%FT%T.%3NZ)"
assert_eq "open flows" null "$(of_plan .open_flows)"
assert_match "the note" 'flows that began before .* are not known: no gateway is running' "$(cat "$W/log/plan.log")"
assert_match "the note with the table" 'are not known: no gateway is running' "$SEEN"
assert_clean_logs
test_ok
