#!/usr/bin/env bash
# What real ssh, sshd, curl and kubectl say first stands in the records of their flows (topology: lib.sh).
source "$(dirname "$0")/lib.sh" || exit 1
test_begin
world_up
services_up
gateway_up
client_up laptop ana-laptop ana@example.com admins

# closed_to "what" ADDRESS PORT FILTER: a closing record of a flow to there.
closed_to() { wait_record "$1" ".state == \"closed\" and .dst_address == \"$2\" and .dst_port == $3 and $4"; }

step "ssh: both ends, as they announce themselves"
ours=SSH-2.0-$(ssh -V 2>&1 | cut -d, -f1)
theirs=$(in_ns cluster bash -c "exec 3<>/dev/tcp/$KUBE/22 && head -1 <&3 | tr -d '\r\n'")
assert_match "the banner of sshd" '^SSH-2\.0-' "$theirs"
for a in "$KUBE" "$KUBE6"; do
  assert_ok "ssh $a" ssh_in laptop "$a" true
  closed_to "ssh to $a with what both ends announced" "$a" 22 \
    ".app == \"ssh\" and .ssh_client == \"$ours\" and .ssh_server == \"$theirs\" and (has(\"tls_sni\") | not)"
done

step "a connection to sshd that says nothing: the server alone"
in_ns laptop bash -c "exec 3<>/dev/tcp/91.107.250.5/22 && head -1 <&3 >/dev/null"
closed_to "a silent client" 91.107.250.5 22 ".app == \"ssh\" and .ssh_server == \"$theirs\" and (has(\"ssh_client\") | not)"

step "curl: the host in lower case"
assert_ok "curl" in_ns laptop curl -sk --resolve "Kube-API.example:6443:$KUBE" -o /dev/null https://Kube-API.example:6443/version
closed_to "curl" "$KUBE" 6443 '.app == "tls" and .tls_sni == "kube-api.example"'

step "kubectl: an address is no name; a post-quantum hello in two segments has one"
assert_ok "kubectl get pods" kubectl_in laptop get pods
closed_to "kubectl to an address" "$KUBE" 6443 '.app == "tls" and (has("tls_sni") | not)'
in_ns laptop kubectl --kubeconfig "$W/kube/config" --tls-server-name two-segments.example get pods >/dev/null 2>&1 || true
closed_to "kubectl with a server name" "$KUBE" 6443 '.app == "tls" and .tls_sni == "two-segments.example"'

step "http: the word, and nothing of the request"
# Not `-m http.server`, which asks the DNS for its own name first.
start http cluster "$PYTHON" -c "import http.server, socketserver
socketserver.TCPServer(('$KUBE', 7000), http.server.SimpleHTTPRequestHandler).serve_forever()"
wait_for 5 "the web server to answer" in_ns cluster curl -s -o /dev/null "http://$KUBE:7000/"
assert_ok "curl in clear" in_ns laptop curl -s -o /dev/null "http://$KUBE:7000/secret-path?token=secret-token"
closed_to "curl in clear" "$KUBE" 7000 '.app == "http"'
assert_no_match "the records" 'secret-' "$(records true)"

step "what is not TCP, and what was refused, has no hint"
udp_server $KUBE 5353
assert_probe laptop answered 500 udp $KUBE 5353
assert_probe laptop refused 500 tcp $KUBE 8443
wait_record "the refusal" '.state == "denied" and .dst_port == 8443'
assert_eq "records with a hint that should have none" "" \
  "$(records 'has("app") and (.state != "closed" or .protocol != "tcp")')"

stop client-laptop || fail "postern up to end at SIGTERM" "it had to be killed"
stop gateway || fail "postern-gateway to end at SIGTERM" "it had to be killed"
assert_clean_logs
test_ok
