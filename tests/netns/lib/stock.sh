# Stock WireGuard: wireguard-go as the device, wg as its tool. As a client of the gateway, and as a server.

# stock_up HOST WG_QUICK_FILE [ENDPOINT]: what wg-quick would do, without touching the real host's resolver.
stock_up() {
  local host=$1 conf=$2 endpoint=${3:-}
  wireguard_go "$host" wg0
  local setup=$W/host/$host/wg0.conf
  grep -Ev '^ *(Address|DNS|MTU|Table|PreUp|PostUp|PreDown|PostDown|SaveConfig) *=' "$conf" >"$setup"
  [ -z "$endpoint" ] || sed -i "s/^ *Endpoint *=.*/Endpoint = $endpoint/" "$setup"
  in_ns "$host" wg setconf wg0 "$setup"
  local mtu each
  mtu=$(sed -n 's/^ *MTU *= *//p' "$conf")
  in_ip "$host" link set wg0 mtu "${mtu:-1420}" up
  for each in $(conf_list Address "$conf"); do in_ip "$host" addr add "$each" dev wg0; done
  for each in $(conf_list AllowedIPs "$conf"); do in_ip "$host" route replace "$each" dev wg0; done
}

conf_list() { sed -n "s/^ *$1 *= *//p" "$2" | tr ',' ' '; }

wireguard_go() {
  start "wireguard-go-$1" "$1" env LOG_LEVEL=verbose wireguard-go -f "$2"
  wait_for 5 "wireguard-go in $1 to answer wg" in_ns "$1" wg show "$2"
}

stock_handshook() { [ "$(in_ns "$1" wg show wg0 latest-handshakes | awk '{print $2}')" != 0 ]; }

# Sends crafted inner packets out of a stock tunnel: see inject.py.
inject() { local h=$1; shift; in_ns "$h" "$PYTHON" "$NETNS_DIR/inject.py" wg0 "$@"; }
