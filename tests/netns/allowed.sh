#!/usr/bin/env bash
# What the policy allows works with unmodified tools, and each use has its one record (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins

step "kubectl: version, get pods, logs -f"
assert_ok "kubectl version" kubectl_in laptop version
assert_match "kubectl version" 'v1\.32\.4' "$OUT"
assert_ok "kubectl get pods" kubectl_in laptop get pods
assert_match "the table" 'worker-0 +1/1 +Running' "$OUT"
logs_follow logs laptop
wait_for 5 "the first log line" grep -q 'worker-0 line' "$(log_of logs)"
assert_alive logs "logs -f"

step "ssh to every node, scp and a tar pipe both ways"
for a in "${NODES[@]}"; do
  assert_ok "ssh $a" ssh_in laptop "$a" echo "hello from $a"
  assert_eq "what ssh $a printed" "hello from $a" "$OUT"
done
head -c 3000000 /dev/urandom >"$W/file"
assert_ok "scp to the node" scp_in laptop "$W/file" "$KUBE:$W/there"
assert_ok "scp from the node" scp_in laptop "$KUBE:$W/there" "$W/back"
assert_ok "the file to be the same afterwards" cmp "$W/file" "$W/back"
assert_ok "a tar pipe" in_ns laptop sh -c "tar -C $W -cf - file | ssh -F $W/ssh/config $KUBE 'cat >$W/pipe.tar'"
assert_ok "the archive to be whole" tar -tf "$W/pipe.tar"

step "UDP that a rule allows is answered"
udp_server $KUBE 5353
assert_probe laptop answered 500 udp $KUBE 5353

step "the live flow is listed with its rule, and flows have records at open and at close"
flow=$(admin flows list -o json | jq -c '[.. | objects | select(.destination? == "192.0.2.10:6443")][0]')
assert_eq "the rule of the live flow" "kubectl to the API server" "$(jq -r .rule <<<"$flow")"
assert_eq "its device" ana-laptop "$(jq -r .device <<<"$flow")"
assert_eq "its user" ana@example.com "$(jq -r .user <<<"$flow")"
stop logs
for a in "${NODES[@]}"; do
  wait_record "the ssh to $a, closed" '.verdict == "allow" and .rule == "ssh to the nodes" and .user == "ana@example.com"
    and .device == "ana-laptop" and .dst_address == "'$a'" and .dst_port == 22 and .state == "closed"
    and .close_reason == "fin" and .bytes_out > 0 and .bytes_in > 0'
done
wait_record "kubectl" '.rule == "kubectl to the API server" and .device == "ana-laptop" and .state == "closed"'
opened=$(records '.verdict == "allow" and .state == "open"' | wc -l)
assert_at_least "the records at open" 8 "$opened"
records '.seq != null' | jq -s -e 'group_by([.boot, .worker]) | all(map(.seq) | . == [range(1; length + 1)])' >/dev/null ||
  fail "sequence numbers without a gap, for each worker" "$(records true | jq -c '[.worker, .seq]' | head -50 | tr '\n' ' ')"
[ -z "$(records '.verdict == "deny"')" ] || fail "no denial in a run of allowed things" "$(records '.verdict == "deny"' | head -2)"

stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
