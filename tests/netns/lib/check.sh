# What a test says and what it asserts. The last line of a test is `ok NAME`, `FAIL NAME: …` or `skip NAME: …`.

TEST=$(basename "${0%.sh}")
VERDICT=

# Every test begins here: whatever happens afterwards is cleaned up and said.
test_begin() {
  exec 3>&1 4>&2   # a test may end inside a redirected function
  trap 'on_exit $?' EXIT
  trap 'WHERE="an interrupt"; exit 130' INT
  trap 'WHERE="a signal"; exit 143' TERM HUP
  trap 'on_err "$BASH_COMMAND" "${BASH_SOURCE[0]##*/}:$LINENO"' ERR
}

on_err() { [ -n "$VERDICT" ] || WHERE="$1 ($2)"; }

on_exit() {
  local status=$1
  trap - EXIT ERR
  trap '' INT TERM HUP
  set +e
  [ -n "$VERDICT" ] || VERDICT=$(cat "${W:-/nonexistent}/verdict" 2>/dev/null)
  if [ -z "$VERDICT" ]; then
    VERDICT="FAIL $TEST: expected the script to reach its end, it ended with status $status at ${WHERE:-an unknown place}"
    show_logs >&4
    [ "$status" != 0 ] || status=1
  fi
  world_down
  echo "$VERDICT" >&3
  exit "$status"
}

test_ok() { VERDICT="ok $TEST"; exit 0; }
skip() { VERDICT="skip $TEST: $*"; exit 77; }

# fail EXPECTED SEEN: from a subshell too (the status travels up through set -e, the verdict through a file).
fail() {
  VERDICT="FAIL $TEST: expected $1; saw: ${2:-nothing}"
  echo "$VERDICT" >"$W/verdict"
  show_logs >&4
  exit 1
}

show_logs() {
  [ -d "${W:-/nonexistent}/log" ] || return 0
  local f
  for f in "$W"/log/*.log; do
    [ -s "$f" ] || continue
    echo "--- the end of ${f##*/}"
    tail -n 25 "$f" | cut -c1-400
  done
}

step() { echo "  - $*"; }

assert_eq() { [ "$2" = "$3" ] || fail "$1 to be '$2'" "'$3'"; }
assert_match() { [[ $3 =~ $2 ]] || fail "$1 to match /$2/" "'$3'"; }
assert_no_match() { [[ ! $3 =~ $2 ]] || fail "$1 not to match /$2/" "'$3'"; }
assert_at_most() { awk -v a="$3" -v b="$2" 'BEGIN { exit !(a <= b) }' || fail "$1 to be at most $2" "$3"; }
assert_at_least() { awk -v a="$3" -v b="$2" 'BEGIN { exit !(a >= b) }' || fail "$1 to be at least $2" "$3"; }

# assert_ok "what" COMMAND…, assert_fails "what" COMMAND…: by exit status; OUT is what it printed.
assert_ok() {
  local what=$1 status=0; shift
  OUT=$("$@" 2>&1) || status=$?
  [ $status = 0 ] || fail "$what to succeed" "status $status: $OUT"
}
assert_fails() {
  local what=$1; shift
  ! OUT=$("$@" 2>&1) || fail "$what to fail" "success: $OUT"
}

# --- What reaches a host, seen on its wire.

IP_TRAFFIC='tcp or udp or icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129))'

# capture_start NAME HOST IFACE [FILTER]
capture_start() {
  local name=$1 host=$2 iface=$3 filter=${4:-$IP_TRAFFIC}
  start "$name" "$host" tcpdump -i "$iface" -nn -l --immediate-mode -Q in "($filter) or udp dst port 9"
  wait_for 5 "tcpdump to listen in $host" grep -q 'listening on' "$(log_of "$name")"
}

# capture_stop NAME HOST FROM ADDRESS: prints what was captured. A marker datagram sent by FROM to ADDRESS
# comes last on that wire, so nothing that came before it can be missing.
capture_stop() {
  local name=$1 from=$3 to=$4
  until_true 50 marker_seen "$name" "$from" "$to" || fail "the marker in capture $name" "no marker"
  stop "$name"
  grep -E '^[0-9]{2}:[0-9]{2}:' "$(log_of "$name")" | grep -v '\.9: UDP' || true
}
marker_seen() {
  in_ns "$2" bash -c "echo marker >/dev/udp/$3/9" 2>/dev/null
  grep -q '\.9: UDP' "$(log_of "$1")"
}

# assert_silent NAME "while": ends the capture at the cluster and fails where anything was in it.
assert_cluster_silent() {
  local seen; seen=$(capture_stop "$1" cluster gateway $PRIVATE_CLUSTER)
  [ -z "$seen" ] || fail "nothing at the target $2" "$(head -5 <<<"$seen")"
}

# --- Probes from a host, each with its answer in one word and its milliseconds: see probe.py.
probe() { local h=$1; shift; in_ns "$h" "$PYTHON" "$NETNS_DIR/probe.py" "$@"; }

# assert_probe HOST EXPECTED MAX_MS PROBE…
assert_probe() {
  local host=$1 expected=$2 max=$3; shift 3
  local answer ms
  read -r answer ms < <(probe "$host" "$@") || true
  [ "${answer:-}" = "$expected" ] || fail "$* from $host to be $expected" "${answer:-no answer}"
  assert_at_most "$* from $host in ms" "$max" "$ms"
}
