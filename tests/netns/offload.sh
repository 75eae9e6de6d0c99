#!/usr/bin/env bash
# Each half of the offloads switched off, on either end: everything still arrives, and both ends say so (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
HOSTS=(inet gateway cluster laptop)
world_up
services_up
udp_server $KUBE 5353
gateway_up
HALVES=(tun-read tun-write udp-send udp-receive)
head -c 8000000 /dev/urandom >"$W/file"

# What the gateway and the client say of one half: true or false.
gateway_half() { status_of_gateway | jq ".worker.offload[\"$1\"].on"; }
client_half() { client laptop status -o json | jq ".offload[\"$1\"].on"; }

# large NAME IFACE DIRECTION FILTER: more than an MTU at once, as the laptop's kernel sees it.
large() {
  start "$1" laptop tcpdump -i "$2" -Q "$3" -nn -l --immediate-mode "$4"
  wait_for 5 "tcpdump to listen" grep -q 'listening on' "$(log_of "$1")"
}
seen() { if grep -q ' > ' "$(log_of "$1")"; then echo true; else echo false; fi; }

# traffic: the same each time, both ways, compared byte by byte.
traffic() {
  large tun-read postern0 out 'greater 1600'
  large tun-write postern0 in 'greater 1600'
  large udp-send eth0 out 'udp and greater 1700'
  assert_ok "scp to the target" scp_in laptop "$W/file" "$KUBE:$W/there"
  assert_ok "scp from the target" scp_in laptop "$KUBE:$W/there" "$W/back"
  assert_ok "the file to be the same" cmp "$W/file" "$W/back"
  assert_probe laptop same 5000 burst $KUBE 5353 20
  stop tun-read; stop tun-write; stop udp-send
}

# try GATEWAY CLIENT: the switches of the two, and what they do.
try() {
  local half on
  step "gateway $1, client $2"
  stop client-laptop
  stop gateway
  sed -i '/^offload:/d' "$GW/gateway.yaml"
  echo "offload: $(words "$1")" >>"$GW/gateway.yaml"
  gateway_start
  export POSTERN_OFFLOAD=$2
  client_start laptop
  rm -f "$W"/log/{tun-read,tun-write,udp-send}.log
  traffic
  for half in "${HALVES[@]}"; do
    on=$(expected "$1" "$half")
    assert_eq "the gateway's status of $half" "$on" "$(gateway_half "$half")"
    assert_eq "the gateway's metric of $half" "$([ "$on" = true ] && echo 1 || echo 0)" "$(metric postern_offload "\"$half\"")"
    on=$(expected "$2" "$half")
    assert_eq "the client's status of $half" "$on" "$(client_half "$half")"
    [ "$half" = udp-receive ] || assert_eq "more than an MTU at once in $half" "$on" "$(seen "$half")"
  done
  assert_eq "refusals by the kernel" 0 "$(metric postern_offload_fallbacks_total '')"
}
words() { case $1 in *=*) echo "{ ${1/=/: } }" ;; *) echo "$1" ;; esac; }
expected() { if [ "$1" = off ] || [ "$1" = "$2=off" ]; then echo false; else echo true; fi; }

client_up laptop ana-laptop ana@example.com admins
try auto auto
try off auto
try auto off
for half in "${HALVES[@]}"; do try "$half=off" "$half=off"; done

step "people can read it, and nonsense is refused before anything is done"
assert_match "the gateway's status" 'udp-receive: +off \(switched off\)' "$(admin status)"
assert_match "the gateway's status" 'tun-write: +on \(tcp\+udp\)' "$(admin status)"
assert_match "the client's status" 'udp-receive +off \(switched off\)' "$(client laptop status)"
assert_fails "up --offload tcp=off" client laptop up --offload tcp=off "$W/host/laptop/profile"
assert_match "what it said" "'tcp' is no offload; write tun-read" "$OUT"
cp "$GW/gateway.yaml" "$W/gateway.yaml"
sed -i 's/^offload:.*/offload: { tcp: off }/' "$GW/gateway.yaml"
assert_fails "check" admin check
assert_match "what it said" "offload.tcp: 'tcp' is no offload" "$OUT"
cp "$W/gateway.yaml" "$GW/gateway.yaml"
assert_clean_logs
test_ok
