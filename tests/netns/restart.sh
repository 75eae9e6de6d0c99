#!/usr/bin/env bash
# The gateway restarts, asked or not: clients are back within 2 s, live ssh and TCP go on (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
udp_server $KUBE 5353
stream_server $KUBE 7000
gateway_up
client_up laptop ana-laptop ana@example.com admins
follow busy laptop $KUBE 7000 talk
follow idle laptop $KUBE 7000 idle
follow chat laptop $KUBE 7000 chat
ssh_ticking ticks laptop $KUBE
start tick laptop "$PYTHON" "$NETNS_DIR/probe.py" tick $KUBE 5353
wait_for 5 "the busy stream" grep -q '^line 3 ' "$(log_of busy)"
wait_for 5 "the chat" grep -q '^line 3 ' "$(log_of chat)"
wait_for 5 "the idle stream" grep -q ready "$(log_of idle)"
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
wait_for 5 "the datagrams" grep -q answer "$(log_of tick)"

# The gateway calls its devices where it last saw them; it stores that every few seconds.
stored() { [ "$(admin device show ana-laptop -o json | jq -r .last_endpoint)" != null ]; }
wait_for 15 "the gateway to store where its device is" stored

# restart "how" SIGNAL: ends the gateway by the signal, starts the next one, and says how long clients waited
restart() {
  step "$1"
  local since first lines
  stop gateway "$2" || true
  lines=$(lines_in tick)
  since=$(now_ms)
  start gateway gateway "$GATEWAY_BIN" run --config "$GW/gateway.yaml"
  wait_for 5 "answers after the restart" more_lines_than tick "$lines"
  first=$(sed -n "$((lines + 1))p" "$(log_of tick)" | cut -d' ' -f3)
  echo "      recovery: $((first - since)) ms from the start of the new process to the first answer"
  assert_at_most "ms until the client is back" 2000 $((first - since))
  assert_alive busy "the TCP stream"
  assert_alive chat "the TCP stream in which both ends speak"
  assert_alive ticks "the ssh session"
  is_running idle || fail "the idle stream to live" "$(tail -1 "$(log_of idle)")"
  wait_for 5 "the gateway to be ready" gateway_ready
}
restart "kill -9 and a new start" KILL
restart "SIGUSR1 (hand over) and a new start" USR1
restart "kill -9 once more" KILL
assert_eq "sessions at sshd" 1 "$(grep -c '^Accepted publickey' "$(log_of sshd)")"
assert_probe laptop refused 1000 tcp $KUBE 8080
wait_record "a flow judged anew in resume mode" '.verdict == "allow" and .dst_port == 7000 and .resumed == true'

step "what the policy no longer allows is not resumed"
policy | grep -v 'name: the lab' | policy_put
stop gateway KILL || true
gateway_start
heard() { grep -c '^line ' "$(log_of busy)"; }
lines=$(heard)
chat_gone() { gone "$(pid_of chat)"; }
wait_for 5 "the stream without a rule to end" chat_gone
assert_match "how it ended" 'reset' "$(tail -1 "$(log_of chat)")"
busy_gone() { gone "$(pid_of busy)"; }
wait_for 5 "the stream in which only the target speaks to end" busy_gone
assert_match "how that ended" 'reset' "$(tail -1 "$(log_of busy)")"
assert_eq "lines of the stream in which only the target speaks" "$lines" "$(heard)"
assert_alive ticks "the ssh session, which has its rule"

step "SIGTERM is not a restart: flows are cut on both sides, and say so"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
ticks_gone() { gone "$(pid_of ticks)"; }
wait_for 5 "the ssh session to be cut" ticks_gone
wait_record "the end" '.close_reason == "shutdown" and .dst_port == 22'
test_ok
