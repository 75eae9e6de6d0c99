#!/usr/bin/env bash
# A log that cannot be written: nothing new is allowed, the gateway says so everywhere, and when there is room again not
# one record is missing (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
SPOOL=$W/spool
mkdir "$SPOOL"
mount -t tmpfs -o size=1m,mode=700 postern-test "$SPOOL" || skip "no file system can be mounted here"
gateway_up "flow_log: { dir: $SPOOL/flows, segment_size: 128KiB }"
client_up laptop ana-laptop ana@example.com admins
assert_ok "ssh" ssh_in laptop $KUBE true

step "the disk is full: readiness fails"
dd if=/dev/zero of="$SPOOL/filler" bs=4k 2>/dev/null || true
attempt() { probe laptop tcp $KUBE 22 >/dev/null || true; [ "$(http_status readyz)" = 503 ]; }
wait_for 20 "readyz to say 503" attempt
assert_match "why, in status" 'cannot be written' "$(status_of_gateway | jq -r .state)"
assert_match "why, in the log" 'No space left' "$(cat "$(log_of gateway)")"
assert_eq "the log is writable, by its metric" 0 "$(metric postern_log_writable)"

step "what is new is refused at once, and not one packet of it reaches the target"
capture_start target cluster lan
assert_probe laptop refused 1000 tcp $KUBE 22
assert_probe laptop refused 1000 tcp $KUBE 6443
assert_eq "packets at the target" "" "$(capture_stop target cluster gateway "$PRIVATE_CLUSTER" | grep ' S ' || true)"
drops_above log-unavailable 1 || fail "refusals as log-unavailable" "$(drops log-unavailable)"
assert_eq "healthz" 200 "$(http_status healthz)"

step "there is room again: what waited is written, and nothing was lost"
rm "$SPOOL/filler"
wait_for 10 "the gateway to be ready" gateway_ready
assert_ok "ssh" ssh_in laptop $KUBE true
said() { grep -q '"event":"unwritable"' "$SPOOL"/flows/*.jsonl; }
wait_for 5 "the log to say from when to when" said
settled() { gateway_says '.flow_log | .lag == 0 and .lost == 0 and .flows_seen == .flows_written + .flows_waiting.window'; }
wait_for 5 "every record to be written" settled
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_ok "the chain" admin flows verify

step "a folder that can only be read is found at the start, in words"
mount -o remount,ro "$SPOOL"
assert_fails "a gateway on a read-only disk" timeout 10 ip netns exec "$WORLD-gateway" "$GATEWAY_BIN" run --config "$GW/gateway.yaml"
assert_match "what it says" "$SPOOL/flows.*mount it writable" "$OUT"
test_ok
