#!/usr/bin/env bash
# What no rule allows fails at once, never reaches the target, and is recorded (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
client_up laptop2 bob-laptop bob@example.com visitors
stock_client stock carol-phone carol@example.com admins "$PRIVATE_GATEWAY/32" 100.96.0.0/16

none_open() { [ "$(admin flows list -o json | jq length)" = 0 ]; }

# Something listens everywhere, so that only the gateway can be what refuses.
stream_server $KUBE 8080
udp_server $KUBE 5354
start gateway-listener gateway "$PYTHON" "$NETNS_DIR/probe.py" serve 0.0.0.0 7001
start laptop-listener laptop "$PYTHON" "$NETNS_DIR/probe.py" serve 0.0.0.0 7001
wait_listening gateway-listener
wait_listening laptop-listener
assert_probe laptop open 1000 tcp $KUBE 22
assert_probe stock open 1000 tcp $KUBE 22
# Their last segments must not be taken for those of a denied attempt.
wait_for 5 "the end of both connections" none_open
phone=$(address_of carol-phone) laptop=$(address_of ana-laptop)

step "a third port is refused at once, other protocols are prohibited at once"
sessions=$(grep -c '^Connection' "$(log_of sshd)")
capture_start target cluster lan
assert_probe laptop refused 1000 tcp $KUBE 8080
assert_probe laptop refused 1000 tcp 5.75.198.10 6443
assert_probe laptop prohibited 1000 udp $KUBE 5354
assert_probe laptop prohibited 1000 ping $KUBE
assert_probe stock refused 1000 tcp $KUBE 8080

step "a device without the group is refused everywhere"
assert_probe laptop2 refused 1000 tcp $KUBE 6443
for a in "${NODES[@]}"; do
  assert_probe laptop2 refused 1000 tcp "$a" 22
done
begin=$(now_ms)
assert_fails "kubectl of a visitor" kubectl_in laptop2 get pods
assert_match "what kubectl says" 'refused' "$OUT"
assert_fails "ssh of a visitor" ssh_in laptop2 $KUBE true
assert_match "what ssh says" 'refused' "$OUT"
assert_at_most "both failures in ms" 4000 $(($(now_ms) - begin))

step "the target saw nothing of all that"
assert_cluster_silent target "during denied attempts"
assert_eq "sessions at sshd" "$sessions" "$(grep -c '^Connection' "$(log_of sshd)")"

step "the gateway's own addresses are no exception"
for a in 100.96.0.1 $PRIVATE_GATEWAY; do
  for port in 7001 22 9478; do assert_probe stock refused 1000 tcp $a $port; done
  assert_probe stock prohibited 1000 udp $a 53
  assert_probe stock prohibited 1000 ping $a
done
[ "$(lines_in gateway-listener)" = 1 ] || fail "no connection to the gateway itself" "$(cat "$(log_of gateway-listener)")"

step "device to device is denied, and the other device sees nothing"
tun=$(in_ip laptop -o route get $KUBE | sed -n 's/.* dev \([^ ]*\).*/\1/p')
capture_start other laptop "$tun"
assert_probe stock refused 1000 tcp "$laptop" 7001
assert_probe stock prohibited 1000 ping "$laptop"

step "a target opens nothing towards a laptop"
for a in "$laptop" "$phone"; do
  read -r answer _ < <(probe cluster tcp "$a" 7001)
  assert_no_match "a connection from a target to $a" '^open' "$answer"
  read -r answer _ < <(probe cluster ping "$a")
  assert_no_match "a ping from a target to $a" '^answered' "$answer"
done
probe laptop tcp $KUBE 22 >/dev/null   # the marker: an answer of the target that must come through
wait_for 5 "the marker in the laptop's capture" grep -q "$KUBE.22 > " "$(log_of other)"
stop other
seen=$(grep -E '^[0-9]{2}:' "$(log_of other)" | grep -v "$KUBE.22 > " || true)
[ -z "$seen" ] || fail "nothing unasked-for at the laptop" "$(head -3 <<<"$seen")"
assert_eq "connections to the laptop" 1 "$(lines_in laptop-listener)"

step "every refusal has its record"
for want in 'ana-laptop tcp 192.0.2.10 8080' 'ana-laptop tcp 5.75.198.10 6443' 'ana-laptop udp 192.0.2.10 5354' \
  'bob-laptop tcp 192.0.2.10 6443' 'bob-laptop tcp 65.109.212.122 22' "carol-phone tcp $PRIVATE_GATEWAY 7001"; do
  read -r device protocol address port <<<"$want"
  wait_record "the denied $want" '.verdict == "deny" and .device == "'$device'" and .protocol == "'$protocol'"
    and .dst_address == "'$address'" and ([.dst_port] + (.dst_ports // []) | index('$port')) and .rule == "default"' 15
done
assert_eq "the user in bob's records" bob@example.com "$(records '.device == "bob-laptop"' | jq -r .user | sort -u)"
assert_clean_logs
test_ok
