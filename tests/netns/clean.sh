#!/usr/bin/env bash
# Only the include list changes on the laptop; laptop and gateway are left as they were found, also after
# kill -9 and the next start (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up

# Everything that a host routes and answers to. The kernel's own noise (caches, counters) is left out.
net_state() {
  local v
  for v in -4 -6; do
    in_ip "$1" $v route show table all | sed 's/ expires [^ ]*//; s/ pref medium//; s/ *$//' | sort
    in_ip "$1" $v rule
    in_ip "$1" $v -o addr | sed 's/^[0-9]*: //; s/ *valid_lft.*//' | sort
  done
}
# What a gateway may change: its firewall and the switches of the network stack.
host_state() {
  in_ns gateway nft list ruleset
  in_ns gateway sh -c "cd /proc/sys/net && grep -rs . ipv4/conf ipv6/conf ipv4/ip_forward ipv4/ip_local_reserved_ports |
    grep -Ev 'postern0|stable_secret' | sort"
}
# assert_same "what" FILE_BEFORE FILE_NOW
assert_same() { diff "$2" "$3" >"$W/diff" || fail "$1 to be as before" "$(head -20 "$W/diff")"; }

net_state laptop >"$W/laptop.before"
host_state >"$W/gateway.before"
net_state gateway >"$W/gateway-net.before"
gateway_up
client_up laptop ana-laptop ana@example.com admins

step "up: exactly the include list and the tunnel's own addresses are new, nothing is gone"
net_state laptop >"$W/laptop.up"
[ -z "$(comm -23 <(sort "$W/laptop.before") <(sort "$W/laptop.up"))" ] ||
  fail "nothing to disappear" "$(comm -23 <(sort "$W/laptop.before") <(sort "$W/laptop.up"))"
comm -13 <(sort "$W/laptop.before") <(sort "$W/laptop.up") >"$W/new"
tun=$(in_ip laptop -o route get $KUBE | sed -n 's/.* dev \([^ ]*\).*/\1/p')
gone_elsewhere=$(grep -v " $tun\b\|^$tun " "$W/new" || true)
[ -z "$gone_elsewhere" ] || fail "every new route and address to be the tunnel's" "$gone_elsewhere"
grep -v '^local\|^broadcast\|^multicast\|^fe80\|inet6\? \|^anycast' "$W/new" | awk '{print $1}' | sort >"$W/routes"
{
  sed -n '/^include:/,/^[a-z]/p' "$W/host/laptop/profile" | grep -oE '[0-9a-f:.]+/[0-9]+' | sed 's|/32$||; s|/128$||'
  for a in 100.96.0.1 "$(address_of ana-laptop)" "$(address6_of ana-laptop)"; do echo "$a"; done
  sed -n '/^ *tunnel_addresses:/,/^[a-z]/p' "$W/host/laptop/profile" | grep -oE '[0-9a-f]+:[0-9a-f:]+'
} | sort -u >"$W/expected"
[ -z "$(comm -23 "$W/routes" "$W/expected")" ] ||
  fail "only the include list to be routed into the tunnel" "$(comm -23 "$W/routes" "$W/expected" | tr '\n' ' ')"
for a in "${NODES[@]}" $KUBE6; do grep -qx "$a" "$W/routes" || fail "$a to be routed into the tunnel" "$(cat "$W/routes")"; done
assert_match "the route to the gateway" 'dev eth0' "$(in_ip laptop route get $GATEWAY4)"
assert_match "the default route" 'dev eth0' "$(in_ip laptop route get 198.18.0.1)"

step "after a clean stop, nothing is left"
stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
net_state laptop >"$W/laptop.after"
assert_same "the laptop after a stop" "$W/laptop.before" "$W/laptop.after"
client_start laptop
assert_ok "postern down" client laptop down
wait_for 5 "postern up to end after postern down" gone "$(pid_of client-laptop)"
net_state laptop >"$W/laptop.after"
assert_same "the laptop after postern down" "$W/laptop.before" "$W/laptop.after"

step "after kill -9 and the next start and stop, nothing is left"
client_start laptop
stop client-laptop KILL || true
client_start laptop
net_state laptop >"$W/laptop.up2"
assert_same "the laptop after kill -9 and the next start" "$W/laptop.up" "$W/laptop.up2"
stop client-laptop INT || stop client-laptop
net_state laptop >"$W/laptop.after"
assert_same "the laptop after that stop" "$W/laptop.before" "$W/laptop.after"

step "the gateway puts back its table, switches and addresses after a stop"
[ -n "$(in_ns gateway nft list tables | grep postern)" ] || fail "a table of its own while it runs" "$(in_ns gateway nft list tables)"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
host_state >"$W/gateway.after"
assert_same "the gateway's firewall and sysctls" "$W/gateway.before" "$W/gateway.after"
net_state gateway >"$W/gateway-net.after"
assert_same "the gateway's routes and addresses" "$W/gateway-net.before" "$W/gateway-net.after"

step "a killed gateway forwards nothing; the next one leaves nothing either"
gateway_start
stop gateway KILL || true
assert_match "the interface of a killed gateway" 'does not exist' "$(in_ip gateway link show postern0 2>&1 || true)"
gateway_start
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
host_state >"$W/gateway.after"
assert_same "the gateway's firewall and sysctls after kill -9 and a next start" "$W/gateway.before" "$W/gateway.after"
assert_clean_logs
test_ok
