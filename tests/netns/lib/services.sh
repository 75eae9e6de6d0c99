# What stands in the cluster: a Kubernetes-style API over TLS, a real sshd; and how a laptop talks to them.

# Certificates, tokens, host keys, a kubeconfig and an ssh config; then the servers in `cluster`.
services_up() {
  kube_up
  sshd_up
}

kube_up() {
  local d=$W/kube token
  mkdir -p "$d"
  token=$(openssl rand -hex 16)
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj "/CN=kube-api" \
    -addext "subjectAltName=IP:$KUBE,IP:$KUBE6" -keyout "$d/key.pem" -out "$d/cert.pem" 2>/dev/null
  kubeconfig "$KUBE" "$token" >"$d/config"
  kubeconfig "[$KUBE6]" "$token" >"$d/config6"
  start kube-api cluster "$PYTHON" "$NETNS_DIR/kube_api.py" --cert "$d/cert.pem" --key "$d/key.pem" \
    --token "$token" "$KUBE" "$KUBE6"
  wait_for 5 "the kube API to listen" grep -q '^listening' "$(log_of kube-api)"
}

kubeconfig() {
  cat <<YAML
apiVersion: v1
kind: Config
clusters: [{name: demo, cluster: {server: "https://$1:6443", certificate-authority: "$W/kube/cert.pem"}}]
users: [{name: ana, user: {token: $2}}]
contexts: [{name: demo, context: {cluster: demo, user: ana}}]
current-context: demo
YAML
}

sshd_up() {
  local d=$W/ssh
  mkdir -p "$d"
  ssh-keygen -q -t ed25519 -N '' -f "$d/host_key"
  ssh-keygen -q -t ed25519 -N '' -f "$d/user_key"
  cp "$d/user_key.pub" "$d/authorized_keys"
  cat >"$d/sshd_config" <<CONF
Port 22
HostKey $d/host_key
AuthorizedKeysFile $d/authorized_keys
PidFile none
PermitRootLogin prohibit-password
PasswordAuthentication no
KbdInteractiveAuthentication no
StrictModes no
UsePAM no
PrintMotd no
PrintLastLog no
Subsystem sftp internal-sftp
LogLevel VERBOSE
CONF
  cat >"$d/config" <<CONF
Host *
  User root
  IdentityFile $d/user_key
  IdentitiesOnly yes
  UserKnownHostsFile $d/known_hosts
  StrictHostKeyChecking yes
  BatchMode yes
  ConnectTimeout 5
  LogLevel ERROR
CONF
  sed "s/^/* /" "$d/host_key.pub" >"$d/known_hosts"
  start sshd cluster "$(command -v sshd || echo /usr/sbin/sshd)" -D -e -f "$d/sshd_config"
  wait_for 5 "sshd to listen" grep -q 'Server listening' "$(log_of sshd)"
}

# From a laptop: kubectl_in HOST ARGS…, ssh_in HOST ARGS…, scp_in HOST ARGS…
kubectl_in() { local h=$1; shift; in_ns "$h" kubectl --kubeconfig "$W/kube/config" --request-timeout=0 "$@"; }
ssh_in() { local h=$1; shift; in_ns "$h" ssh -F "$W/ssh/config" "$@" </dev/null; }
scp_in() { local h=$1; shift; in_ns "$h" scp -q -F "$W/ssh/config" "$@"; }

# Long-lived ones, in the background, with the log of their name.
logs_follow() { start "$1" "$2" kubectl --kubeconfig "$W/kube/config" logs -f worker-0; }
ssh_ticking() { start "$1" "$2" ssh -F "$W/ssh/config" "$3" 'i=0; while sleep 0.1; do i=$((i+1)); echo tick $i; done'; }

# A TCP server on PORT of ADDRESS that talks, and a UDP echo: see probe.py.
stream_server() { start "stream-$2" cluster "$PYTHON" "$NETNS_DIR/probe.py" serve "$1" "$2"; wait_listening "stream-$2"; }
udp_server() { start "udp-$2" cluster "$PYTHON" "$NETNS_DIR/probe.py" echo-udp "$1" "$2"; wait_listening "udp-$2"; }
wait_listening() { wait_for 5 "$1 to listen" grep -q '^listening' "$(log_of "$1")"; }
follow() { start "$1" "$2" "$PYTHON" "$NETNS_DIR/probe.py" follow "$3" "$4" "$5"; }

lines_in() { wc -l <"$(log_of "$1")"; }
more_lines_than() { [ "$(lines_in "$1")" -gt "$2" ]; }

# assert_alive NAME "what": a background program goes on printing.
assert_alive() {
  is_running "$1" || fail "$2 to live" "it ended: $(tail -3 "$(log_of "$1")")"
  wait_for 5 "$2 to go on" more_lines_than "$1" $(($(lines_in "$1") + 2))
}

# A server for DNS in `cluster` that knows api.corp.test: dns_answers ADDRESS…, then dns_up, or a HUP to `dns`.
dns_answers() { printf '%s api.corp.test\n' "$@" >"$W/hosts"; }
dns_up() {
  rm -f "$(log_of dns)"
  start dns cluster dnsmasq --keep-in-foreground --conf-file=/dev/null --user=root --pid-file= --log-facility=- --no-resolv \
    --no-hosts --addn-hosts="$W/hosts" --local=/corp.test/ --local-ttl=5 --listen-address=$PRIVATE_CLUSTER --bind-interfaces
  wait_for 5 "dnsmasq to listen" grep -q 'read .* names' "$(log_of dns)"
}
