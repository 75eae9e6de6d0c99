#!/usr/bin/env bash
# Logins by a real OpenID provider: nothing before, what the groups claim gives after; renewal drops no flow, a lost group
# and the end of the login do; nobody else logs in on the device (topology: lib.sh).
HOSTS=(inet gateway cluster laptop idp)
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
idp_up
services_up
stream_server $KUBE 7000
SECRET='a secret: 100% & more'
(umask 077; echo "$SECRET" >"$W/idp/secret")
gateway_up "session: { max_age: 12h }
login:
  providers:
    - name: corp
      issuer: $IDP
      client_id: postern
      client_secret_file: $W/idp/secret
      groups_claim: groups
      scopes: [openid, email, profile, groups]
      ca_file: $W/idp/ca.pem"
policy | sed '/name: the lab/s/\[admins\]/[lab]/' | policy_put
assert_ok "policy reload" admin policy reload
idp_groups ana '["admins", "lab", "cooks"]'
idp_groups eve '["admins", "lab"]'

step "an open invitation: join says that a login is missing, and nothing is reachable"
assert_ok "join" join laptop "$(invite --open --require login)" --name ana-laptop
assert_match "what to do next" 'postern login' "$OUT"
assert_eq "the user of the device" null "$(admin device show ana-laptop -o json | jq -r .user)"
capture_start target cluster lan
client_start laptop
for port in 22 6443 7000; do
  assert_match "port $port" '^(refused|prohibited)' "$(probe laptop tcp $KUBE $port)"
done
assert_cluster_silent target "from a device that needs a login"
wait_record "the refusal" '.verdict == "deny" and .device == "ana-laptop" and .deny_reason == "login-required"'
assert_match "login --status" 'needs a login' "$(client laptop login --status)"
assert_match "why" 'login' "$(client laptop why $KUBE:22 2>&1 || true)"

step "a browser logs in; the groups of the claim open what policy says"
said=$(log_in first laptop ana)
assert_match "postern login" 'ana@example.com.*active.*exit 0' "$said"
assert_match "the browser at the end" 'The browser is done.* http://127\.0\.0\.1:[0-9]+/callback' "$(cat "$(log_of first-browser)")"
wait_for 5 "the lab" is_open laptop
assert_ok "kubectl" kubectl_in laptop get pods
assert_ok "ssh" ssh_in laptop $KUBE true
assert_match "port 8080" '^(refused|prohibited)' "$(probe laptop tcp $KUBE 8080)"
assert_eq "the user of the device" ana@example.com "$(admin device show ana-laptop -o json | jq -r .user)"
assert_audit "the login" '.action == "login-start" and .outcome == "done" and .device == "ana-laptop" and .after.flow == "browser"
  and (.from | startswith("198.51.100.11:"))'
assert_audit "the login" '.action == "login" and .outcome == "done" and .object == "ana-laptop" and .after.user == "ana@example.com"
  and .after.method == "oidc" and .after.issuer == "'$IDP'" and (.after.groups | index("lab")) and .before.user == null'
id=$(admin session list -o json | jq -r '.[0].id')
wait_record "ssh, as ana" '.verdict == "allow" and .dst_port == 22 and .user == "ana@example.com" and .issuer == "'$IDP'"
  and .session == "'"$id"'" and .session_age_s != null'

step "a second login: no flow notices"
stream laptop talk
ssh_ticking ticks laptop $KUBE
logs_follow logs laptop
wait_for 5 "the ssh session" grep -q tick "$(log_of ticks)"
wait_for 5 "kubectl logs" more_lines_than logs 2
assert_match "postern login" 'active.*exit 0' "$(log_in second laptop ana)"
[ "$(admin session list -o json | jq -r '.[0].id')" != "$id" ] || fail "another session" "$id"
all_live() {
  for each in talk ticks logs; do assert_alive "$each" "$each over $1"; done
}
all_live "a renewal"

step "somebody else on this device: refused, recorded, and ana's login stands"
said=$(log_in eves laptop eve)
assert_match "postern login" "another user.*exit 1" "$said"
assert_audit "the refusal" '.action == "login" and .outcome == "refused" and .object == "ana-laptop" and .after.user == "eve@example.com"
  and (.reason | contains("another user"))'
assert_eq "the user of the device" ana@example.com "$(admin device show ana-laptop -o json | jq -r .user)"
all_live "the refusal"

