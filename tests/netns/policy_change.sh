#!/usr/bin/env bash
# A verdict is never older than its facts: live flows end on both sides within a second (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
gateway_up
client_up laptop ana-laptop ana@example.com admins

# open_flows: a busy and an idle stream, an ssh session, and logs -f
open_flows() {
  rm -f "$W"/log/{busy,idle,ticks,logs}.log
  follow busy laptop $KUBE 7000 talk
  follow idle laptop $KUBE 7000 idle
  ssh_ticking ticks laptop $KUBE
  logs_follow logs laptop
  wait_for 5 "the streams to open" grep -q ready "$(log_of busy)"
  wait_for 5 "the idle stream to open" grep -q ready "$(log_of idle)"
  wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
  wait_for 5 "the log lines" grep -q worker-0 "$(log_of logs)"
}
ended() { local n; for n in "$@"; do gone "$(pid_of "$n")" || return 1; done; }
both_ended() { [ "$(grep -c "^ended $1" "$(log_of stream-7000)")" -gt "$2" ]; }
# assert_cut SINCE NAME: both ends of a stream saw a reset within a second of the change
assert_cut() {
  local how at
  read -r _ _ how at < <(grep '^ended' "$(log_of "$2")")
  assert_eq "the end of $2 at the laptop" reset "$how"
  assert_at_most "ms until $2 ended at the laptop" 1000 $((at - $1))
  read -r _ _ _ how at < <(grep "^ended $3" "$(log_of stream-7000)" | tail -1)
  assert_eq "the end of $2 at the target" reset "$how"
  assert_at_most "ms until $2 ended at the target" 1000 $((at - $1))
}
# all_cut "by what" COMMAND…: everything that open_flows opened ends on both sides
all_cut() {
  local what=$1 since talks idles; shift
  open_flows
  talks=$(grep -c '^ended talk' "$(log_of stream-7000)" || true) idles=$(grep -c '^ended idle' "$(log_of stream-7000)" || true)
  since=$(now_ms)
  "$@" >>"$W/log/admin.log" 2>&1 || fail "$what to succeed" "$(tail -3 "$W/log/admin.log")"
  wait_for 3 "all four to end by $what" ended busy idle ticks logs
  local took=$(($(now_ms) - since))
  assert_at_most "ms until ssh and logs -f ended by $what" 1100 $took
  wait_for 2 "the target to see the ends" both_ended talk "$talks"
  wait_for 2 "the target to see the idle end" both_ended idle "$idles"
  assert_cut "$since" busy talk
  assert_cut "$since" idle idle
  echo "      $what: everything cut $took ms after the command began"
}

step "a policy without its rules cuts ssh, logs -f, a busy and a silent stream"
deny_all() { policy | sed 's/groups: \[admins\]/groups: [nobody]/' | policy_put; }
all_cut "the policy edit" deny_all
assert_probe laptop refused 1000 tcp $KUBE 22
wait_record "the ends" '.close_reason == "policy" and .dst_port == 22'
wait_record "the idle end" '.close_reason == "policy" and .dst_port == 7000'
assert_at_least "change_to_cut observations" 4 "$(metric postern_change_to_cut_seconds_count)"

step "an edit that does not concern a flow leaves it alone"
policy | policy_put
wait_for 3 "the policy to be back" eval '[ "$(probe laptop tcp $KUBE 22 | cut -d" " -f1)" = open ]'
open_flows
generation=$(metric postern_policy_generation)
policy_without 'no such rule' | sed 's|5201/tcp|5201/tcp, 9999/tcp|' | policy_put
wait_for 3 "the new generation" metric_above postern_policy_generation "$generation" ''
for n in busy ticks logs; do assert_alive $n "$n after an edit elsewhere"; done
is_running idle || fail "the idle stream to live" "it ended"

step "a broken policy keeps the old one, and says so"
failed=$(status_of_gateway | jq .policy.reloads_failed)
printf 'version: 1\nrules: [ { name: broken, action: perhaps } ]\n' | policy_put
wait_for 3 "status to name the errors" gateway_says '.policy.ok == false and (.policy.errors | length) > 0'
assert_at_least "failed reloads" $((failed + 1)) "$(status_of_gateway | jq .policy.reloads_failed)"
assert_match "the log of the gateway" 'WARN|ERROR' "$(cat "$(log_of gateway)")"
assert_eq "the metric of the last reload" 0 "$(metric postern_policy_reload_success)"
assert_alive busy "a stream under the kept policy"
assert_probe laptop open 1000 tcp $KUBE 22
policy | policy_put
wait_for 3 "status to be well again" gateway_says '.policy.ok'
for n in busy idle ticks logs; do stop $n; done

step "flows kill"
all_cut "flows kill" admin flows kill --device ana-laptop
assert_probe laptop open 1000 tcp $KUBE 22
wait_record "the kill" '.close_reason == "killed"'

step "revoke: durable before the command returns, and the tunnel itself is gone"
all_cut "device revoke" admin device revoke ana-laptop
assert_match "a connection afterwards" 'timeout|unreachable|prohibited' "$(probe laptop tcp $KUBE 22)"
wait_record "the revocation" '.close_reason == "revoked"'
stop gateway KILL || true
gateway_start
assert_eq "the state of the device after a restart" revoked "$(admin device show ana-laptop -o json | jq -r .state)"
test_ok
