#!/usr/bin/env bash
# The metrics are well-formed, move with what happens, and name no user and no address (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
assert_ok "kubectl get pods" kubectl_in laptop get pods
assert_ok "ssh" ssh_in laptop $KUBE true
for i in 1 2 3; do assert_probe laptop refused 1000 tcp $KUBE 8080; done

step "promtool finds nothing to complain about"
in_ns gateway curl -sf "$METRICS/metrics" >"$W/metrics" || fail "/metrics to answer" "nothing"
assert_ok "promtool check metrics" promtool check metrics <"$W/metrics"
assert_eq "what promtool said" "" "$OUT"

step "the numbers are those of what happened"
assert_at_least "allowed flows by the ssh rule" 1 "$(metric postern_flows_total 'ssh to the nodes')"
assert_at_least "denied flows" 3 "$(metric postern_flows_total 'verdict="deny"')"
assert_at_least "handshakes" 1 "$(metric postern_handshakes_total 'outcome="established"')"
assert_at_least "bytes out" 1000 "$(metric postern_bytes_total 'direction="to-target"')"
assert_at_least "bytes in" 1000 "$(metric postern_bytes_total 'direction="from-target"')"
assert_at_least "packets" 10 "$(metric postern_packets_total '')"
assert_eq "devices connected" 1 "$(metric postern_devices_connected '')"
assert_at_least "policy generation" 1 "$(metric postern_policy_generation '')"
assert_at_least "verdict times" 3 "$(metric postern_verdict_seconds_count '')"
assert_eq "records lost" 0 "$(metric postern_records_lost_total '')"

step "no label holds an address, a user, a device or a key"
assert_no_match "the metrics" 'ana@example|ana-laptop|192\.0\.2\.|198\.51\.100\.|100\.96\.|2001:db8' "$(grep -v '^#' "$W/metrics")"

step "health, and from where it is seen"
assert_eq "healthz" 200 "$(http_status healthz)"
assert_eq "readyz" 200 "$(http_status readyz)"
assert_probe outside refused 1000 tcp $GATEWAY4 9478
assert_probe cluster refused 1000 tcp $PRIVATE_GATEWAY 9478
assert_clean_logs
test_ok
