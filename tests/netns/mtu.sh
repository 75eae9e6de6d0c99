#!/usr/bin/env bash
# The path carries less than a full tunnel packet: the client finds out, with and without ICMP (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
HOSTS=(inet gateway cluster laptop)
world_up
services_up
start iperf cluster iperf3 -s -B $KUBE
gateway_up

mtu_of() { in_ip "$1" -j link show "$2" | jq '.[0].mtu'; }
# said MTU REASON: by the client, the laptop's interface, and the gateway
said() {
  [ "$(client laptop status -o json | jq -r '"\(.mtu) \(.mtu_reason)"')" = "$1 $2" ] && [ "$(mtu_of laptop postern0)" = "$1" ] &&
    [ "$(status_of_gateway | jq '.worker.peers[0].mtu // 1420')" = "$1" ]
}
# transfer [-R]: 4 MB to the target, or back
transfer() {
  local begin; begin=$(now_ms)
  assert_ok "4 MB through the tunnel $*" in_ns laptop timeout 20 iperf3 -c $KUBE -n 4M "$@"
  echo "      4 MB $* after $(($(now_ms) - begin)) ms"
}
# The last half second of the download brought something.
flowing() { tail -1 "$(log_of download)" | grep -q ' [1-9][0-9.]* [KM]bits/sec'; }
both_ways() { transfer; transfer -R; }
# The wire between the router and the gateway.
wire_mtu() { in_ip inet link set gateway mtu "$1"; in_ip gateway link set wan mtu "$1"; }
roam() { underlay_address laptop "$1"; }

start fragments inet tcpdump -i laptop -Q in -nn -l --immediate-mode 'ip[6:2] & 0x3fff != 0'
wait_for 5 "tcpdump to listen" grep -q 'listening on' "$(log_of fragments)"
client_up laptop ana-laptop ana@example.com admins

step "a path that carries everything is confirmed"
wait_for 5 "1420, confirmed" said 1420 confirmed
assert_match "status" 'mtu +1420 \(the path carries it\)' "$(client laptop status)"
both_ways

step "a link of 1400 under a live session: routers say so"
wire_mtu 1400
both_ways
wait_for 15 "1328, found" said 1328 found
assert_match "status" 'mtu +1328 \(the path carries no more; configured 1420\)' "$(client laptop status)"
both_ways
start large-in inet tcpdump -i gateway -Q in -nn -l --immediate-mode 'ip[6:2] & 0x3fff != 0'
wait_for 5 "tcpdump to listen" grep -q 'listening on' "$(log_of large-in)"
transfer -R
stop large-in
assert_eq "datagrams of the gateway that need two pieces" 0 "$(grep -c ' > ' "$(log_of large-in)" || true)"

step "it carries everything again: found when the laptop moves"
wire_mtu 1500
roam 121
wait_for 5 "1420, confirmed" said 1420 confirmed
both_ways

step "a black hole: nobody says anything, and fragments are lost"
in_ns inet nft -f - <<'NFT'
table ip hole {
  chain out { type filter hook output priority 0; icmp type destination-unreachable drop; }
  chain through { type filter hook forward priority 0; ip frag-off & 0x3fff != 0 drop; }
}
NFT
start download laptop iperf3 -c $KUBE -R -t 40 -b 10M -i 0.5 --forceflush
wait_for 5 "a download" flowing
wire_mtu 1400
wait_for 5 "it to stall" eval '! flowing'
wait_for 15 "it to go on" flowing
assert_at_least "packets of the target that came back as too big" 1 "$(drops too-big)"
wait_for 15 "1328, found" said 1328 found
stop download
both_ways
roam 122
both_ways
wait_for 5 "1328, found" said 1328 found

step "and a new tunnel into it"
stop client-laptop
client_start laptop
both_ways
wait_for 5 "1328, found" said 1328 found
in_ns inet nft delete table ip hole
wire_mtu 1500
roam 11
wait_for 5 "1420, confirmed" said 1420 confirmed

step "the laptop's own link is small: its kernel refuses what is too long"
in_ip laptop link set eth0 mtu 1380
transfer
wait_for 15 "1312, found" said 1312 found
both_ways
in_ip laptop link set eth0 mtu 1500
roam 121
wait_for 5 "1420, confirmed" said 1420 confirmed

step "a small link behind the gateway: the laptop is told"
in_ip gateway link set lan mtu 1300
transfer
assert_match "the laptop's route" 'mtu 1300' "$(in_ip laptop route get $KUBE)"
assert_eq "the tunnel's own MTU" 1420 "$(mtu_of laptop postern0)"
in_ip gateway link set lan mtu 1500

step "a path below the minimum is named"
wire_mtu 1300
roam 122
wait_for 5 "1280, too small" eval '[ "$(client laptop status -o json | jq -r .mtu_reason)" = path-too-small ]'
assert_match "status" 'mtu +1280 \(the path carries less: large packets are lost\)' "$(client laptop status)"

assert_eq "fragments from the laptop" 0 "$(grep -c ' > ' "$(log_of fragments)" || true)"
assert_clean_logs
test_ok
