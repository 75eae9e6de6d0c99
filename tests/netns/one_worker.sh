#!/usr/bin/env bash
# A gateway that may not steer packets to workers (no CAP_BPF): it says so and runs with one
# (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
[ "$(cat /proc/sys/kernel/unprivileged_bpf_disabled 2>/dev/null)" != 0 ] || skip "here everybody may load eBPF programs"
world_up
services_up
gateway_up "workers: 2"
assert_eq "workers" 2 "$(metric postern_workers)"
stop gateway

WITHOUT=(setpriv "--bounding-set=-bpf,-sys_admin" "--inh-caps=-bpf,-sys_admin")
without() { in_ns gateway "${WITHOUT[@]}" "$GATEWAY_BIN" "$@" --config "$GW/gateway.yaml"; }

step "a number that cannot be had is an error, which says what to do"
assert_fails "run" without run
assert_match "what it says" 'workers: 2.*CAP_BPF' "$OUT"
assert_fails "check" without check
assert_match "what check says" 'error: host: workers: 2.*CAP_BPF' "$OUT"

step "auto takes one, says why, and carries"
sed -i 's/^workers: 2$/workers: auto/' "$GW/gateway.yaml"
assert_ok "check" without check
[ "$(nproc)" = 1 ] || assert_match "what check says" 'note: host: one worker.*CAP_BPF' "$OUT"
start gateway gateway "${WITHOUT[@]}" "$GATEWAY_BIN" run --config "$GW/gateway.yaml"
wait_for 5 "the gateway to be ready" gateway_ready
assert_eq "workers" 1 "$(metric postern_workers)"
client_up laptop ana-laptop ana@example.com admins
assert_ok "kubectl" kubectl_in laptop get pods

stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
