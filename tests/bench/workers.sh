#!/usr/bin/env bash
# What a second worker is worth: two devices send through one gateway, with `workers: 1` and with `workers: 2`, in turn.
#
#   tests/bench/workers.sh [SIZE:RATE…]   bytes of an inner packet, and packets a second that are offered by both devices
#                                         together (1400:1000000 64:4000000)
#
# The packets are sealed before (postern-load replay) and sent from the other end of the gateway's wire, so that the sender
# costs little and the workers are what bounds; they pass policy, flow table and masquerade and are counted where they
# arrive. Prints thousands of packets a second, medians of five with the least and the most, and the ratio. Needs
# release binaries, root and 5 GB of memory.
source "$(dirname "$0")/../netns/lib.sh" || exit 1
test_begin
need_load
ROUNDS=${ROUNDS:-5}
[ $# -gt 0 ] || set -- 1400:1000000 64:4000000
HOSTS=(inet gateway cluster)
world_up

# Super-packets count once, so the packets in them are found by their bytes: 28 of headers each, then payload.
in_ns cluster nft -f - <<NFT
table ip sink {
  counter got { }
  chain first { type filter hook prerouting priority -300; udp dport 5353 counter name got drop; }
}
NFT
got() { in_ns cluster nft -j list counter ip sink got | jq -r '[.nftables[].counter? | values][0] | "\(.packets) \(.bytes)"'; }

gateway_up "workers: 1"
enrol_many 2 7 admins
inner=$(jq -rs 'map(.addresses[0]) | join(",")' "$W/enrolled-7")

with_workers() {
  stop gateway
  sed -i "s/^workers: .*/workers: $1/" "$GW/gateway.yaml"
  gateway_start
}

# once SIZE RATE: delivered, in thousands of packets a second, over 0.8 s in the middle of 1.3 s of load
once() {
  local size=$1 rate=$2 payload=$(($1 - 28)) bytes0 skbs0 at0 bytes1 skbs1 at1
  local first; first=$(got)
  start blast inet "$LOAD_BIN" replay --to $GATEWAY4:51820 --gateway-key "$(gateway_key)" --seed 7 --inner "$inner" \
    --target $KUBE:5353 --size "$size" --rate "$rate" --packets $((rate * 13 / 20)) -o json
  began() { [ "$(got)" != "$first" ]; }
  wait_for 20 "packets at the target" began
  sleep 0.2   # the length of the measurement, not a wait for anything
  at0=$(now_ns); read -r skbs0 bytes0 < <(got)
  sleep 0.8
  at1=$(now_ns); read -r skbs1 bytes1 < <(got)
  blast_over() { gone "$(pid_of blast)"; }
  wait_for 20 "the load to end" blast_over
  awk -v b=$((bytes1 - bytes0)) -v s=$((skbs1 - skbs0)) -v p=$payload -v t=$((at1 - at0)) \
    'BEGIN { printf "%.0f\n", (b - 28 * s) / p / t * 1e6 }'
}
now_ns() { date +%s%N; }   # one second of measurement: no clock step is expected in it

middle() { sort -n | awk '{ v[NR] = $1 } END { printf "%d [%d-%d]", v[int((NR + 1) / 2)], v[1], v[NR] }'; }

for load in "$@"; do
  size=${load%:*} rate=${load#*:}
  one=() two=()
  for ((round = 0; round < ROUNDS; round++)); do
    with_workers 1; one+=("$(once $size $rate)")
    with_workers 2; two+=("$(once $size $rate)")
  done
  a=$(printf '%s\n' "${one[@]}" | middle) b=$(printf '%s\n' "${two[@]}" | middle)
  awk -v size=$size -v a="$a" -v b="$b" 'BEGIN { printf "%d bytes: workers 1: %s kpps; workers 2: %s kpps; ratio %.2f\n", size, a, b, b / a }'
done
test_ok
