#!/usr/bin/env bash
# Reading records without Grafana: list, tail, top, export and verify, beside a running gateway and on a copy (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
client_up laptop2 bob-laptop bob@example.com visitors
assert_ok "ssh" ssh_in laptop $KUBE true
assert_probe laptop2 refused 1000 tcp $KUBE 22
closed() { record_exists '.state == "closed" and .dst_port == 22'; }
wait_for 5 "the closing record" closed

step "tail shows what is there and what comes, each line once"
start tail gateway "$GATEWAY_BIN" flows tail --since 1h -o json --config "$GW/gateway.yaml"
backlog() { grep -q bob-laptop "$(log_of tail)"; }
wait_for 5 "the records of before" backlog
assert_ok "ssh again" ssh_in laptop $KUBE true
assert_ok "kubectl" kubectl_in laptop get pods
here() { diff <(jq -c .n "$(log_of tail)") <(cat "$GW"/data/flows/*.jsonl | jq -c .n) >"$W/difference"; }
wait_for 5 "tail to have shown every record of the log, in order and once" here
stop tail || fail "flows tail to end at SIGTERM" "it had to be killed"

step "list: one row for each attempt, by whatever is asked"
rows() { admin flows list -o json "$@" | jq -s length; }
ended() { [ "$(rows --all --to $KUBE:22/tcp --user ana@example.com --state closed)" = 2 ]; }
wait_for 5 "both ssh sessions to have ended" ended
assert_eq "what bob was refused" 1 "$(rows --verdict deny --device bob-laptop --since 1h)"
assert_eq "rows of a rule that nobody used" 0 "$(rows --all --rule 'the lab')"
assert_eq "rows from before the beginning" 0 "$(rows --until 2001-01-01)"
assert_match "as a table" 'bob@example.com.*default' "$(admin flows list --verdict deny)"
ssh_ticking session laptop $KUBE
wait_for 5 "the session" grep -q tick "$(log_of session)"
live() { [ "$(admin flows list --user ana@example.com --to $KUBE:22 -o json | jq length)" = 1 ]; }
wait_for 5 "one live flow, by the running gateway" live
assert_eq "the same by its records" live "$(admin flows list --state open --to $KUBE:22 | awk 'NR == 2 { print $2 }')"
stop session || true

step "top: who and what, by bytes and by refusals"
assert_match "who moved most" '^ana@example.com' "$(admin flows top --by bytes --of user | sed -n 2p)"
assert_match "who was refused most" '^bob@example.com' "$(admin flows top --by denials --of user | sed -n 2p)"

step "an auditor's copy proves itself, and shows what was changed"
head=$(admin flows verify | sed -n 's/^head: *//p')
assert_match "a head to write down" '^[0-9]+:[0-9a-f]{64}$' "$head"
assert_ok "export" admin flows export --since 1h --until 2099-01-01 --out "$W/bundle"
cp -r "$GW/data/flows" "$W/copy"
assert_ok "the bundle" gw flows verify "$W/bundle"
assert_ok "the copy, with the head that was written down" gw flows verify "$W/copy" --head "$head"
assert_eq "rows of the copy, without a gateway.yaml" "$(rows --all --device bob-laptop)" "$(gw flows list --dir "$W/copy" --all --device bob-laptop -o json | jq -s length)"
sed -i 's/bob-laptop/eve-laptop/' "$W"/copy/*.jsonl "$W"/bundle/records.jsonl
assert_fails "the copy that was changed" gw flows verify "$W/copy"
assert_match "where it was changed" '\.jsonl.*line [0-9]+' "$OUT"
assert_fails "the bundle that was changed" gw flows verify "$W/bundle"
sed -i '$d' "$W"/copy/*.jsonl
sed -i 's/eve-laptop/bob-laptop/' "$W"/copy/*.jsonl
assert_fails "the copy without its last line, which only the head shows" gw flows verify "$W/copy" --head "$(admin flows verify | sed -n 's/^head: *//p')"
assert_clean_logs
test_ok
