#!/usr/bin/env bash
# nmap finds nothing: every TCP port and the common UDP ports from outside; from inside a tunnel the control API and
# nothing else (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
gateway_up
stock_client stock eve-phone eve@example.com visitors 100.96.0.1/32
wait_for 5 "a tunnel" eval 'in_ns stock ping -c 1 -W 1 100.96.0.1 >/dev/null; stock_handshook stock'

# scan HOST TARGET OPTIONS…: what nmap says of each port that is not closed or filtered
scan() {
  local host=$1 target=$2; shift 2
  in_ns "$host" nmap -n -Pn --max-retries 1 "$@" -oG - "$target" >"$W/scan" 2>"$W/scan.err" || fail "nmap to run" "$(cat "$W/scan.err")"
  grep -q 'Nmap done.*1 IP address' "$W/scan" || fail "nmap to come to its end" "$(cat "$W/scan" "$W/scan.err")"
  { grep -oE '[0-9]+/open(\|filtered)?/(tcp|udp)' "$W/scan" || true; } | sort -n | tr '\n' ' ' | sed 's/ $//'
}

step "a scan that could not find anything would prove nothing: a port that is open is found"
start witness gateway "$PYTHON" -m http.server 8099 --bind 0.0.0.0
wait_for 5 "the witness" grep -q Serving "$(log_of witness)"
assert_eq "the open port" 8099/open/tcp "$(scan outside $GATEWAY4 -sT -p 8000-8100)"
stop witness

step "from outside: no TCP port is open, by connection and by SYN, IPv4 and IPv6"
capture_start udp-answers outside eth0 "(src host $GATEWAY4 or src host $GATEWAY6) and udp"
capture_start syn-acks outside eth0 "src host $GATEWAY4 and tcp[tcpflags] & (tcp-syn|tcp-ack) == (tcp-syn|tcp-ack)"
assert_eq "open TCP ports, -sT" "" "$(scan outside $GATEWAY4 -sT -p- --min-rate 5000)"
assert_eq "open TCP ports, -sS" "" "$(scan outside $GATEWAY4 -sS -p- --min-rate 5000)"
assert_eq "open TCP ports, IPv6" "" "$(scan outside $GATEWAY6 -6 -sS -p- --min-rate 5000)"

step "from outside: no UDP port answers; the gateway's own cannot be told from a filtered one"
# A host says of a closed UDP port that it is closed; the port of the gateway says nothing, whatever the length.
for length in 0 1 32 148 1200; do
  assert_eq "the UDP port, $length bytes" '51820/open|filtered/udp' "$(scan outside $GATEWAY4 -sU -p 51820 --data-length $length)"
done
assert_eq "the UDP port, IPv6" '51820/open|filtered/udp' "$(scan outside $GATEWAY6 -6 -sU -p 51820)"
common=$(scan outside $GATEWAY4 -sU -p 53,67,123,161,500,1194,4500,5353,9477,9478,51819,51821 | tr ' ' '\n' | grep -v filtered || true)
assert_eq "UDP ports that answered" "" "$common"
assert_eq "datagrams that came back" "" "$(capture_stop udp-answers outside inet 198.51.100.66)"
assert_eq "SYN-ACKs that came back" "" "$(capture_stop syn-acks outside inet 198.51.100.66)"

step "no socket listens for the control API: neither the host, nor a target, nor another network reaches it"
assert_eq "listeners on 9477" "" "$(in_ns gateway ss -Htlnu 'sport = 9477')"
for at in 100.96.0.1 $PRIVATE_GATEWAY $GATEWAY4; do
  assert_match "9477 at $at from the gateway itself" 'refused|timeout|unreachable' "$(probe gateway tcp $at 9477)"
done
assert_match "9477 from a target" 'refused|timeout|unreachable' "$(probe cluster tcp $PRIVATE_GATEWAY 9477)"
in_ip cluster route replace 100.96.0.0/16 via $PRIVATE_GATEWAY
assert_match "9477 from a target, at the tunnel address" 'refused|timeout|unreachable|prohibited' "$(probe cluster tcp 100.96.0.1 9477)"

step "from a device's tunnel: the control API, and no other port of the gateway"
assert_probe stock open 2000 tcp 100.96.0.1 9477
assert_eq "open ports" 9477/open/tcp "$(scan stock 100.96.0.1 -sT -p- --min-rate 3000)"
wait_record "a denial of the scan" '.verdict == "deny" and .device == "eve-phone" and .dst_address == "100.96.0.1"'
assert_eq "records that allow the scan" 0 "$(records '.verdict == "allow" and .dst_address == "100.96.0.1"' | wc -l)"
assert_eq "records lost" 0 "$(status_of_gateway | jq .flow_log.lost)"
test_ok
