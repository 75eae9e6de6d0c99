#!/usr/bin/env bash
# The control API answers inside the tunnel and nowhere else, and no socket of the kernel listens for it (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up

gateway_of() { in_ip gateway -j "$1" addr show | jq -r '[.[] | select(.ifname | startswith("postern")) | .addr_info[] | select(.scope == "global") | .local][0]'; }
TUNNEL4=$(gateway_of -4)
TUNNEL6=$(gateway_of -6)
assert_match "the gateway's address in the tunnel" '^[0-9.]+$' "$TUNNEL4"
assert_match "the same, IPv6" ':' "$TUNNEL6"
stock_client stock erin-phone erin@example.com admins "$TUNNEL4/32" "$TUNNEL6/128"
hello() { local h=$1; shift; in_ns "$h" curl -sS -m 3 "http://$1:9477/v1/hello"; }

step "a stock peer and its kernel's TCP, over both families"
assert_ok "hello over IPv4" hello stock "$TUNNEL4"
assert_eq "what it says" '{"api":1}' "$OUT"
assert_ok "hello over IPv6" hello stock "[$TUNNEL6]"
assert_eq "what it says" '{"api":1}' "$OUT"
for _ in 1 2 3 4 5 6 7 8 9 10 11 12; do assert_ok "hello again" hello stock "$TUNNEL4"; done
assert_at_least "connections counted" 14 "$(metric postern_control_connections_total)"
no_connections() { [ "$(metric postern_control_connections 'state="open"')" = 0 ]; }
wait_for 5 "no connection to be left" no_connections

step "one connection carries many requests, and what is too large is refused"
assert_ok "twenty on one connection" in_ns stock curl -sS -m 5 "http://$TUNNEL4:9477/v1/hello?" "http://$TUNNEL4:9477/v1/[1-20]"
head -c 200000 /dev/zero >"$W/large"
code=$(in_ns stock curl -s -m 5 -o /dev/null -w '%{http_code}' --data-binary "@$W/large" "http://$TUNNEL4:9477/v1/why" || true)
assert_match "the answer to a large body" '^(413|400)$' "$code"

step "other ports of that address are refused by policy, as before"
assert_probe stock refused 1000 tcp "$TUNNEL4" 22

step "nobody else reaches it: the host itself, a target, the Internet"
for each in "$TUNNEL4" "[$TUNNEL6]" 127.0.0.1 "$GATEWAY4"; do
  assert_fails "hello from the gateway's host to $each" hello gateway "$each"
done
in_ip cluster route replace "$TUNNEL4/32" via 10.77.0.1
assert_fails "hello from a target" hello cluster "$TUNNEL4"
assert_fails "hello from the Internet" hello outside "$GATEWAY4"
assert_fails "hello from the Internet, IPv6" hello outside "[$GATEWAY6]"
assert_eq "TCP sockets of the gateway beyond loopback" "" "$(in_ns gateway ss -Htlnp | grep postern-gateway | grep -v '127.0.0.1:' || true)"
assert_eq "sockets on the port" "" "$(in_ns gateway ss -Htln 'sport = 9477')"

step "a slow head holds nothing for long"
slow() { in_ns stock "$PYTHON" - "$TUNNEL4" <<'PY'
import socket, sys
s = socket.create_connection((sys.argv[1], 9477), 3)
s.sendall(b"GET /v1/hello HTTP/1.1\r\nx-")
s.settimeout(15)
while s.recv(100): pass
PY
}
assert_ok "the connection to be ended by the gateway" slow

step "a revoked device is cut off"
assert_ok "revoke" admin device revoke erin-phone
assert_fails "hello after that" hello stock "$TUNNEL4"
assert_clean_logs
test_ok
