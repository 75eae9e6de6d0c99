#!/usr/bin/env bash
# Order: however much is sent beside it, no flow sees a packet overtaken or doubled, in either direction (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
need_load
HOSTS=(inet gateway cluster laptop laptop2)
world_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
client_up laptop2 bob-laptop bob@example.com admins
start echo cluster "$LOAD_BIN" order echo --listen $KUBE:5353
wait_for 5 "the echo to listen" grep -q listening "$(log_of echo)"
for port in 5201 7000; do
  start iperf3-$port cluster iperf3 -s --forceflush -B $KUBE -p $port
  wait_for 5 "iperf3 to listen" grep -q 'Server listening' "$(log_of iperf3-$port)"
done
# Reordering that a TCP sender of the host has noticed, in packets that it never sent twice. Loss does not count.
reordered() { in_ns "$1" nstat -asz 'TcpExtTCP*Reorder' | awk '/Reorder/ { sum += $2 } END { print sum + 0 }'; }

step "numbered datagrams both ways beside bulk TCP both ways, from two laptops"
declare -A port=([laptop]=5201 [laptop2]=7000)
for host in laptop laptop2; do
  start "bulk-$host" $host iperf3 -c $KUBE -p "${port[$host]}" -t 6 --bidir -J
  start "order-$host" $host "$LOAD_BIN" order run --to $KUBE:5353 --flows 8 --rate 5000 --seconds 5 -o json
done
ended() { gone "$(pid_of "$1")"; }
for host in laptop laptop2; do
  wait_for 15 "the datagrams of $host to end" ended "order-$host"
  wait_for 15 "the bulk of $host to end" ended "bulk-$host"
  seen=$(tail -1 "$(log_of "order-$host")")
  bulk=$(jq -c '[.end.sum_received, .end.sum_received_bidir_reverse | .bits_per_second / 1e6 | floor]' "$(log_of "bulk-$host")")
  echo "      $host: $seen"
  echo "      $host: bulk $bulk Mbit/s up and down"
  assert_at_least "datagrams of $host that reached the target" 5000 "$(jq .up_received <<<"$seen")"
  assert_at_least "datagrams of $host that came back" 2500 "$(jq .down_received <<<"$seen")"
  for what in up_late up_twice down_late down_twice; do
    assert_eq "$what of $host" 0 "$(jq .$what <<<"$seen")"
  done
done
for host in laptop laptop2 cluster; do
  assert_eq "reordering that TCP of $host noticed" 0 "$(reordered $host)"
done
assert_eq "datagrams that met the wrong worker or nobody" 0 "$(drops unknown-index)"
assert_clean_logs
test_ok
