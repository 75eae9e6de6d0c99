#!/usr/bin/env bash
# Forged, replayed, bent and malformed packets: silence, a counter, and nothing at the target (topology: lib.sh).
# The attacker holds an enrolled stock peer (stock), sits on its path (a relay in outside), or has no key at all.
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
udp_server $KUBE 5353
start udp6 cluster "$PYTHON" "$NETNS_DIR/probe.py" echo-udp $KUBE6 5353
wait_listening udp6
gateway_up
stock_client stock mallory-phone mallory@example.com admins
client_up laptop ana-laptop ana@example.com admins
own=$(address_of mallory-phone) own6=$(address6_of mallory-phone) other=$(address_of ana-laptop)

step "the control: a good injected packet arrives"
assert_probe stock answered 1000 udp $KUBE 5353
inject stock plain "$own" $KUBE 5353
wait_for 5 "the injected datagram at the target" grep -q 63726166746564 "$(log_of udp-5353)"
inject stock plain "$own6" $KUBE6 5353
wait_for 5 "the injected datagram at the target, IPv6" grep -q 63726166746564 "$(log_of udp6)"

# bad REASON KIND SOURCE DESTINATION: 10 packets, each counted under REASON
bad() {
  local before; before=$(drops "$1")
  inject stock "$2" "$3" "$4" 5353 10
  wait_for 3 "10 more drops '$1' after $2 from $3" drops_above "$1" $((before + 9))
}
capture_start target cluster lan
step "a source that is not the device's own"
bad spoofed-source plain "$other" $KUBE
bad spoofed-source plain 198.51.100.13 $KUBE
bad spoofed-source plain 10.77.0.1 $KUBE
bad spoofed-source plain 2001:db8:77::1 $KUBE6

step "fragments, options and extension headers"
bad fragment fragment "$own" $KUBE
bad fragment later-fragment "$own" $KUBE
bad extension-header options "$own" $KUBE
bad fragment fragment "$own6" $KUBE6
for kind in hop-by-hop routing destination-options; do bad extension-header $kind "$own6" $KUBE6; done

step "lengths and headers that lie"
bad bad-length bad-length "$own" $KUBE
bad bad-length bad-udp-length "$own" $KUBE
bad bad-length bad-length "$own6" $KUBE6
bad truncated truncated "$own" $KUBE
bad other-protocol other-protocol "$own" $KUBE
bad other-protocol other-protocol "$own6" $KUBE6
before=$(( $(drops bad-header) + $(drops bad-length) + $(drops truncated) ))
inject stock bad-header "$own" $KUBE 5353 10
counted() { [ $(( $(drops bad-header) + $(drops bad-length) + $(drops truncated) )) -ge $((before + 10)) ]; }
wait_for 3 "10 more drops after a header shorter than a header" counted
assert_cluster_silent target "while malformed packets were sent"

step "a relay on the path replays and bends each datagram: each arrives once"
start relay outside "$PYTHON" "$NETNS_DIR/relay.py" 198.51.100.66 51820 $GATEWAY4 51820
wait_listening relay
in_ns stock wg set wg0 peer "$(in_ns stock wg show wg0 peers)" endpoint 198.51.100.66:51820
replayed=$(drops replayed) tag=$(drops bad-tag) arrived=$(lines_in udp-5353)
for i in $(seq 20); do assert_probe stock answered 1000 udp $KUBE 5353; done
assert_eq "the datagrams at the target" $((arrived + 20)) "$(lines_in udp-5353)"
assert_at_least "drops counted as replayed" $((replayed + 20)) "$(drops replayed)"
assert_at_least "drops counted as bad-tag" $((tag + 10)) "$(drops bad-tag)"
assert_match "what the stranger was answered" 'answers=0' "$(tail -1 "$(log_of relay)")"
endpoint=$(admin device show mallory-phone -o json | jq -r .last_endpoint)
stop relay

step "an unknown key gets no answer"
unknown=$(drops unknown-key)
in_ns outside sh -c "umask 077; wg genkey >$W/stranger.key"
sed "s|^PrivateKey.*|PrivateKey = $(cat "$W/stranger.key")|" "$W/host/stock/wg-quick.conf" >"$W/stranger.conf"
stock_up outside "$W/stranger.conf"
capture_start answers outside eth0 "src host $GATEWAY4"
assert_probe outside timeout 4000 tcp $KUBE 22
wait_for 6 "a drop counted as unknown-key" drops_above unknown-key "$unknown"
seen=$(capture_stop answers outside inet 198.51.100.66)
[ -z "$seen" ] || fail "silence towards an unknown key" "$(head -3 <<<"$seen")"

step "and an honest device works as before"
assert_probe laptop open 1000 tcp $KUBE 22
is_running gateway || fail "the gateway to run" "it ended"
test_ok
