#!/usr/bin/env bash
# Who holds an open invitation asks without end, and so do strangers: the others go on, answers say too-many, and neither the
# gateway's memory nor its log grows with it (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
need_load
world_up
stream_server $KUBE 7000
gateway_up "workers: 2"
client_up laptop ana-laptop ana@example.com admins
STRANGERS=198.19.0.0/22
load_from outside $STRANGERS
DOOR='http://[fd70:6f73:7465:726e::1]:9477/v1/join'
USES=2 LINES=5   # devices that the invitation lets in; refused tries that have a line of their own
open=$(invite --open --require login --uses $USES --keys 3)
used=$(invite --user bob@example.com --group admins)
assert_ok "the first to join" join laptop2 "$used" --name bob-laptop
for place in 0 1; do
  host=$([ $place = 0 ] && echo stock || echo server)
  "$PYTHON" "$NETNS_DIR/guest.py" wg "$open" $place >"$W/guest-$place.conf"
  stock_up $host "$W/guest-$place.conf"
  assert_probe $host open 5000 tcp fd70:6f73:7465:726e::1 9477
done

# joins HOST TRIES: each with a key of its own, twelve at once; in the log the status of every answer, 000 for none
joins() {
  start "joins-$1" "$1" bash -c 'seq '"$2"' | xargs -P 12 -I{} sh -c '\''curl -s -g -m 5 -o /dev/null -w "%{http_code}\n" \
    -H "content-type: application/json" -d "{\"public_key\":\"$(openssl rand -base64 32)\"}" '"'$DOOR'"' || true'\'''
}
answers() { grep -cx "$1" "$W"/log/joins-{stock,server}.log -h | awk '{ sum += $1 } END { print sum }'; }
all_over() { local n; for n in "$@"; do gone "$(pid_of "$n")" || return 1; done; }
# The longest silence of a stream, milliseconds
longest_gap() { awk '$1 == "line" { if (last && $3 - last > gap) gap = $3 - last; last = $3 } END { print gap + 0 }' "$(log_of "$1")"; }

step "joins by the throw-away keys, by used and forged strings, and handshakes of strangers, all at once"
stream laptop talk
memory=$(rss_of_gateway)
forged=$("$PYTHON" "$NETNS_DIR/guest.py" forge "$open")
start strangers outside "$LOAD_BIN" flood --to $GATEWAY4:51820 --gateway-key "$(gateway_key)" --kind strangers --rate 3000 --seconds 8 --from $STRANGERS -o json
joins stock 250
joins server 250
waiting=()
for n in 1 2 3; do
  start "forged-$n" laptop2 timeout 8 "$CLIENT_BIN" join "$forged" --profile "$W/host/laptop2/forged-$n"
  start "used-$n" laptop2 timeout 8 "$CLIENT_BIN" join "$used" --profile "$W/host/laptop2/used-$n"
  waiting+=("forged-$n" "used-$n")
done
wait_for 25 "the flood to end" all_over joins-stock joins-server strangers "${waiting[@]}"

step "another device saw nothing of it, and memory did not grow"
assert_alive talk "the stream"
gap=$(longest_gap talk)
grown=$(($(rss_of_gateway) - memory))
echo "      answers: 200 $(answers 200), 409 $(answers 409), 429 $(answers 429), none $(answers 000); the longest gap $gap ms; $grown KiB more"
assert_at_most "ms that the stream was silent" 1000 "$gap"
# Two keys with 8 connections of 80 KiB, and what strangers may cost (flood.sh).
assert_at_most "KiB that the gateway grew by" 8192 $grown

step "few were let in, most were told that they are too many"
assert_eq "devices that the invitation let in" $USES "$(answers 200)"
assert_eq "devices" $((USES + 2)) "$(admin device list -o json | jq length)"
assert_at_least "tries that were too many" 50 "$(answers 429)"
assert_eq "profiles of forged and used strings" 0 "$(find "$W/host/laptop2" -name 'forged*' -o -name 'used*' | wc -l)"

step "a few lines in the log, and a number for the rest"
refused=$(audits '.action == "join" and .outcome == "refused" and .object == "'"$(admin invite list --all -o json | jq -r '[.[] | select(.kind == "open")][0].id')"'"' | wc -l)
assert_eq "lines of refused tries" $LINES "$refused"
counted=$(($(metric postern_control_requests_total 'path="/v1/join".*code="(invitation-used|too-many)"') + $(metric postern_control_dropped_total 'reason="busy"')))
assert_at_least "refused tries that are counted" $(($(answers 409) + $(answers 429))) "$counted"
assert_ok "flows verify" admin flows verify

step "when it is over, somebody else joins"
stop talk; rm "$W/host/laptop2/profile"
assert_ok "a join" join laptop2 "$(invite --user carl@example.com --group admins)" --name carl-laptop
stop client-laptop
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
