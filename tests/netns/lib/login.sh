# Logins: an identity provider and a mail server as companies have them, a browser, and `postern login` beside it.

IDP=https://198.51.100.15:8443

# idp_up: oidc-provider in `idp`, whose certificate the authority $W/idp/ca.pem vouches for.
idp_up() {
  command -v node >/dev/null && command -v npm >/dev/null || skip "no node or no npm: apt-get install nodejs npm"
  local d=$W/idp modules=$REPO/target/login
  # shellcheck source=/dev/null
  source "$REPO/scripts/install-deps"
  need_node_modules "$REPO/tests/login" "$modules" >"$W/log/npm.log" 2>&1 || fail "npm to install oidc-provider" "$(tail -3 "$W/log/npm.log")"
  mkdir -p "$d"
  certificate "$d" 198.51.100.15
  mkfifo "$d/say"
  start idp idp env OIDC_PROVIDER="$modules/node_modules/oidc-provider/lib/index.js" \
    bash -c 'exec node "$@" <>"$0"' "$d/say" "$REPO/tests/login/provider.mjs" $IDP "$d/cert.pem" "$d/key.pem"
  wait_for 10 "the identity provider to listen" grep -q "^$IDP" "$(log_of idp)"
}

# idp_groups ACCOUNT GROUPS: what its groups claim says from the next login on. GROUPS as in JSON.
idp_groups() {
  local before; before=$(grep -c '^{}$' "$(log_of idp)" || true)
  echo "{\"do\": \"groups\", \"account\": \"$1\", \"groups\": $2}" >"$W/idp/say"
  wait_for 5 "the identity provider to answer" idp_answered "$before"
}
idp_answered() { [ "$(grep -c '^{}$' "$(log_of idp)")" -gt "$1" ]; }

# certificate FOLDER ADDRESS: an authority (ca.pem), and by it cert.pem and key.pem.
certificate() {
  local new=(openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2)
  "${new[@]}" -subj "/CN=test authority" -keyout "$1/ca.key" -out "$1/ca.pem" 2>/dev/null
  "${new[@]}" -subj "/CN=$2" -addext "subjectAltName=IP:$2" -addext "basicConstraints=critical,CA:FALSE" \
    -CA "$1/ca.pem" -CAkey "$1/ca.key" -keyout "$1/key.pem" -out "$1/cert.pem" 2>/dev/null
}

# browse HOST URL ACCOUNT [USER_CODE]: a browser with cookies of its own, which fills in the form of each page and follows
# wherever it is sent. Prints the last page, and its address at the end.
browse() {
  local host=$1 url=$2 account=$3 user_code=${4:-} jar page form field name value fields=()
  jar=$(mktemp "$W/jar.XXXXXX")
  for _ in 1 2 3 4 5 6 7 8; do
    page=$(in_ns "$host" curl -sS -m 10 -L --cacert "$W/idp/ca.pem" -b "$jar" -c "$jar" "${fields[@]}" -w ' %{url_effective}' "$url" |
      tr '\r\n' '  ')
    form=$(grep -oP '<form\b.*?</form>' <<<"$page" | head -1 || true)
    if [ -z "$form" ]; then
      echo "$page"
      return
    fi
    url=$(grep -oP 'action="\K[^"]*' <<<"$form" | head -1)
    [[ $url == http* ]] || url=$IDP$url
    fields=()
    while read -r field; do
      name=$(sed -n 's/.* name="\([^"]*\)".*/\1/p' <<<"$field")
      value=$(sed -n 's/.* value="\([^"]*\)".*/\1/p' <<<"$field")
      case $name in
        '') continue ;;
        login) value=$account ;;
        password) value=any ;;
        user_code) value=${user_code:-$value} ;;
      esac
      fields+=(--data-urlencode "$name=$value")
    done < <(grep -oP '<input\b[^>]*>' <<<"$form")
  done
  fail "the browser to arrive somewhere" "$page"
}

# login_begin NAME HOST ARGS…: `postern login` in the background, with its exit status as its last line. What it asks at the
# terminal, login_type NAME answers.
login_begin() {
  local name=$1 host=$2; shift 2
  rm -f "$(log_of "$name")" "$W/$name.typed"
  mkfifo "$W/$name.typed"
  start "$name" "$host" bash -c '"$@" <>"$0"; echo "exit $?"' "$W/$name.typed" "$CLIENT_BIN" login "$@"
}
login_type() { echo "$2" >"$W/$1.typed"; }
login_says() { wait_for "${3:-10}" "$1 to say $2" grep -qE "$2" "$(log_of "$1")"; }
# login_end NAME: waits, and prints all that it said.
login_end() {
  wait_for 20 "$1 to end" gone "$(pid_of "$1")"
  cat "$(log_of "$1")"
}

# log_in NAME HOST ACCOUNT: by the provider, in a browser on the same host. Prints what `postern login` said.
log_in() {
  login_begin "$1" "$2" --no-browser
  login_says "$1" "$IDP/"
  browse "$2" "$(grep -oE "$IDP/[^ ]+" "$(log_of "$1")" | head -1)" "$3" >"$W/log/$1-browser.log"
  login_end "$1"
}

# mail_up: aiosmtpd on loopback of the gateway. Its port is the first line of its log, and each mail a line of JSON.
mail_up() {
  local python=$REPO/target/login-python
  # shellcheck source=/dev/null
  source "$REPO/scripts/install-deps"
  need_python "$python" "${PYTHON_LOGIN[@]}" >"$W/log/pip.log" 2>&1 || fail "pip to install aiosmtpd" "$(tail -3 "$W/log/pip.log")"
  mkfifo "$W/mail.open"
  start mail gateway bash -c 'exec "$@" <>"$0"' "$W/mail.open" "$python/bin/python" "$REPO/tests/login/mail.py"
  wait_for 10 "the mail server to listen" grep -qE '^[0-9]+$' "$(log_of mail)"
}
mails() { [ "$(grep -c '^{' "$(log_of mail)")" -ge "$1" ]; }
# mailed_code N: the line of the Nth mail that is a code and nothing else
mailed_code() { grep '^{' "$(log_of mail)" | sed -n "$1p" | jq -r .data | tr -d '\r ' | grep -xE '[0-9]{4}-[0-9]{4}'; }
