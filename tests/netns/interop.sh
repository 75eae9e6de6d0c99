#!/usr/bin/env bash
# Stock WireGuard both ways: wireguard-go + wg as a client of the gateway, and as a server of postern up
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up

step "wg-quick up with the gateway's profile and a pre-shared key, as its user would"
device_add erin-phone erin@example.com admins --format wg-quick --preshared-key --out "$W/erin.conf" >>"$W/log/enrol.log" 2>&1
quick() { in_ns stock env WG_QUICK_USERSPACE_IMPLEMENTATION=wireguard-go wg-quick "$1" "$W/erin.conf"; }
assert_ok "wg-quick up" quick up
assert_ok "kubectl" kubectl_in stock get pods
assert_probe stock refused 1000 tcp $KUBE 8080
wait_record "kubectl by the stock peer" '.device == "erin-phone" and .rule == "kubectl to the API server"'
assert_ok "wg-quick down" quick down

step "wireguard-go and wg with the gateway's profile"
stock_client stock carol-phone carol@example.com admins
assert_eq "the mode of the profile, which holds a key" 600 "$(stat -c %a "$W/host/stock/wg-quick.conf")"
assert_ok "kubectl over the stock tunnel" kubectl_in stock get pods
assert_match "the table" 'worker-0 +1/1 +Running' "$OUT"
assert_ok "ssh over the stock tunnel" ssh_in stock 65.109.212.122 echo hello
assert_probe stock refused 1000 tcp $KUBE 8080
wait_record "ssh by the stock peer" '.device == "carol-phone" and .user == "carol@example.com" and .rule == "ssh to the nodes" and .state == "closed"'
head -c 3000000 /dev/urandom >"$W/file"
assert_ok "scp over the stock tunnel" scp_in stock "$W/file" "$KUBE:$W/there"
assert_ok "the file to be the same there" cmp "$W/file" "$W/there"
assert_match "what wg says" 'latest handshake' "$(in_ns stock wg show wg0)"

step "a device that brings its own key"
in_ns server sh -c "umask 077; wg genkey >$W/own.key; wg pubkey <$W/own.key >$W/own.pub"
assert_ok "device add --public-key" device_add dave-phone dave@example.com admins --public-key "$(cat "$W/own.pub")" --format wg-quick
private=$(cat "$W/own.key")
assert_no_match "what the gateway printed" "$private" "$OUT"
# the owner fills in the private half where the gateway left room for it
{ echo '[Interface]'; echo "PrivateKey = $private"; grep -v '^\[Interface\]' <<<"$OUT" | grep -Ev '^#? *PrivateKey'; } |
  sed -n '/^\[Interface\]/,$p' | grep -E '^\[|^[A-Za-z0-9]+ *=' >"$W/own.conf"
stock_up server "$W/own.conf"
assert_probe server open 1000 tcp $KUBE 6443
stop wireguard-go-server || true

step "postern up against a stock server"
in_ns outside sh -c "umask 077; wg genkey >$W/server.key; wg genkey >$W/client.key"
server_public=$(wg pubkey <"$W/server.key") client_public=$(wg pubkey <"$W/client.key")
wireguard_go outside wg0
cat >"$W/server.conf" <<CONF
[Interface]
PrivateKey = $(cat "$W/server.key")
ListenPort = 51820
[Peer]
PublicKey = $client_public
AllowedIPs = 100.64.9.2/32, fd00:9::2/128
CONF
in_ns outside wg setconf wg0 "$W/server.conf"
in_ip outside addr add 100.64.9.1/24 dev wg0
in_ip outside -6 addr add fd00:9::1/64 dev wg0
in_ip outside link set wg0 mtu 1420 up
in_ip outside addr add 198.18.7.1/32 dev lo
start far-server outside "$PYTHON" "$NETNS_DIR/probe.py" serve 198.18.7.1 7000
wait_listening far-server
(umask 077; cat >"$W/host/laptop/profile") <<YAML
version: 1
name: ana-laptop
private_key: $(cat "$W/client.key")
addresses: [100.64.9.2, "fd00:9::2"]
mtu: 1420
gateway:
  public_key: $server_public
  endpoints: ["198.51.100.66:51820"]
  tunnel_addresses: [100.64.9.1, "fd00:9::1"]
include: [198.18.7.1/32]
YAML
start client-laptop laptop "$CLIENT_BIN" up "$W/host/laptop/profile"
far_route() { in_ip laptop route get 198.18.7.1 | grep -Eq 'dev (postern|utun|tun)'; }
wait_for 5 "the tunnel to be up" far_route
assert_probe laptop open 2000 tcp 198.18.7.1 7000
follow talk laptop 198.18.7.1 7000 talk
wait_for 5 "lines from the far side" grep -q '^line 3 ' "$(log_of talk)"
assert_match "what the stock server says" 'latest handshake' "$(in_ns outside wg show wg0)"
assert_alive talk "the stream"
stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
