#!/usr/bin/env bash
# Logins by a code in a mail: it works once, three wrong ones end it, who may not log in hears nothing else and gets no mail
# (topology: lib.sh).
HOSTS=(inet gateway cluster laptop)
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
stream_server $KUBE 7000
mail_up
gateway_up "login:
  email:
    server: 127.0.0.1:$(head -1 "$(log_of mail)")
    tls: none
    from: postern@example.com
    allow: ['*@example.com']"
assert_ok "join" join laptop "$(invite --open --require login --group admins)" --name ana-laptop
client_start laptop
assert_match "before" '^(refused|prohibited)' "$(probe laptop tcp $KUBE 7000)"

# asked NAME TIMES: it has asked for the code so often
asked() { [ "$(grep -o 'Code from the e-mail' "$(log_of "$1")" | wc -l)" -ge "$2" ]; }
# wrong CODE: the same with another last digit
wrong() { echo "${1%?}$(((${1: -1} + 1) % 10))"; }

step "three wrong codes, and the login is over"
login_begin wrong laptop --email ana@example.com
wait_for 10 "a mail" mails 1
code=$(mailed_code 1)
for try in 1 2 3; do
  wait_for 10 "the question for the code" asked wrong $try
  login_type wrong "$(wrong "$code")"
done
assert_match "postern login" 'not the code.*exit 1' "$(login_end wrong | tr '\n' ' ')"
assert_audit "three of them" '.action == "login" and .outcome == "refused" and .object == "ana-laptop" and (.reason | contains("not the code"))'
assert_eq "audit lines of wrong codes" 3 "$(audits '.action == "login" and .outcome == "refused"' | wc -l)"
assert_match "afterwards" '^(refused|prohibited)' "$(probe laptop tcp $KUBE 7000)"

step "the next code logs in; the one before it does not"
login_begin right laptop --email Ana@Example.com
wait_for 10 "a second mail" mails 2
login_says right 'Code from the e-mail'
login_type right "$code"
login_says right 'not the code'
good=$(mailed_code 2)
login_type right "$good"
assert_match "postern login" 'ana@example.com.*active.*exit 0' "$(login_end right | tr '\n' ' ')"
wait_for 5 "the target" is_open laptop
assert_ok "ssh" ssh_in laptop $KUBE true
wait_record "ssh, as ana" '.verdict == "allow" and .dst_port == 22 and .user == "ana@example.com"'
assert_match "login --status" 'login +email' "$(client laptop login --status)"

step "a code works once"
login_begin twice laptop --email ana@example.com
wait_for 10 "a third mail" mails 3
login_says twice 'Code from the e-mail'
login_type twice "$good"
login_says twice 'not the code'
kill "$(pid_of twice)"

step "who may not log in: the same words, no mail, and no code is right"
login_begin stranger laptop --email eve@example.org
login_says stranger 'Code from the e-mail'
assert_eq "what is said to a stranger" "$(head -1 "$(log_of right)")" "$(head -1 "$(log_of stranger)")"
login_type stranger "$good"
login_says stranger 'not the code'
login_begin last laptop --email ana@example.com
wait_for 10 "the mail to ana, asked for after it" mails 4
assert_eq "who got mail" 'ana@example.com ' "$(grep '^{' "$(log_of mail)" | jq -r '.to[]' | sort -u | tr '\n' ' ')"
assert_audit "what became of it" '.action == "login-start" and .after.mail == "not-allowed" and .after.user == "eve@example.org"'

step "each step is in the log, and no code"
assert_eq "codes that were sent" 4 "$(audits '.action == "login-start" and .outcome == "done" and .after.mail == "sent"' | wc -l)"
assert_audit "the login" '.action == "login" and .outcome == "done" and .after.user == "ana@example.com" and .after.method == "email"'
for each in 1 2 3 4; do
  code=$(mailed_code $each)
  for written in "$code" "${code/-/}"; do
    ! grep -rqF -- "$written" "$GW/data" "$(log_of gateway)" "$(log_of client-laptop)" || fail "no code on the gateway's disk" "code $each"
  done
done
assert_ok "flows verify" admin flows verify
assert_clean_logs
test_ok
