#!/usr/bin/env bash
# Two workers, a laptop on each: whatever is true of one worker is true of both, and nothing arrives at the wrong one
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
need_load
world_up
services_up
gateway_up "workers: 2"
stream_server $KUBE 7000
start echo cluster "$LOAD_BIN" order echo --listen $KUBE:5353
wait_for 5 "the echo to listen" grep -q listening "$(log_of echo)"
client_up laptop ana-laptop ana@example.com admins
client_up laptop2 bob-laptop bob@example.com admins

devices_of() { metric postern_worker_devices "worker=\"$1\""; }
packets_of() { metric postern_worker_packets_total "worker=\"$1\""; }
ended() { local n; for n in "$@"; do gone "$(pid_of "$n")" || return 1; done; }
# streams: one from each laptop
streams() {
  rm -f "$W"/log/{ana,bob}.log
  follow ana laptop $KUBE 7000 talk
  follow bob laptop2 $KUBE 7000 talk
  wait_for 5 "ana's stream" grep -q '^line 3 ' "$(log_of ana)"
  wait_for 5 "bob's stream" grep -q '^line 3 ' "$(log_of bob)"
}
# assert_cut SINCE NAME…: each saw a reset within a second
assert_cut() {
  local since=$1 name how at; shift
  wait_for 3 "$* to end" ended "$@"
  for name in "$@"; do
    read -r _ _ how at < <(grep '^ended' "$(log_of "$name")")
    assert_eq "the end of $name's stream" reset "$how"
    assert_at_most "ms until $name's stream ended" 1000 $((at - since))
  done
}

step "a laptop on each worker, and kubectl from both"
assert_eq "workers" 2 "$(metric postern_workers)"
for worker in 0 1; do assert_eq "devices of worker $worker" 1 "$(devices_of $worker)"; done
for host in laptop laptop2; do
  assert_ok "kubectl from $host" kubectl_in $host get pods
  assert_match "the table" 'worker-0 +1/1 +Running' "$OUT"
done

step "both carry, in order, and see only what is theirs"
before0=$(packets_of 0) before1=$(packets_of 1)
for host in laptop laptop2; do
  start "order-$host" $host "$LOAD_BIN" order run --to $KUBE:5353 --flows 8 --rate 4000 --seconds 2 -o json
done
wait_for 10 "the datagrams to end" ended order-laptop order-laptop2
for host in laptop laptop2; do
  seen=$(tail -1 "$(log_of "order-$host")")
  echo "      $host: $seen"
  assert_at_least "datagrams of $host that came back" 7000 "$(jq .down_received <<<"$seen")"
  assert_eq "late or twice at $host" 0 "$(jq '.up_late + .up_twice + .down_late + .down_twice' <<<"$seen")"
done
assert_at_least "packets that worker 0 carried" 14000 $(($(packets_of 0) - before0))
assert_at_least "packets that worker 1 carried" 14000 $(($(packets_of 1) - before1))

step "one list shows the flows of both; a kill of one leaves the other"
streams
flows=$(admin flows list --to $KUBE:7000 -o json)
assert_eq "devices in the list of flows" '["ana-laptop","bob-laptop"]' "$(jq -c '[.[].device] | sort' <<<"$flows")"
since=$(now_ms)
admin flows kill --device bob-laptop >/dev/null
assert_cut "$since" bob
assert_alive ana "ana's stream"
stop ana

step "a policy change cuts on both"
streams
since=$(now_ms)
policy_without 'the lab' | policy_put
assert_cut $((since + 400)) ana bob   # a change counts when the file has been still for a moment
policy | policy_put
restored() { [ "$(probe laptop tcp $KUBE 7000 | cut -d' ' -f1)" = open ]; }
wait_for 5 "the old policy to be back" restored

step "nothing met the wrong worker"
assert_eq "datagrams at a worker that does not know them" 0 "$(drops unknown-index)"

step "a revocation cuts one, whichever worker it is on"
streams
since=$(now_ms)
admin device revoke bob-laptop >/dev/null
wait_record "bob's end" '.device == "bob-laptop" and .close_reason == "revoked"'
assert_at_most "ms until bob's flows were cut" 1000 $(($(now_ms) - since))
assert_alive ana "ana's stream"
assert_probe laptop2 timeout 4000 tcp $KUBE 7000

step "every record of both is there"
stop ana
wait_record "ana's last end" '.device == "ana-laptop" and .dst_port == 7000 and .close_reason != null'
for worker in 0 1; do
  numbers=$(records ".worker == $worker" | jq .seq)
  assert_at_least "records of worker $worker" 5 "$(wc -l <<<"$numbers")"
  assert_eq "the record numbers of worker $worker" "$(seq "$(wc -l <<<"$numbers")")" "$numbers"
done
assert_eq "records lost" 0 "$(status_of_gateway | jq .flow_log.lost)"
assert_eq "devices of ana and bob by worker" '[["ana-laptop"],["bob-laptop"]]' \
  "$(records .device | jq -sc 'group_by(.worker) | map(map(.device) | unique)')"
assert_clean_logs
test_ok
