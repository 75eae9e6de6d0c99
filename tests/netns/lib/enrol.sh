# Enrolment, as an admin and a laptop do it: invitations, joining, and the audit lines that tell of it.

# invite ARGS…: the string that `postern-gateway invite` prints
invite() {
  local said
  said=$(admin invite "$@" 2>&1) || fail "invite $* to succeed" "$said"
  grep -oE 'postern1-[A-Za-z0-9_-]+' <<<"$said" | head -1
}

# join HOST STRING [ARGS…]: joins and leaves the profile where client_start finds it. The string is given on stdin.
join() {
  local h=$1 string=$2; shift 2
  in_ns "$h" "$CLIENT_BIN" join - --profile "$W/host/$h/profile" "$@" <<<"$string"
}

# joined HOST ARGS FOR invite…: invites, joins, brings the tunnel up.
joined() {
  local h=$1; shift
  assert_ok "$h to join" join "$h" "$(invite "$@")" --name "$h-laptop"
  client_start "$h"
}

# Audit lines, one JSON object per line. audits JQ_FILTER
audits() { grep -h '"kind":"audit"' "$GW"/data/flows/*.jsonl | jq -c "select($1)"; }
audit_exists() { [ -n "$(audits "$1" | head -1)" ]; }
# Audit lines are on disk when a command has answered.
assert_audit() { audit_exists "$2" || fail "an audit line of $1" "$(audits true | tail -3)"; }

# assert_cut SINCE NAME "by what": a stream of follow() saw a reset at most a second after the moment
assert_cut() {
  local how at
  wait_for 3 "$2 to end by $3" gone "$(pid_of "$2")"
  read -r _ _ how at < <(grep '^ended' "$(log_of "$2")")
  assert_eq "how $2 ended by $3" reset "$how"
  assert_at_most "ms until $2 ended by $3" "${4:-1000}" $((at - $1))
  echo "      $3: cut $((at - $1)) ms after the command began"
}

# stream HOST NAME: opens a stream to the stream server on port 7000
stream() {
  rm -f "$(log_of "$2")"
  follow "$2" "$1" $KUBE 7000 talk
  wait_for 5 "$2 to open" grep -q '^line 3 ' "$(log_of "$2")"
}
is_open() { [ "$(probe "$1" tcp $KUBE 7000 | cut -d' ' -f1)" = open ]; }
is_shut() { [ "$(probe "$1" tcp $KUBE 7000 | cut -d' ' -f1)" != open ]; }
state_of() { admin device show "$1" -o json | jq -r .state; }
