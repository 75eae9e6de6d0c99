# Load from outside: seeded devices by the hundred, strangers by the thousand (postern-load, tests/load).

LOAD_BIN=$BIN/postern-load

need_load() { [ -x "$LOAD_BIN" ] || skip "no postern-load in $BIN: cargo build --release --bins"; }

load() { local h=$1; shift; in_ns "$h" "$LOAD_BIN" "$@" -o json; }

gateway_key() { status_of_gateway | jq -r .public_key; }

# load_from HOST PREFIX: the host speaks for a whole prefix, and what answers it finds the way back.
load_from() {
  in_ip "$1" route replace local "$2" dev lo
  in_ip inet route replace "$2" via "198.51.100.$(host_number "$1")"
}

# enrol_many COUNT SEED GROUP: seeded devices; one line of JSON each in $W/enrolled-SEED
enrol_many() {
  load gateway enrol --socket "$GW/data/admin.sock" --count "$1" --seed "$2" --prefix "load$2" --group "$3" >"$W/enrolled-$2" ||
    fail "$1 devices to be enrolled" "$(tail -1 "$W/enrolled-$2")"
}

# handshakes HOST ARGS…: one line of JSON
handshakes() { local h=$1; shift; load "$h" handshakes --to "$GATEWAY4:51820" --gateway-key "$(gateway_key)" "$@"; }

# The gateway's resident memory, in KiB.
rss_of_gateway() { awk '/^VmRSS/ { print $2 }' "/proc/$(pid_of gateway)/status"; }
