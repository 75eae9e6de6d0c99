#!/usr/bin/env bash
# Anyone may ask why, also afterwards: what explain, who-can, reach and report say of a moment is what the probes saw then,
# and every record judged again gives what it says (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up
guarded() {
  policy | sed 's/name: the lab, action: allow, from: { groups: \[admins\] }/name: the lab, action: allow, from: { groups: [admins], posture: [managed] }/'
  echo 'posture: { managed: { attribute: { name: managed, value: "yes" } } }'
}
guarded | policy_put
assert_ok "policy reload" admin policy reload
first=$(status_of_gateway | jq -r .policy.hash)
joined laptop --user ana@example.com --group admins
client_up laptop2 bob-laptop bob@example.com visitors
assert_ok "attribute" admin device attribute laptop-laptop set managed yes

moment() { date -u +%Y-%m-%dT%H:%M:%S.%3NZ; }
is_refused() { [ "$(probe laptop tcp "$@" | cut -d' ' -f1)" = refused ]; }
explain() { admin policy explain --device "$1" --to "$2" --at "$3" -o json; }
# assert_explain EXPECTED DEVICE TO AT RULE: verdict and rule of that moment, by the answer and by the exit code
assert_explain() {
  local said status=0
  said=$(explain "$2" "$3" "$4") || status=$?
  assert_eq "the answer for $2 to $3 at $4" "$1 $5" "$(jq -r '"\(.allow) \(.rule)"' <<<"$said")"
  assert_eq "its exit code" "$([ "$1" = true ] && echo 0 || echo 1)" "$status"
}
who() { admin policy who-can --to "$1" ${2:+--at "$2"} -o json | jq -r '[.rows[] | "\(.device):\(.access)"] | sort | join(" ")'; }

step "what holds now: probes, explain, who-can, reach and why agree"
wait_for 5 "the guarded target" is_open laptop
assert_ok "ssh" ssh_in laptop $KUBE echo hello
assert_probe laptop2 refused 1000 tcp $KUBE 22
wait_record "the ssh session" '.dst_port == 22 and .state == "closed" and .device == "laptop-laptop"'
wait_record "bob's attempt" '.dst_port == 22 and .state == "denied" and .device == "bob-laptop"'
assert_eq "who can" "laptop-laptop:allow" "$(who $KUBE:22/tcp)"
assert_eq "who can go to the nodes" "laptop-laptop:allow" "$(who nodes)"
assert_fails "bob's reach" admin policy reach --user bob@example.com
assert_match "ana's reach" 'yes +lab .*the lab' "$(admin policy reach --user ana@example.com)"
assert_ok "why" client laptop why $KUBE:7000
assert_eq "why, as JSON" "true 198.51.100.11" "$(client laptop why $KUBE:7000 -o json | jq -r '"\(.allow) \(.outer)"')"
before=$(moment)

step "posture and policy change"
assert_ok "attribute" admin device attribute laptop-laptop unset managed
wait_for 3 "the guarded target to be shut" is_refused $KUBE 7000
between=$(moment)
guarded | sed 's/\(name: ssh to the nodes, .*\)\[admins\]/\1[leads]/' | policy_put
wait_for 3 "ssh to be refused" is_refused $KUBE 22
# It may stand in the same summary as those at the other port, which is written within ten seconds.
wait_record "the refusal" '.state == "denied" and .device == "laptop-laptop" and ([.dst_port] + (.dst_ports // []) | index(22))' 12
after=$(moment)

step "explain --at says what the probes saw, at each moment"
assert_explain true laptop-laptop $KUBE:22/tcp "$before" "ssh to the nodes"
assert_explain true laptop-laptop $KUBE:7000/tcp "$before" "the lab"
assert_explain true laptop-laptop $KUBE:22/tcp "$between" "ssh to the nodes"
assert_explain false laptop-laptop $KUBE:7000/tcp "$between" default
assert_explain false laptop-laptop $KUBE:22/tcp "$after" default
assert_explain false bob-laptop $KUBE:22/tcp "$before" default
assert_eq "the policy of then" "$first" "$(explain laptop-laptop $KUBE:22/tcp "$before" | jq -r .policy)"
assert_eq "where it was on the Internet" 198.51.100.11 "$(explain laptop-laptop $KUBE:22/tcp "$before" | jq -r .outer)"
assert_match "what failed" 'managed' "$(explain laptop-laptop $KUBE:7000/tcp "$between" | jq -c .nearest.failed)"

