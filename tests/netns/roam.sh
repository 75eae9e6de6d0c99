#!/usr/bin/env bash
# The laptop changes its underlay address in the middle of logs -f and of an SSH session (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
udp_server $KUBE 5353
gateway_up
client_up laptop ana-laptop ana@example.com admins

logs_follow logs laptop
ssh_ticking ticks laptop $KUBE
start tick laptop "$PYTHON" "$NETNS_DIR/probe.py" tick $KUBE 5353
wait_for 5 "the log lines" grep -q worker-0 "$(log_of logs)"
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"

for number in 121 122 11; do
  step "to 198.51.100.$number"
  lines=$(lines_in tick) since=$(now_ms)
  underlay_address laptop $number
  wait_for 5 "an answer after roaming" more_lines_than tick $((lines + 3))
  echo "      answers again $(($(now_ms) - since)) ms after the address changed"
  assert_alive logs "logs -f"
  assert_alive ticks "the ssh session"
  wait_for 3 "the gateway to know the new endpoint" eval \
    '[[ "$(admin status -o json | jq -r ".worker.peers[0].endpoint")" == 198.51.100.'$number':* ]]'
done
assert_eq "sessions at sshd" 1 "$(grep -c '^Accepted publickey' "$(log_of sshd)")"
assert_eq "followed logs" 1 "$(grep -c '/log?' "$(log_of kube-api)")"
assert_clean_logs
test_ok
