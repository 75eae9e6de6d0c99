#!/usr/bin/env bash
# The test bed itself, without Postern (topology: lib.sh). Were it blind or broken, every other test would lie:
# here the laptop is routed straight through, so kubectl and ssh must work, and a capture must see them.
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up

step "without a tunnel nothing of the cluster is reachable"
assert_probe laptop unreachable 1000 tcp $KUBE 6443

step "with plain routes, kubectl and ssh work"
in_ns gateway sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
for a in "${NODES[@]}"; do
  in_ip inet route add "$a" via $GATEWAY4
done
in_ip inet -6 route add $KUBE6 via $GATEWAY6
capture_start seen cluster lan
assert_ok "kubectl version" kubectl_in laptop version
assert_match "kubectl version" 'v1\.32\.4' "$OUT"
assert_ok "kubectl get pods" kubectl_in laptop get pods
assert_match "the table" 'NAME +READY +STATUS +RESTARTS +AGE' "$OUT"
assert_match "the table" 'worker-0 +1/1 +Running' "$OUT"
assert_ok "kubectl get pods -o name" kubectl_in laptop get pods -o name
assert_match "the list" 'pod/worker-0' "$OUT"
assert_ok "kubectl over IPv6" in_ns laptop kubectl --kubeconfig "$W/kube/config6" get pods
for a in "${NODES[@]}"; do
  assert_ok "ssh $a" ssh_in laptop "$a" echo "hello from $a"
  assert_eq "what ssh $a printed" "hello from $a" "$OUT"
done
head -c 300000 /dev/urandom >"$W/file"
assert_ok "scp" scp_in laptop "$W/file" "$KUBE:$W/copy"
assert_ok "the copy to be the file" cmp "$W/file" "$W/copy"

step "logs -f and an ssh session go on until they are ended"
logs_follow logs laptop
ssh_ticking ticks laptop $KUBE
wait_for 5 "the first log line" grep -q 'worker-0 line' "$(log_of logs)"
wait_for 5 "the first tick" grep -q tick "$(log_of ticks)"
assert_alive logs "logs -f"
assert_alive ticks "the ssh session"
stop logs
wait_for 5 "the API to notice that the reader went away" grep -q 'log of worker-0 ended' "$(log_of kube-api)"

step "the capture saw it, and the probes tell the answers apart"
seen=$(capture_stop seen cluster gateway $PRIVATE_CLUSTER)
assert_match "the capture" "$KUBE\\.6443" "$seen"
assert_match "the capture" '65\.109\.212\.122\.22' "$seen"
udp_server $KUBE 5353
assert_probe laptop open 500 tcp $KUBE 22
assert_probe laptop refused 500 tcp $KUBE 81
assert_probe laptop answered 500 udp $KUBE 5353
assert_probe laptop refused 500 udp $KUBE 5354
assert_probe laptop answered 500 ping $KUBE
assert_probe laptop answered 500 ping $KUBE6
in_ns gateway nft add table inet bed
in_ns gateway nft 'add chain inet bed forward { type filter hook forward priority 0; }'
in_ns gateway nft add rule inet bed forward udp dport 5355 reject with icmpx type admin-prohibited
in_ns gateway nft add rule inet bed forward icmp type echo-request reject with icmp type admin-prohibited
in_ns gateway nft add rule inet bed forward tcp dport 82 drop
assert_probe laptop prohibited 500 udp $KUBE 5355
assert_probe laptop prohibited 500 udp $KUBE6 5355
assert_probe laptop prohibited 500 ping $KUBE
assert_probe laptop timeout 4000 tcp $KUBE 82

step "a stream tells when and how it ended"
stream_server $KUBE 7000
follow talk laptop $KUBE 7000 talk
wait_for 5 "the stream" grep -q '^line 3 ' "$(log_of talk)"
stop talk KILL
wait_for 5 "the server to see the end" grep -q 'ended talk' "$(log_of stream-7000)"
test_ok
