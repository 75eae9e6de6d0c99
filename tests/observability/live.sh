#!/usr/bin/env bash
# The queries of dashboards and alerts against a real Prometheus, a real gateway and its records (topology: ../netns/lib.sh).
HOSTS=(inet gateway cluster laptop stock)
source "$(dirname "$0")/../netns/lib.sh" || exit 1
HERE=$REPO/tests/observability DOCS=$REPO/docs/observability PROMETHEUS=http://127.0.0.1:9090
test_begin
world_up
services_up
stream_server $KUBE 7000

step "a gateway, devices, and Prometheus with the configuration of the documents"
dns_answers $KUBE
dns_up
gateway_up "$(printf 'flow_log: { file: %s }\nresolver: { servers: [%s] }' "$W/host/gateway/agent.jsonl" $PRIVATE_CLUSTER)"
named() { policy | sed 's/^targets:/&\n  by-name: { names: [api.corp.test], ports: [443\/tcp] }/'; }
named | policy_put
assert_ok "policy reload" admin policy reload
mkdir "$W/prometheus"
sed 's/\(_interval:\) 15s/\1 500ms/' "$DOCS/prometheus.yml" >"$W/prometheus/prometheus.yml"
cp "$DOCS/alerts.yml" "$W/prometheus/"
start prometheus gateway prometheus --config.file="$W/prometheus/prometheus.yml" --storage.tsdb.path="$W/prometheus/data" \
  --web.listen-address=127.0.0.1:9090
client_up laptop ana-laptop ana@example.com admins
stock_client stock eve-phone eve@example.com visitors 198.18.4.0/23
scraped() { in_ns gateway curl -sfG "$PROMETHEUS/api/v1/query" --data-urlencode 'query=up{job="postern"} == 1' | grep -q '"value"'; }
wait_for 20 "Prometheus to scrape the gateway" scraped

step "what a day brings: work, refusals, a scan, a policy that cuts"
work() { in_ns laptop kubectl --kubeconfig "$W/kube/config" get pods >/dev/null && ssh_in laptop $KUBE true; }
assert_ok "kubectl and ssh" work
follow talk laptop $KUBE 7000 talk
wait_for 5 "the stream" grep -q ready "$(log_of talk)"
assert_probe laptop refused 1000 tcp $KUBE 8080
in_ns stock "$PYTHON" "$NETNS_DIR/probe.py" scan 198.18.4.0/23 22 128 >"$W/log/scan.log"
named | grep -v 'name: the lab' | policy_put
wait_for 5 "the stream to be cut" gone "$(pid_of talk)"
named | policy_put
wait_record "the cut" '.close_reason == "policy"'
wait_record "the scan" '.scan == true' 15
assert_ok "kubectl and ssh, again" work
assert_probe laptop refused 1000 tcp $KUBE 8080

step "every PromQL has data, and no alert fires"
in_ns gateway curl -sf "$METRICS/metrics" >"$W/metrics" || fail "/metrics to answer" "nothing"
in_ns gateway "$PYTHON" "$HERE/live.py" "$PROMETHEUS" "$W/metrics" >"$W/answer" || fail "the queries to hold" "$(cat "$W/answer")"
sed 's/^/      /' "$W/answer"

step "the records are what their schema says, from which the LogQL takes its names"
for python in python3 /usr/bin/python3; do "$python" -c 'import jsonschema' 2>/dev/null && break; done
assert_ok "the schema to describe the records" "$python" "$HERE/records.py" "$GW"/data/flows/*.jsonl
assert_clean_logs
test_ok
