#!/usr/bin/env bash
# Strangers flood the gateway with handshakes: who has a session keeps it, who wants one gets it by answering a cookie,
# and nobody else hears a word (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
need_load
world_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
STRANGERS=198.19.0.0/22
load_from outside $STRANGERS
start echo cluster "$LOAD_BIN" order echo --listen $KUBE:5353
start iperf3 cluster iperf3 -s --forceflush -B $KUBE
wait_for 5 "the echo to listen" grep -q listening "$(log_of echo)"
wait_for 5 "iperf3 to listen" grep -q 'Server listening' "$(log_of iperf3)"

# What the gateway says, by the length of the IPv4 packet: 92 is a cookie (20 + 8 + 64).
for host in outside laptop2; do
  in_ns $host nft -f - <<NFT
table inet heard {
  counter cookies { }
  counter others { }
  chain input {
    type filter hook input priority 0;
    ip saddr $GATEWAY4 udp sport 51820 meta length 92 counter name cookies
    ip saddr $GATEWAY4 udp sport 51820 meta length != 92 counter name others
  }
}
NFT
done
heard() { in_ns "$1" nft -j list counter inet heard "$2" | jq '[.nftables[].counter? | values][0].packets'; }
heard_cookies() { [ "$(heard "$1" cookies)" -gt 0 ]; }

# flood KIND SECONDS, in the background: 20 000 a second from a thousand addresses
flood() {
  start "flood-$1" outside "$LOAD_BIN" flood --to $GATEWAY4:51820 --gateway-key "$(gateway_key)" --kind "$1" --rate 20000 --seconds "$2" --from $STRANGERS -o json
}
flood_over() { gone "$(pid_of "flood-$1")"; }
# Datagrams to the echo and back, 4000 a second; how many came back.
pingpong() { load laptop order run --to $KUBE:5353 --rate 4000 --seconds 2 --size 64 | jq .down_received; }
transfer() { in_ns laptop iperf3 -c $KUBE -t 2 -J | jq '.end.sum_received.bits_per_second / 1e6 | floor'; }

step "without a flood"
quiet=$(pingpong)
quiet_transfer=$(transfer)
assert_at_least "datagrams that came back" 7000 "$quiet"
memory=$(rss_of_gateway)

step "20 000 handshakes a second by strangers who know the gateway's key"
flood strangers 9
wait_for 3 "cookies on the wire" heard_cookies outside
during=$(pingpong)
during_transfer=$(transfer)
before=$(now_ms)
client_up laptop2 bob-laptop bob@example.com admins
assert_probe laptop2 refused 5000 tcp $KUBE 7000
took=$(($(now_ms) - before))
is_running flood-strangers || fail "the flood to go on while a laptop connects" "it was over"
heard_cookies laptop2 || fail "the laptop that connected to be asked for a cookie" "it was not"
echo "      datagrams back: $quiet quiet, $during in the flood; transfer: $quiet_transfer Mbit/s quiet, $during_transfer in the flood"
echo "      a new laptop was through in $took ms; gateway $memory KiB before, $(rss_of_gateway) KiB in the flood"
assert_at_least "datagrams that came back in the flood" $((quiet * 80 / 100)) "$during"
assert_at_least "the transfer in the flood, Mbit/s" $((quiet_transfer / 4)) "$during_transfer"
assert_at_most "ms until a new laptop is through" 5000 $took
assert_at_most "KiB that the gateway grew by" 4096 $(($(rss_of_gateway) - memory))
wait_for 12 "the flood to end" flood_over strangers
answers=$(tail -1 "$(log_of flood-strangers)")
assert_at_least "cookies that strangers got" 1000 "$(jq .cookies <<<"$answers")"
assert_eq "other answers that strangers got" 0 "$(jq '.responses + .other' <<<"$answers")"

step "without the gateway's key, or with bytes that mean nothing, not even a cookie"
cookies=$(heard outside cookies)
for kind in bad-mac garbage; do
  flood $kind 1
  wait_for 5 "the flood of $kind to end" flood_over $kind
  answers=$(tail -1 "$(log_of flood-$kind)")
  assert_at_least "sent of $kind" 10000 "$(jq .sent <<<"$answers")"
  assert_eq "answers to $kind" 0 "$(jq '.cookies + .responses + .other' <<<"$answers")"
done
assert_eq "cookies on the wire" "$cookies" "$(heard outside cookies)"
assert_eq "anything else on the wire of the strangers" 0 "$(heard outside others)"

step "when it is over, everything is as before"
assert_probe laptop refused 1000 tcp $KUBE 7000
assert_at_least "datagrams that came back" $((quiet * 90 / 100)) "$(pingpong)"
assert_eq "devices" 2 "$(status_of_gateway | jq .devices)"
assert_clean_logs
test_ok
