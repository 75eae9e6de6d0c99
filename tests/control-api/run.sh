#!/usr/bin/env bash
# Fuzzes the control API by its description, docs/control-api.yaml, with Schemathesis (PyPI): once as a device, once as
# a throw-away key. Checks: no server error; status codes, content types and bodies as described; what the description
# forbids is refused.
#
#   tests/control-api/run.sh [SECONDS]     SECONDS for each of both, 40 by default
#
# Exit: 0 nothing found, 1 something found.
set -euo pipefail
cd "$(dirname "$0")/../.."
source scripts/install-deps

seconds=${1:-40}
venv=$PWD/target/control-api/venv
need python3:python3 || exit 1
need_python "$venv" schemathesis==4.32.5
# All packages at once: their features are those that the unit tests were built with.
cargo build --quiet --workspace --example device_api

work=$(mktemp -d) server=
stop() { [ -z "$server" ] || { kill "$server" 2>/dev/null && wait "$server" || true; }; server=; }
trap 'stop; rm -rf "$work"' EXIT

# as WHO CHECKS: a server for that key, and everything that the fuzzer can think of.
as() {
  local who=$1 checks=$2 address status=0
  mkdir "$work/$who"
  mkfifo "$work/$who/stdin"
  POSTERN_LOG=error target/debug/examples/device_api "$who" "$work/$who" <>"$work/$who/stdin" \
    >"$work/$who/address" 2>"$work/$who/log" &
  server=$!
  for _ in $(seq 200); do
    address=$(cat "$work/$who/address")
    [ -z "$address" ] || break
    kill -0 "$server" || { cat "$work/$who/log"; return 1; }
    sleep 0.05
  done
  echo "== as a $who"
  timeout --kill-after=10 $((seconds + 60)) env -C "$work" "$venv/bin/schemathesis" run "$PWD/docs/control-api.yaml" \
    --url "http://$address" --checks "$checks" --max-time "$seconds" --phases examples,coverage,fuzzing \
    --generation-deterministic --continue-on-failure --no-color || status=$?
  kill -0 "$server" || { cat "$work/$who/log"; status=1; }
  stop
  return $status
}

described=not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance
described+=,response_schema_conformance,negative_data_rejection
as device "$described,unsupported_method"
# A throw-away key does not learn which methods there are: whatever is not for it is forbidden.
as guest "$described"
