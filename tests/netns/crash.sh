#!/usr/bin/env bash
# kill -9 in the middle of 10 000 flows a second: the chain holds, every flow has one opening and one closing record, and
# what was made and not written is stated to the record (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
need_load
world_up
gateway_up "limits: { flows: 400000, flows_per_device: 400000 }"
{ policy | sed 's|5353/udp|20000-40000/udp|'; } | policy_put
admin policy reload >/dev/null
client_up laptop ana-laptop ana@example.com admins

# What reaches the target, by its own count; it answers nothing, so that no flow ends by itself.
in_ns cluster nft -f - <<NFT
table inet heard {
  counter opens { }
  chain input { type filter hook input priority 0; udp dport 20000-40000 counter name opens drop; }
}
NFT
reached() { in_ns cluster nft -j list counter inet heard opens | jq '[.nftables[].counter? | values][0].packets'; }
reached_more_than() { [ "$(reached)" -gt "$1" ]; }

# The gateway calls its devices where it last saw them; it stores that every few seconds.
stored() { [ "$(admin device show ana-laptop -o json | jq -r .last_endpoint)" != null ]; }
wait_for 15 "the gateway to store where its device is" stored

step "10 000 flows a second; kill -9 in the middle, and a new start"
start opens laptop "$LOAD_BIN" opens --to $KUBE:20000 --rate 10000 --seconds 8 -o json
wait_for 15 "10 000 flows at the target" reached_more_than 10000
stop gateway KILL || true
before=$(reached)
gateway_start
wait_for 15 "flows at the target again" reached_more_than $((before + 3000))
stop gateway KILL || true
gateway_start
opens_over() { gone "$(pid_of opens)"; }
wait_for 15 "the load to end" opens_over
assert_eq "datagrams that the laptop could not send" 0 "$(jq .refused "$(log_of opens)")"

step "two runs ended without a word; the next ones say what they left"
wait_log_event "what became of the first run" '.event == "crashed-run" and .crashed_boot == "1"' 20
wait_log_event "what became of the second run" '.event == "crashed-run" and .crashed_boot == "2"' 20
made_is_written_and_lost='.event == "crashed-run" and (.workers | length > 0) and ([.workers[] | .made == .written + .lost] | all)'
assert_eq "runs whose records are all accounted for" 2 "$(log_events "$made_is_written_and_lost" | wc -l)"

step "a run that ends in order leaves nothing open"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_ok "the chain" admin flows verify
cat "$GW"/data/flows/*.jsonl | jq -r 'select(.flow) | "\(.boot)/\(.flow) \(.state)"' >"$W/stories"
assert_at_least "flows in the log" 15000 "$(grep -c ' open$' "$W/stories")"
assert_eq "flows without exactly one opening and one closing record" "" "$(sort "$W/stories" | uniq -c | awk '
  { seen[$2] = seen[$2] $3 $1 } END { for (flow in seen) if (seen[flow] != "closed1open1") print flow, seen[flow] }' | head -3)"

step "nothing passed unrecorded, but for what is stated as lost"
opened=$(grep -c ' open$' "$W/stories")
lost=$(log_events '.event == "crashed-run"' | jq -s '[.[].workers[].lost] | add')
echo "      $(reached) flows at the target, $opened opening records, $lost records stated as lost"
assert_at_most "flows at the target" $((opened + lost)) "$(reached)"
assert_at_most "records lost" 20000 "$lost"
test_ok
