#!/usr/bin/env bash
# One device scans a /24; another's transfer goes on, and no attempt goes uncounted (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
stock_client stock eve-phone eve@example.com visitors 198.18.5.0/24
start iperf3 cluster iperf3 -s --forceflush -B $KUBE
wait_for 5 "iperf3 to listen" grep -q 'Server listening' "$(log_of iperf3)"
transfer() { in_ns laptop iperf3 -c $KUBE -t 4 -J | jq '.end.sum_received.bits_per_second / 1e6 | floor'; }

step "the transfer alone"
alone=$(transfer)
step "the transfer during a scan of 198.18.5.0/24, three ports"
in_ns stock nft -f - <<NFT
table inet sent {
  counter syn { }
  chain output { type filter hook output priority 0; oifname "wg0" tcp flags & (syn | ack) == syn counter name syn; }
}
NFT
start scans stock sh -c "for port in 22 80 443; do $PYTHON $NETNS_DIR/probe.py scan 198.18.5.0/24 \$port 64; done"
during=$(transfer)
wait_for 60 "the scan to end" eval 'gone "$(pid_of scans)"'
cat "$(log_of scans)" | sed 's/^/      /'
echo "      transfer: alone $alone Mbit/s, during the scan $during Mbit/s"
assert_at_least "the transfer during the scan, Mbit/s" $((alone / 2)) "$during"

step "every attempt is counted once"
attempts=$(( 3 * 256 ))
summed() { records '.verdict == "deny" and .device == "eve-phone"' | jq -s 'map(.count // 1) | add // 0'; }
sent() { in_ns stock nft -j list counter inet sent syn | jq '[.nftables[].counter? | values][0].packets'; }
enough() { [ "$(summed)" -ge "$(sent)" ]; }
wait_for 20 "the denials of the scan in the log" enough
lines=$(records '.verdict == "deny" and .device == "eve-phone"' | wc -l)
echo "      $attempts attempts, $(sent) SYNs, counted $(summed) in $lines records"
assert_eq "the counted attempts" "$(sent)" "$(summed)"
assert_at_most "the record lines" $((attempts + 20)) "$lines"
assert_eq "records of the scan that allow anything" 0 "$(records '.verdict == "allow" and .device == "eve-phone"' | wc -l)"
assert_eq "records lost" 0 "$(status_of_gateway | jq .flow_log.lost)"
test_ok
