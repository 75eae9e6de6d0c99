#!/usr/bin/env bash
# Copies of the log: Loki, OTLP, a file and stdout have every line at least once, in order and byte for byte, whatever
# happens to the servers and to the gateway. The servers are strangers: see export_receiver.py (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
# shellcheck source=/dev/null
source "$REPO/scripts/install-deps"
test_begin
need_load
RECEIVERS=$REPO/target/receivers
need_python "$RECEIVERS" opentelemetry-proto==1.45.2 cramjam==2.14.0 || skip "no packages from PyPI"
receiver() { "$RECEIVERS/bin/python" "$NETNS_DIR/export_receiver.py" "$@"; }
HOSTS=(inet gateway cluster laptop)
world_up

# A certificate authority of our own: certificate NAME
mkdir "$W/tls"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=test CA" \
  -keyout "$W/tls/ca.key" -out "$W/tls/ca.pem" 2>/dev/null
certificate() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=$1" \
    -CA "$W/tls/${2:-ca}.pem" -CAkey "$W/tls/${2:-ca}.key" -addext "basicConstraints=critical,CA:FALSE" \
    -addext "subjectAltName=IP:$PRIVATE_CLUSTER" -keyout "$W/tls/$1.key" -out "$W/tls/$1.pem" 2>/dev/null
}
certificate loki
certificate otlp
(umask 077; printf 'open sesame\n' >"$W/tls/password"; echo old >"$W/tls/token")

# receiver_start KIND [CERTIFICATE]
receiver_start() {
  local how=(--kind "$1" --address "$PRIVATE_CLUSTER" --cert "$W/tls/${2:-$1}.pem" --key "$W/tls/${2:-$1}.key"
    --trouble "$W/$1.trouble" --out "$W/$1.received")
  case $1 in
    # The example of RFC 7617, section 2.
    loki) how+=(--port 3100 --tenant team-a --authorization "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==" --refuse-n 50) ;;
    otlp) how+=(--port 4318 --authorization "Bearer new") ;;
  esac
  local listened; listened=$(grep -c '^listening' "$(log_of "$1")" 2>/dev/null || true)
  start "$1" cluster "$RECEIVERS/bin/python" "$NETNS_DIR/export_receiver.py" serve "${how[@]}"
  listens_again() { [ "$(grep -c '^listening' "$(log_of "$1")")" -gt "${2:-0}" ]; }
  wait_for 10 "$1 to listen" listens_again "$1" "${listened:-0}"
}
received_more_than() { [ "$(wc -l <"$W/$1.received")" -gt "$2" ]; }

exporter() { metric "postern_export_$2" "exporter=\"$1\""; }
exporter_is() { [ "$(exporter "$1" "$2")" = "$3" ]; }
exporter_above() { [ "$(exporter "$1" "$2")" -gt "$3" ]; }
why() { status_of_gateway | jq -r ".flow_log.exporters[] | select(.name == \"$1\") | .failing"; }
why_matches() { [[ $(why "$1") =~ $2 ]]; }
asked() { grep -c "\" $2 " "$(log_of "$1")"; }

opens() { start opens laptop "$LOAD_BIN" opens --to $KUBE:20000 --rate 200 --seconds "$1" -o json; }
opens_over() { gone "$(pid_of opens)"; }

step "no server is there: they lag and say so, and no flow is refused for it"
gateway_up "flow_log:
  segment_size: 128KiB
  stdout: true
  file: copy.jsonl
  loki:
    url: https://$PRIVATE_CLUSTER:3100
    tenant: team-a
    username: Aladdin
    password_file: $W/tls/password
    ca_file: $W/tls/ca.pem
    batch_bytes: 64KiB
    batch_age: 100ms
    timeout: 3s
  otlp:
    url: https://$PRIVATE_CLUSTER:4318
    bearer_token_file: $W/tls/token
    ca_file: $W/tls/ca.pem
    batch_age: 100ms"
{ policy | sed 's|5353/udp|20000-40000/udp|'; } | policy_put
admin policy reload >/dev/null
client_up laptop ana-laptop ana@example.com admins
opens 4
wait_for 10 "300 lines to wait for Loki" exporter_above loki lag_records 300
for each in loki otlp; do
  assert_eq "$each is up" 0 "$(exporter "$each" up)"
  assert_match "why" 'Connection refused' "$(why "$each")"
