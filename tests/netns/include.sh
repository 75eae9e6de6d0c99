#!/usr/bin/env bash
# Include lists that must not be: refused before anything changes, and in words (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
device_add ana-laptop ana@example.com admins --out "$W/profile" >"$W/log/enrol.log" 2>&1
ip_state() { in_ip laptop -4 route show table all; in_ip laptop -6 route show table all; in_ip laptop rule; in_ip laptop -br addr; }
before=$(ip_state)

# with_include ENTRY…: the profile with another include list
with_include() {
  sed '/^include:/,/^[a-z]/{/^include:/d;/^ *- /d}' "$W/profile" >"$W/host/laptop/profile"
  printf 'include: [%s]\n' "$(IFS=,; echo "$*")" >>"$W/host/laptop/profile"
  chmod 600 "$W/host/laptop/profile"
}
# refused_with PATTERN ENTRY…: exit code 2, the reason, and a laptop as before
refused_with() {
  local pattern=$1 status=0 out; shift
  with_include "$@"
  out=$(in_ns laptop timeout 10 "$CLIENT_BIN" up "$W/host/laptop/profile" 2>&1) || status=$?
  assert_eq "the exit code for include $*" 2 "$status"
  assert_match "what it says about include $*" "$pattern" "$out"
  assert_eq "routes, rules and addresses after include $*" "$before" "$(ip_state)"
}

step "a default route, whole or in halves"
refused_with 'default route' 0.0.0.0/0
refused_with 'default route' '"::/0"'
refused_with 'loopback' 0.0.0.0/1 128.0.0.0/1

step "the gateway's own endpoint"
refused_with 'endpoint' $GATEWAY4/32
refused_with 'endpoint' 203.0.113.0/24

step "the network that the laptop is in"
refused_with '198\.51\.100' 198.51.100.0/24
refused_with '198\.51\.100' 198.51.100.64/26

step "a profile that others can read, or that is none"
with_include $KUBE/32
chmod 644 "$W/host/laptop/profile"
assert_fails "a profile that everybody can read" in_ns laptop timeout 10 "$CLIENT_BIN" up "$W/host/laptop/profile"
assert_match "what it says" '0?600' "$OUT"
echo 'version: 7' >"$W/host/laptop/profile"
chmod 600 "$W/host/laptop/profile"
assert_fails "a profile that is none" in_ns laptop timeout 10 "$CLIENT_BIN" up "$W/host/laptop/profile"
assert_eq "routes, rules and addresses afterwards" "$before" "$(ip_state)"

step "and a good one comes up"
with_include $KUBE/32
client_start laptop
assert_probe laptop open 2000 tcp $KUBE 22
assert_clean_logs
test_ok
