# Postern in its hosts: the gateway, the clients, the policy of the tests, and what they say about themselves.

GATEWAY_BIN=$BIN/postern-gateway CLIENT_BIN=$BIN/postern
METRICS=http://127.0.0.1:9478

need_binaries() {
  [ -x "$GATEWAY_BIN" ] && [ -x "$CLIENT_BIN" ] || skip "no binaries in $BIN: cargo build --release --bins"
}

# The policy of the tests. `lab` is there for programs that are neither kubectl nor ssh.
policy() {
  cat <<YAML
version: 1
targets:
  kube-api: { addresses: [$KUBE, "$KUBE6"], ports: [6443/tcp] }
  nodes:
    addresses: [192.0.2.10, 5.75.198.10, 91.107.250.5, 65.109.212.122, "$KUBE6"]
    ports: [22/tcp]
  lab: { addresses: [$KUBE, "$KUBE6"], ports: [7000/tcp, 5201/tcp, 5353/udp] }
rules:
  - { name: kubectl to the API server, action: allow, from: { groups: [admins] }, to: [kube-api] }
  - { name: ssh to the nodes, action: allow, from: { groups: [admins] }, to: [nodes] }
  - { name: the lab, action: allow, from: { groups: [admins] }, to: [lab] }
YAML
}
policy_without() { policy | grep -v "name: $1"; }

# Replaces the policy at once, as an editor or a deployment does: stdin becomes the file.
policy_put() {
  cat >"$GW/.policy.new"
  mv "$GW/.policy.new" "$GW/policy.yaml"
}

# gateway_up [LINES FOR gateway.yaml]: init, the policy above, run, ready.
gateway_up() {
  need_binaries
  GW=$W/host/gateway/postern
  gw init "$GW" --endpoint "$GATEWAY4:51820" >"$W/log/init.log" 2>&1 || fail "init to succeed" "$(cat "$W/log/init.log")"
  [ -z "${1:-}" ] || printf '%s\n' "$1" >>"$GW/gateway.yaml"
  policy | policy_put
  gateway_start
}

gateway_start() {
  start gateway gateway "$GATEWAY_BIN" run --config "$GW/gateway.yaml"
  wait_for 5 "the gateway to be ready" gateway_ready
}
gateway_ready() { is_running gateway && [ "$(http_status readyz)" = 200 ]; }
http_status() { in_ns gateway curl -s -o /dev/null -m 2 -w '%{http_code}' "$METRICS/$1"; }

# The admin's command line. `gw` for verbs without a daemon, `admin` for those that talk to it.
gw() { in_ns gateway "$GATEWAY_BIN" "$@"; }
admin() { gw "$@" --config "$GW/gateway.yaml"; }

device_add() { admin device add "$1" --user "$2" --group "$3" "${@:4}"; }
status_of_gateway() { admin status -o json; }
gateway_says() { status_of_gateway | jq -e "$1"; }

# metric NAME [LABELS AS A PATTERN]: the sum of its samples, 0 where there is none.
metric() {
  in_ns gateway curl -s -m 2 "$METRICS/metrics" |
    awk -v name="$1" -v labels="${2:-}" '
      { split($1, part, "{") } part[1] == name && $0 ~ labels { sum += $NF } END { print sum + 0 }'
}
drops() { metric postern_packets_dropped_total "reason=\"$1\""; }
metric_above() { [ "$(metric "$1" "$3")" -gt "$2" ]; }
drops_above() { [ "$(drops "$1")" -gt "$2" ]; }

# Flow records, one JSON object per line, over all segments. records JQ_FILTER
records() { cat "$GW"/data/flows/*.jsonl | jq -c "select(.kind == \"flow\") | select($1)"; }
# What the log says of itself. log_events JQ_FILTER
log_events() { grep -h '"kind":"log"' "$GW"/data/flows/*.jsonl | jq -c "select($1)"; }
log_event_exists() { [ -n "$(log_events "$1" | head -1)" ]; }
wait_log_event() { wait_for "${3:-5}" "the log to say $1" log_event_exists "$2"; }
record_exists() { [ -n "$(records "$1" | head -1)" ]; }
wait_record() { wait_for "${3:-5}" "a record of $1" record_exists "$2"; }

# client_up HOST DEVICE USER GROUP: enrols a device and brings its tunnel up on the host.
client_up() {
  local host=$1 device=$2
  device_add "$device" "$3" "$4" --out "$W/host/$host/profile" >>"$W/log/enrol.log" 2>&1 ||
    fail "device add $device to succeed" "$(cat "$W/log/enrol.log")"
  client_start "$host"
}
client_start() {
  start "client-$1" "$1" "$CLIENT_BIN" up "$W/host/$1/profile"
  until_true 50 client_settled "$1" && is_running "client-$1" ||
    fail "the tunnel of $1 to be up within 5 s" "$(tail -5 "$(log_of "client-$1")")"
}
client_settled() { ! is_running "client-$1" || in_ip "$1" route get "$KUBE" | grep -q 'dev postern'; }
client() { local h=$1; shift; in_ns "$h" "$CLIENT_BIN" "$@"; }

# The inner IPv4 address of an enrolled device.
address_of() { admin device show "$1" -o json | jq -r '.addresses[0]'; }
address6_of() { admin device show "$1" -o json | jq -r '.addresses[1]'; }

# A stock peer as a device: stock_client HOST DEVICE USER GROUP [EXTRA ALLOWED IPS…]
stock_client() {
  local host=$1 device=$2 conf=$W/host/$1/wg-quick.conf
  device_add "$device" "$3" "$4" --format wg-quick --out "$conf" >>"$W/log/enrol.log" 2>&1 ||
    fail "device add $device --format wg-quick to succeed" "$(cat "$W/log/enrol.log")"
  shift 4
  [ $# = 0 ] || sed -i "s|^AllowedIPs *=.*|&, $(IFS=,; echo "$*")|" "$conf"
  stock_up "$host" "$conf"
}

# A clean run warns of nothing: no WARN, no ERROR, no panic in what either binary printed.
assert_clean_logs() {
  local f bad
  for f in "$W"/log/gateway.log "$W"/log/client-*.log; do
    [ -e "$f" ] || continue
    bad=$(sed 's/\x1b\[[0-9;]*m//g' "$f" | grep -E '\b(WARN|ERROR)\b|"level":"(WARN|ERROR)"|panicked' | grep -Ev "${1:-^$}" || true)
    [ -z "$bad" ] || fail "no WARN or ERROR in ${f##*/}" "$(head -3 <<<"$bad")"
  done
}