done
assert_eq "the file is up" 1 "$(exporter file up)"
assert_eq "readyz" 200 "$(http_status readyz)"
wait_for 20 "the load to end" opens_over
assert_eq "datagrams that the laptop could not send" 0 "$(jq .refused "$(log_of opens)")"
assert_eq "refusals because of the log" 0 "$(drops log-unavailable)"

step "a server with a certificate of somebody else gets nothing"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=test CA" \
  -keyout "$W/tls/other.key" -out "$W/tls/other.pem" 2>/dev/null
certificate stranger other
receiver_start loki stranger
wait_for 40 "the certificate to be refused" why_matches loki 'invalid peer certificate'
assert_eq "lines at the stranger" "" "$(cat "$W/loki.received" 2>/dev/null || true)"
stop loki || true

step "they come up: 429, 503 and an old token are overcome; one line is refused for ever and parked"
echo 429 2 1 >"$W/loki.trouble"
receiver_start loki
receiver_start otlp
wait_for 60 "the old token to be refused" why_matches otlp '401'
echo new >"$W/tls/token"
echo 503 1 >"$W/otlp.trouble"
for each in loki otlp; do
  wait_for 60 "$each to have every line" exporter_is "$each" lag_records 0
  assert_eq "$each is up" 1 "$(exporter "$each" up)"
done
assert_eq "answers 429" 2 "$(asked loki 429)"
assert_eq "answers 503" 1 "$(asked otlp 503)"
assert_eq "lines parked for Loki" 1 "$(exporter loki parked_total)"
assert_eq "the parked line" 50 "$(jq .n "$GW/data/flows/parked-loki.jsonl")"
assert_eq "lines parked for OTLP" 0 "$(exporter otlp parked_total)"
exporter_above loki retries_total 2 || fail "retries of Loki" "$(exporter loki retries_total)"

step "kill -9 of both servers in the middle, and of the gateway"
opens 12
for each in loki otlp; do
  before=$(wc -l <"$W/$each.received")
  wait_for 10 "more lines at $each" received_more_than "$each" $((before + 100))
  stop "$each" KILL || true
done
wait_for 10 "Loki to be missed" exporter_is loki up 0
receiver_start loki
before=$(wc -l <"$W/loki.received")
wait_for 20 "more lines at Loki" received_more_than loki $((before + 100))
stop gateway KILL || true
receiver_start otlp
gateway_start
before=$(wc -l <"$W/loki.received")
wait_for 20 "more lines at Loki" received_more_than loki $((before + 100))
wait_for 30 "the load to end" opens_over
for each in loki otlp file stdout; do
  wait_for 60 "$each to have every line" exporter_is "$each" lag_records 0
done

step "what a run wrote is what each exporter has"
# At rest, all in one look: what each has acknowledged since the start of this run is every line since its first one.
before=$(($(log_events '.event == "started"' | jq -s 'last.n') - 1))
assert_at_least "lines of earlier runs" 300 "$before"
balanced() {
  gateway_says ".flow_log | .head as \$head | .exporters | length == 4 and
    all(.position == \$head and .lag_records == 0 and .acknowledged == \$head - $before and .missed == 0)"
}
wait_for 5 "acknowledged = lines of this run" balanced

step "at the end every line is everywhere, in order, as it was written, and all are one chain"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_ok "the chain" admin flows verify
head=$(cat "$GW"/data/flows/0*.jsonl | wc -l)
assert_at_least "lines" 2000 "$head"
for each in loki otlp; do
  assert_ok "every line at $each" receiver check --kind "$each" --head "$head" --parked "$GW/data/flows/parked-$each.jsonl" "$W/$each.received"
  echo "      $each: $OUT"
done
assert_ok "every line in the file" receiver chain --head "$head" "$GW/copy.jsonl"
echo "      file: $OUT"
grep '^{"' "$(log_of gateway)" >"$W/stdout.received"
assert_ok "every line on stdout" receiver chain --head "$head" "$W/stdout.received"
echo "      stdout: $OUT"
assert_no_match "a secret in the log" 'open sesame|Bearer|QWxhZGRpbjpvcGVuIHNlc2FtZQ' "$(grep -v '^{' "$(log_of gateway)")"
test_ok
