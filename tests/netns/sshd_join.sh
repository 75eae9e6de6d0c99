#!/usr/bin/env bash
# A target's own log knows the gateway's address and a port. The record with that egress says who it was: by sshd's real
# log, with two laptops at once that look alike to it (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins
client_up laptop2 bob-laptop bob@example.com admins

# accepted: address and port of every login that sshd accepted
accepted() { sed -nE 's/^Accepted publickey for root from ([0-9a-f.:]+) port ([0-9]+) .*/\1 \2/p' "$(log_of sshd)"; }
# who ADDRESS PORT: who reached sshd from there until now, by the query that docs/joining.md gives
who() {
  sed -n '/^```jq$/,/^```$/p' "$REPO/docs/joining.md" | sed '/^```/d' >"$W/joining.jq"
  admin flows list --to nodes --since 1h -o json |
    jq -c -f "$W/joining.jq" --arg address "$1" --argjson port "$2" --arg at "$(date -u +%FT%T.999Z)"
}
# both_of ADDRESS PORT: the opening and the closing record of that flow
both_of() { records ".egress_address == \"$1\" and .egress_port == $2 and .dst_port == 22"; }
closed_logins() { [ "$(records '.state == "closed" and .dst_port == 22' | wc -l)" -ge "$1" ]; }

step "two laptops log in at once, several times each, and say who they are"
for n in 1 2 3 4; do
  for each in laptop:ana laptop2:bob; do
    start "ssh-${each#*:}-$n" "${each%:*}" ssh -F "$W/ssh/config" $KUBE "echo ${each#*:} from \$SSH_CONNECTION"
  done
done
for each in laptop:ana laptop2:bob; do
  start "ssh-${each#*:}-6" "${each%:*}" ssh -F "$W/ssh/config" $KUBE6 "echo ${each#*:} from \$SSH_CONNECTION"
done
wait_for 20 "ten closed logins" closed_logins 10

step "each line of sshd's log has one record, and it names user and device"
assert_eq "logins that sshd accepted" 10 "$(accepted | wc -l)"
while read -r address port; do
  found=$(who "$address" "$port")
  assert_eq "flows from $address port $port" 1 "$(jq -s length <<<"$found")"
  # What the login itself printed tells whose it was.
  said=$(grep -h "from $address $port " "$W"/log/ssh-*.log | cut -d' ' -f1)
  assert_eq "user and device of $address port $port" "$said@example.com $said-laptop" "$(jq -r '"\(.user) \(.device)"' <<<"$found")"
  assert_eq "the records of that flow" '[1,["open","closed"]]' \
    "$(both_of "$address" "$port" | jq -sc '[(map([.worker, .flow]) | unique | length), map(.state)]')"
  echo "      sshd: from $address port $port; Postern: $(jq -r '"\(.user) on \(.device), rule \(.rule)"' <<<"$found")"
done < <(accepted)
assert_eq "logins over IPv6" 2 "$(accepted | grep -c :)"

step "the same port of two laptops leaves as two, and each record has the one that the target sees"
answered() { [ -s "$(log_of "$1")" ]; }
for target in $KUBE $KUBE6; do
  start "tell-$target" cluster "$PYTHON" "$NETNS_DIR/source.py" tell "$target" 7000 5353
  wait_listening "tell-$target"
  for service in "tcp 7000" "udp 5353"; do
    read -r protocol port <<<"$service"
    seen=()
    for host in laptop laptop2; do
      name=hold-$host-$protocol-$target
      start "$name" $host "$PYTHON" "$NETNS_DIR/source.py" hold "$protocol" "$target" "$port" 45000
      wait_for 5 "the target to tell $host its $protocol source" answered "$name"
      seen+=("$(cat "$(log_of "$name")")")
      [ $host = laptop ] && device=ana-laptop || device=bob-laptop
      same=".device == \"$device\" and .src_port == 45000 and .dst_address == \"$target\" and .dst_port == $port"
      wait_record "$protocol from $host to $target" "$same"
      assert_eq "the egress of $protocol from $host" "${seen[-1]}" \
        "$(records "$same and .state == \"open\"" | jq -r '"\(.egress_address) \(.egress_port)"')"
    done
    [ "${seen[0]}" != "${seen[1]}" ] || fail "two sources for two laptops" "${seen[0]} for both"
  done
done

step "a refused attempt has no egress: it never left"
assert_probe laptop refused 1000 tcp $KUBE 8080
wait_record "the refusal" '.state == "denied" and .dst_port == 8080'
assert_eq "refusals with an egress" "" "$(records '.state == "denied" and has("egress_port")')"
assert_eq "records without an egress" 0 "$(metric postern_egress_total result=\"missing\")"
assert_at_least "records with one" 20 "$(metric postern_egress_total result=\"found\")"
assert_clean_logs
test_ok
