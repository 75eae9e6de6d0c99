#!/usr/bin/env bash
# A log that cannot be written: nothing new is allowed, and the gateway says so everywhere (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up "flow_log: { file: /dev/full }"
client_up laptop ana-laptop ana@example.com admins

step "the first record fails, and readiness with it"
ssh_in laptop $KUBE true || true
unready() { [ "$(http_status readyz)" = 503 ]; }
wait_for 5 "readyz to say 503" unready
assert_match "why, in status" 'cannot be written' "$(status_of_gateway | jq -r .state)"
assert_match "why, in the log" 'No space left' "$(cat "$(log_of gateway)")"

step "what is new is refused at once, and not one packet of it reaches the target"
capture_start target cluster lan
assert_probe laptop refused 1000 tcp $KUBE 22
assert_probe laptop refused 1000 tcp $KUBE 6443
assert_eq "packets at the target" "" "$(capture_stop target cluster gateway "$PRIVATE_CLUSTER" | grep ' S ' || true)"
drops_above log-unavailable 1 || fail "refusals as log-unavailable" "$(drops log-unavailable)"

step "the program itself lives, and ends as it should"
assert_eq "healthz" 200 "$(http_status healthz)"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_match "the loss, in the log" 'lost' "$(cat "$(log_of gateway)")"
test_ok
