#!/usr/bin/env bash
# A thousand devices that are idle, and one that is busy: what they cost the gateway and the busy one (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
need_load
HOSTS=(inet gateway cluster laptop outside)
IDLE=1000 IDLE_SEED=1
# KiB: 16 for each device that has connected, 3.3 for one that has not, and the allocator's share (docs/gateway.md)
PER_CONNECTED=17 PER_KNOWN=4
world_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
load_from outside 198.19.0.0/22
start iperf3 cluster iperf3 -s --forceflush -B $KUBE
wait_for 5 "iperf3 to listen" grep -q 'Server listening' "$(log_of iperf3)"
transfer() { in_ns laptop iperf3 -c $KUBE -t 3 -J | jq '.end.sum_received.bits_per_second / 1e6 | floor'; }

step "the busy one alone"
transfer >/dev/null   # buffers are touched once
alone=$(transfer)
before=$(rss_of_gateway)

step "$IDLE devices are enrolled, and none connects"
since=$(now_ms)
enrol_many $IDLE $IDLE_SEED admins
took=$(($(now_ms) - since))
known=$(rss_of_gateway)

step "each shakes hands once and falls silent"
result=$(handshakes outside --count $IDLE --seed $IDLE_SEED --rounds 1 --seconds 20 --from 198.19.0.0/22)
assert_eq "devices that shook hands" $IDLE "$(jq .devices_done <<<"$result")"
connected() { [ "$(status_of_gateway | jq .devices_connected)" = $((IDLE + 1)) ]; }
wait_for 5 "all devices to be connected" connected
idle=$(rss_of_gateway)

step "the busy one beside them"
beside=$(transfer)
after=$(rss_of_gateway)
echo "      enrolled in $took ms; shook hands at $(jq .handshakes_per_s <<<"$result")/s"
echo "      gateway: $before KiB with one device, $known with $IDLE more known, $idle with them connected, $after at the end"
echo "      a device: $(((known - before) * 1024 / IDLE)) bytes known, $(((idle - before) * 1024 / IDLE)) bytes connected"
echo "      transfer: $alone Mbit/s alone, $beside Mbit/s beside $IDLE idle devices"
assert_at_most "KiB for $IDLE devices that are known" $((IDLE * PER_KNOWN)) $((known - before))
assert_at_most "KiB for $IDLE devices that are connected" $((IDLE * PER_CONNECTED)) $((after - before))
assert_at_least "the transfer beside idle devices, Mbit/s" $((alone * 6 / 10)) "$beside"
assert_clean_logs
test_ok
