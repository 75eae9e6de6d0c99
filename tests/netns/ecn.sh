#!/usr/bin/env bash
# Congestion marks (RFC 6040): TCP with ECN through the tunnel, and a router on the way that marks (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
udp_server $KUBE 5353
gateway_up
for host in laptop cluster; do in_ns $host sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_ecn'; done
head -c 3000000 /dev/urandom >"$W/file"

# counter HOST NAME: of its kernel. InCEPkts: packets that came marked. TCPDeliveredCE: segments that it sent, and of
# which the other end said that they came marked.
counter() {
  in_ns "$1" cat /proc/net/netstat /proc/net/snmp6 | awk -v name="$2" '
    $1 == name { print $2 }
    $1 == kind { for (i = 2; i <= NF; i++) if (head[i] == name) print $i }
    { kind = $1; split($0, head) }'
}

# watch NAME FILTER: lines of the log are datagrams between laptop and gateway, or runs of them.
watch() {
  start "$1" inet tcpdump -i gateway -nn -l --immediate-mode "udp port 51820 and ($2)"
  wait_for 5 "tcpdump to listen" grep -q 'listening on' "$(log_of "$1")"
}
seen() { grep -c ' > ' "$(log_of "$1")" || true; }
ECN='ip[1] & 3' HANDSHAKE='udp[8] < 4' LARGE='udp[8] == 4 and greater 1200'

step "a handshake is not-ECT, TCP's data is ECT(0), and DSCP does not come out"
watch handshakes "$HANDSHAKE and $ECN == 0"
watch marked-handshakes "$HANDSHAKE and $ECN != 0"
watch ect0 "$LARGE and $ECN == 2"
watch other "$LARGE and $ECN != 2"
watch dscp "ip[1] & 0xfc != 0"
client_up laptop ana-laptop ana@example.com admins
start inner-dscp laptop tcpdump -i postern0 -nn -l --immediate-mode "tcp port 22 and ip[1] & 0xfc != 0"
wait_for 5 "tcpdump to listen" grep -q 'listening on' "$(log_of inner-dscp)"
assert_ok "scp to the target" scp_in laptop "$W/file" "$KUBE:$W/there"
assert_ok "scp from the target" scp_in laptop "$KUBE:$W/there" "$W/back"
assert_ok "the file to be the same" cmp "$W/file" "$W/back"
wait_for 5 "ssh's own DSCP inside" grep -q ' > ' "$(log_of inner-dscp)"
assert_at_least "handshakes that are not-ECT" 2 "$(seen handshakes)"
assert_eq "handshakes that say something else" 0 "$(seen marked-handshakes)"
for way in "198.51.100.11.* > $GATEWAY4" "$GATEWAY4.* > 198.51.100.11"; do
  assert_at_least "large data datagrams that say ECT(0), $way" 10 "$(grep -c "$way" "$(log_of ect0)" || true)"
done
# what the tunnel itself says may be large: it asks for the path's MTU
assert_at_most "large data datagrams that do not" 5 "$(seen other)"
assert_eq "outer headers with a DSCP" 0 "$(seen dscp)"
for name in handshakes marked-handshakes ect0 other dscp inner-dscp; do stop $name; done

step "wireguard-go would lose marks, so it gets none"
stock_client stock carol-phone carol@example.com admins
in_ns stock sh -c 'echo 1 >/proc/sys/net/ipv4/tcp_ecn'
watch unmarked "$LARGE and $ECN == 0 and dst host 198.51.100.13"
watch marked "$ECN != 0 and dst host 198.51.100.13"
assert_ok "scp from the target" scp_in stock "$KUBE:$W/there" "$W/back"
assert_at_least "large data datagrams to it that are not-ECT" 10 "$(seen unmarked)"
assert_eq "datagrams to it that say something else" 0 "$(seen marked)"
stop unmarked && stop marked

# The router between the two marks one in ten of what may be marked.
in_ns inet nft -f - <<'NFT'
table inet path {
  chain forward {
    type filter hook forward priority 0;
    udp dport 51820 ip ecn ect0 numgen inc mod 10 0 ip ecn set ce
    udp sport 51820 ip ecn ect0 numgen inc mod 10 0 ip ecn set ce
    udp dport 51820 ip6 ecn ect0 numgen inc mod 10 0 ip6 ecn set ce
    udp sport 51820 ip6 ecn ect0 numgen inc mod 10 0 ip6 ecn set ce
  }
}
NFT

# marks_arrive COUNTER HOST: both ways the receiver sees marks and tells the sender, and nothing is damaged.
marks_arrive() {
  local seen told
  seen=$(counter cluster "$1") told=$(counter laptop TCPDeliveredCE)
  assert_ok "scp to the target" scp_in laptop "$W/file" "$2:$W/there"
  assert_at_least "marked packets at the target" $((seen + 1)) "$(counter cluster "$1")"
  assert_at_least "marks that the laptop was told of" $((told + 1)) "$(counter laptop TCPDeliveredCE)"
  # the laptop's own count of marked packets would have the outer ones in it
  told=$(counter cluster TCPDeliveredCE)
  assert_ok "scp from the target" scp_in laptop "$2:$W/there" "$W/back"
  assert_at_least "marks that the target was told of" $((told + 1)) "$(counter cluster TCPDeliveredCE)"
  assert_ok "the file to be the same" cmp "$W/file" "$W/back"
  assert_eq "packets lost to marks" 0 "$(drops ecn-ce)"
}

step "a mark on the way reaches the receiver, which tells the sender"
marks_arrive InCEPkts $KUBE
step "IPv6 inside"
marks_arrive Ip6InCEPkts "[$KUBE6]"
step "IPv6 outside"
stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
sed -i "s|['\"]\?$GATEWAY4:51820['\"]\?|\"[$GATEWAY6]:51820\"|" "$W/host/laptop/profile"
client_start laptop
marks_arrive InCEPkts $KUBE
assert_match "the endpoint that the gateway sees" '2001:db8:100::11' "$(admin status -o json | jq -r '.worker.peers[0].endpoint')"

step "a router that marks what is not ECT costs the packet, and it is counted"
assert_probe laptop answered 1000 udp $KUBE 5353
arrived=$(lines_in udp-5353)
in_ns inet nft flush chain inet path forward
in_ns inet nft add rule inet path forward udp dport 51820 ip6 ecn not-ect ip6 ecn set ce
assert_probe laptop silent 4000 udp $KUBE 5353
assert_at_least "packets dropped as ecn-ce" 1 "$(drops ecn-ce)"
assert_eq "datagrams at the target" "$arrived" "$(lines_in udp-5353)"
assert_clean_logs
test_ok