step "a device code, typed on another computer; a group that it no longer brings cuts what needs it, and nothing else"
idp_groups ana '["admins"]'
login_begin code laptop --device-code
login_says code "$IDP/"
at=$(grep -oE "$IDP/[^ ]*" "$(log_of code)" | head -1)
user_code=$(grep -A1 -F "$at" "$(log_of code)" | tail -1 | tr -d ' ')
assert_match "the browser at the end" 'Success' "$(browse idp "$at" ana "$user_code")"
said=$(login_end code)
assert_match "postern login --device-code" 'active.*exit 0' "$said"
wait_for 2 "the stream to end" gone "$(pid_of talk)"
read -r _ _ how cut_at < <(grep '^ended' "$(log_of talk)")
assert_eq "how it ended" reset "$how"
wait_record "the cut" '.close_reason == "policy" and .dst_port == 7000 and .device == "ana-laptop"'
done_at=$(audits '.action == "login" and .outcome == "done" and .after.flows_cut == 1' | tail -1 | jq -r .time)
[ -n "$done_at" ] || fail "an audit line that counts the flow" "$(audits '.action == "login"' | tail -1)"
late=$((cut_at - $(now_ms) + $(date +%s%3N) - $(date -d "$done_at" +%s%3N)))
assert_at_most "ms from the login to the cut" 1000 "$late"
echo "      cut $late ms after the login's audit line"
assert_alive ticks "ssh, whose group is still there"
assert_alive logs "kubectl, whose group is still there"
assert_match "a new stream" '^(refused|prohibited)' "$(probe laptop tcp $KUBE 7000)"
assert_audit "the device code" '.action == "login-start" and .outcome == "done" and .after.flow == "device-code"'

gateway_changed() { [ "$(grep -c 'gateway.yaml changed' "$(log_of gateway)")" -ge "$1" ]; }
status_says() { client laptop login --status | grep -qE "$1"; }

step "max_age: the login ends by itself, says so, and another one works"
idp_groups ana '["admins", "lab"]'
sed -i 's/max_age: 12h/max_age: 4s/' "$GW/gateway.yaml"
wait_for 5 "the shorter age to be in force" gateway_changed 1
assert_match "postern login" 'active.*exit 0' "$(log_in short laptop ana)"
id=$(admin session list -o json | jq -r '.[0].id')
until=$(admin session list -o json | jq '.[0].until')
stream laptop talk
wait_for 8 "the stream to end" gone "$(pid_of talk)"
read -r _ _ how cut_at < <(grep '^ended' "$(log_of talk)")
assert_eq "how it ended" reset "$how"
late=$((cut_at - $(now_ms) + $(date +%s%3N) - until * 1000))
assert_at_least "ms after the end of the login" -50 "$late"
assert_at_most "ms after the end of the login" 1000 "$late"
echo "      cut $late ms after the end of the login"
wait_for 3 "ssh to be cut" gone "$(pid_of ticks)"
wait_record "the cut" '.close_reason == "session" and .dst_port == 7000 and .session == "'"$id"'"'
wait_for 3 "login --status to say so" status_says 'login +none'
wait_for 3 "an audit line of the end" audit_exists '.action == "session-end" and .object == "'"$id"'" and .outcome == "done"'
assert_match "afterwards" '^(refused|prohibited)' "$(probe laptop tcp $KUBE 22)"
sed -i 's/max_age: 4s/max_age: 12h/' "$GW/gateway.yaml"
wait_for 5 "the longer age to be in force" gateway_changed 2
assert_match "postern login" 'active.*exit 0' "$(log_in again laptop ana)"
wait_for 5 "the lab" is_open laptop

step "no secret of a login is on the gateway's disk or in a log"
for secret in "$SECRET" "$user_code" "$(grep -oE 'code=[^& ]+' "$(log_of first-browser)" | head -1)"; do
  [ -n "$secret" ] || fail "a secret to look for" ""
  ! grep -rqF -- "$secret" "$GW/data" "$(log_of gateway)" "$(log_of client-laptop)" || fail "no secret of a login" "${secret:0:6}…"
done
assert_ok "flows verify" admin flows verify
assert_eq "audit numbers without a gap" true "$(audits true | jq -s -c 'map(.audit) == [range(1; length + 1)]')"
test_ok
