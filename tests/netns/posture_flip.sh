#!/usr/bin/env bash
# A posture check that flips cuts what needs it within one report and a second, and both ends say why; external attributes the
# same (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up 'posture: { report_every: 10s, stale_after: 30s }'
echo trusted >"$W/host/laptop/corp.pem"
hash=$(sha256sum <"$W/host/laptop/corp.pem" | cut -d' ' -f1)
checked() {
  policy | sed 's/name: the lab, action: allow, from: { groups: \[admins\] }/name: the lab, action: allow, from: { groups: [admins], posture: '"$1"' }/'
  cat <<YAML
posture:
  corp-cert: { file: $W/host/laptop/corp.pem, sha256: $hash }
  managed: { attribute: { name: managed, value: "yes" } }
YAML
}
checked '[corp-cert]' | policy_put
assert_ok "policy reload" admin policy reload   # what opened under the old policy would be cut by its change
joined laptop --user ana@example.com --group admins
wait_for 15 "the first report, and with it the target" is_open laptop

step "the file changes: what needs the check is cut, what does not lives on"
stream laptop talk
ssh_ticking ticks laptop $KUBE
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
since=$(now_ms)
echo other >"$W/host/laptop/corp.pem"
wait_for 15 "the stream to end" gone "$(pid_of talk)"
assert_cut "$since" talk "the changed file" 11000
assert_alive ticks "the ssh session, whose rule asks for no posture"
wait_record "the cut" '.close_reason == "posture" and .dst_port == 7000 and .posture["corp-cert"] == "fail"'
assert_fails "why" client laptop why $KUBE:7000
assert_match "why" 'corp-cert' "$OUT"
assert_match "device show" 'corp-cert' "$(admin device show laptop-laptop)"

step "and back"
echo trusted >"$W/host/laptop/corp.pem"
wait_for 15 "the target" is_open laptop

step "a client that reports no more: its facts become stale, and fail"
stream laptop talk
kill -STOP "$(pid_of client-laptop)"
stale() { records '.close_reason == "posture"' | jq -s 'length > 1' | grep -q true; }
wait_for 45 "the cut by staleness" stale
kill -CONT "$(pid_of client-laptop)"
wait_for 20 "the target" is_open laptop
stop talk || true

step "an external attribute: set, and unset"
checked '[managed]' | policy_put
wait_for 3 "the target to be shut" is_shut laptop
assert_ok "attribute" admin device attribute laptop-laptop set managed yes --expires 1h
wait_for 3 "the target" is_open laptop
stream laptop talk
since=$(now_ms)
assert_ok "attribute" admin device attribute laptop-laptop unset managed
assert_cut "$since" talk "the unset attribute"
assert_audit "the attribute" '.action == "device-attribute" and .object == "laptop-laptop"'
assert_ok "flows verify" admin flows verify
test_ok