step "so do who-can and reach"
assert_eq "who could" "laptop-laptop:allow" "$(who $KUBE:22/tcp "$before")"
assert_eq "who could, after" "" "$(who $KUBE:22/tcp "$after")"
assert_eq "who could go to the lab" "laptop-laptop:if" "$(who $KUBE:7000/tcp "$between")"
reach() { admin policy reach --device laptop-laptop --at "$1" -o json | jq -r '[.[0].ways[] | "\(.target):\(.access)"] | sort | join(" ")'; }
assert_eq "the reach before" "kube-api:allow lab:allow nodes:allow" "$(reach "$before")"
assert_eq "the reach between" "kube-api:allow lab:if nodes:allow" "$(reach "$between")"
assert_eq "the reach after" "kube-api:allow lab:if nodes:never" "$(reach "$after")"

step "a time of which nothing is known is an error that says from when on"
assert_fails "explain" admin policy explain --device laptop-laptop --to $KUBE:22/tcp --at 2020-01-01
assert_match "the error" 'nobody knows .*oldest that is known is of 20' "${OUT//$'\n'/ }"

step "every record judged again gives what it says: the ssh session, and all others"
flow=$(records '.dst_port == 22 and .state == "closed" and .device == "laptop-laptop"' | tail -1 | jq -r '"\(.flow) --boot \(.boot)"')
assert_ok "flows explain" admin flows explain $flow
assert_match "the rule as it was" 'groups: \[admins\]' "$OUT"
assert_match "the verdict" 'judged again: the same' "$OUT"
assert_match "its input" 'asks admins; had admins' "$OUT"
denied=$(records '.dst_port == 22 and .state == "denied" and .device == "laptop-laptop"' | head -1 | jq -r '"\(.worker):\(.boot):\(.seq)"')
assert_ok "flows explain of a refusal" admin flows explain --seq "$denied"
assert_match "the nearest rule as it was" 'groups: \[leads\]' "$OUT"
for n in $(records true | jq .n); do
  assert_ok "flows explain --line $n" admin flows explain --line "$n"
done

step "a report: who could, who did, under which rule, and what proves it"
report() { admin policy report --target nodes --at "$before" --window 1h "$@"; }
said=$(report -o json)
assert_eq "who could" "laptop-laptop:allow" "$(jq -r '[.could.rows[] | "\(.device):\(.way.access // .access)"] | join(" ")' <<<"$said")"
assert_eq "who did" "ana@example.com laptop-laptop ssh to the nodes" \
  "$(jq -r '[.did[] | "\(.user) \(.device) \(.rule)"] | unique | join("; ")' <<<"$said")"
assert_eq "who was refused" bob-laptop "$(jq -r '[.refused[].device] | unique | join(" ")' <<<"$said")"
assert_eq "the policy" "$first" "$(jq -r .could.policy <<<"$said")"
jq -e '.rests_on.records | length > 0 and all(.last_seq - .first_seq + 1 == .records)' <<<"$said" >/dev/null ||
  fail "ranges of records without a gap" "$(jq -c .rests_on <<<"$said")"
assert_ok "flows verify --head" admin flows verify --head "$(jq -r '.rests_on.head | "\(.n):\(.hash)"' <<<"$said")"
assert_match "the report as a document" '\| ana@example.com \| laptop-laptop \| yes \| ssh to the nodes' "$(report -o markdown)"

step "the same answers with the gateway down"
stop gateway || true
assert_explain true laptop-laptop $KUBE:22/tcp "$before" "ssh to the nodes"
assert_explain false laptop-laptop $KUBE:22/tcp "$after" default
assert_eq "who could" "laptop-laptop:allow" "$(who $KUBE:22/tcp "$before")"
assert_ok "flows explain" admin flows explain $flow

step "facts that somebody changed no longer give what the record says"
"$PYTHON" - "$GW/data/postern.db" <<'PY'
import sqlite3, sys
db = sqlite3.connect(sys.argv[1])
db.execute("UPDATE facts SET text = replace(text, 'admins', 'nobody')")
db.commit()
PY
status=0
OUT=$(admin flows explain $flow 2>&1) || status=$?
assert_eq "the exit code" 3 "$status"
assert_match "the words" 'JUDGED AGAIN: deny' "$OUT"
test_ok
