#!/usr/bin/env bash
# A target that has a name: access follows the answer within its time and a second, and survives a resolver that is away
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
NEW=5.75.198.10
stream_server $KUBE 7000
start stream-new cluster "$PYTHON" "$NETNS_DIR/probe.py" serve $NEW 7000
wait_listening stream-new
by_name() {
  policy | sed 's/^  lab: .*/  lab: { names: [api.corp.test], ports: [7000\/tcp] }/'
}
reaches() { [ "$(probe laptop tcp "$1" 7000 | cut -d' ' -f1)" = open ]; }
shut() { [ "$(probe laptop tcp "$1" 7000 | cut -d' ' -f1)" = refused ]; }
named() { gateway_says ".names[0] | $1"; }

step "a name in place of an address"
dns_answers $KUBE
dns_up
gateway_up "resolver: { servers: [$PRIVATE_CLUSTER] }"
by_name | policy_put
assert_ok "policy reload" admin policy reload
client_up laptop ana-laptop ana@example.com admins
wait_for 5 "the target" reaches $KUBE
wait_for 5 "the other host to be refused" shut $NEW
assert_eq "what the name means" $KUBE "$(status_of_gateway | jq -r '.names[0].addresses[0]')"
assert_match "status" "api.corp.test: $KUBE" "$(admin status)"

step "another answer: what goes to the old address is cut on both sides, and the new one is reached"
follow talk laptop $KUBE 7000 talk
wait_for 5 "the stream" grep -q ready "$(log_of talk)"
dns_answers $NEW
kill -HUP "$(pid_of dns)"
since=$(now_ms)
wait_for 8 "the stream to end" gone "$(pid_of talk)"
assert_cut "$since" talk "the new answer" 6000
target_heard() { grep -q '^ended talk.* reset' "$(log_of stream-7000)"; }
wait_for 1 "the target to see the reset" target_heard
wait_for 2 "the new address" reaches $NEW
assert_at_most "ms until the new address was reached" 7500 $(($(now_ms) - since))
shut $KUBE || fail "the old address to be refused" "$(probe laptop tcp $KUBE 7000)"
wait_record "the cut" ".close_reason == \"policy\" and .dst_port == 7000 and .dst_address == \"$KUBE\""

step "a resolver that is away: the last good answer stays, and is said to be old"
follow talk2 laptop $NEW 7000 talk
wait_for 5 "the stream" grep -q ready "$(log_of talk2)"
stop dns || true
wait_for 20 "the gateway to notice" named '.failing != null'
reaches $NEW || fail "the last good address to be reached" "$(probe laptop tcp $NEW 7000)"
assert_alive talk2 "the stream"
[ "$(metric postern_target_name_failures_total)" -gt 0 ] || fail "failures in the metrics" 0
assert_match "status" 'cannot be resolved, its last addresses stay' "$(admin status)"

step "a restart while it is away: the last good answer judges at once"
stop gateway KILL || true
gateway_start
wait_for 5 "the target" reaches $NEW
assert_alive talk2 "the stream"
shut $KUBE || fail "the old address to be refused" "$(probe laptop tcp $KUBE 7000)"
named '.since != null and .age >= 0' >/dev/null || fail "the age of the answer" "$(status_of_gateway | jq -c .names)"

step "an answer that no target can have is refused and said"
dns_answers 127.0.0.1 100.96.0.1
dns_up
wait_for 70 "the answer to be refused" named '.refused | length == 2'
reaches $NEW || fail "the last good address to be reached" "$(probe laptop tcp $NEW 7000)"
dns_answers $NEW 127.0.0.1
kill -HUP "$(pid_of dns)"
wait_for 70 "the good half to count" named '.failing == null'
assert_eq "what the name means" "[\"$NEW\"]" "$(status_of_gateway | jq -c '.names[0].addresses')"
assert_alive talk2 "the stream"
assert_clean_logs 'cannot be resolved'
assert_ok "flows verify" admin flows verify

step "with the gateway down, policy explain rests on what the name meant last"
stop gateway || true
assert_ok "policy explain" admin policy explain --device ana-laptop --to $NEW:7000/tcp
assert_match "the rule" 'rule: the lab' "$OUT"
test_ok
