#!/usr/bin/env python3
"""A Kubernetes-style API over TLS, as much of it as `kubectl version`, `get pods` and `logs -f` ask for.

    kube_api.py --cert FILE --key FILE --token TOKEN --port 6443 ADDRESS…

Discovery, pods as a list and as a server-side table, a followed log with a line every 0.2 s until the reader
goes away, and a bearer token. Prints one line for each request, and how each followed log ended.
"""

import argparse
import json
import socket
import ssl
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from socketserver import ThreadingTCPServer
from urllib.parse import parse_qs, urlsplit

NAMESPACE = "/api/v1/namespaces/default/pods"
PODS = [("api-7d9c5b6f4-x2x5z", "10.0.0.11"), ("web-5f7b8c9d6-k8m2q", "10.0.0.12"), ("worker-0", "10.0.0.13")]
CREATED = "2026-01-01T00:00:00Z"
VERSION = {"major": "1", "minor": "32", "gitVersion": "v1.32.4", "gitCommit": "0", "gitTreeState": "clean",
           "buildDate": CREATED, "goVersion": "go1.23", "compiler": "gc", "platform": "linux/amd64"}


def pod(name, address):
    return {
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "namespace": "default", "uid": name, "creationTimestamp": CREATED},
        "spec": {"containers": [{"name": "main", "image": "example/main:1"}]},
        "status": {"phase": "Running", "podIP": address,
                   "containerStatuses": [{"name": "main", "ready": True, "restartCount": 0}]},
    }


def pods():
    return {"apiVersion": "v1", "kind": "PodList", "metadata": {"resourceVersion": "1"},
            "items": [pod(*each) for each in PODS]}


def table():
    names = ["Name", "Ready", "Status", "Restarts", "Age"]
    columns = [{"name": n, "type": "string", "format": "name" if n == "Name" else "", "description": n, "priority": 0}
               for n in names]
    rows = [{"cells": [name, "1/1", "Running", "0", "41d"],
             "object": {"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata",
                        "metadata": pod(name, address)["metadata"]}} for name, address in PODS]
    return {"apiVersion": "meta.k8s.io/v1", "kind": "Table", "metadata": {"resourceVersion": "1"},
            "columnDefinitions": columns, "rows": rows}


def status(code, reason, message):
    return {"apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": message}


RESOURCES = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": "v1", "resources": [
    {"name": "pods", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get", "list"], "shortNames": ["po"]},
    {"name": "pods/log", "singularName": "", "namespaced": True, "kind": "Pod", "verbs": ["get"]},
]}
FIXED = {
    "/version": VERSION,
    "/api": {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": []},
    "/apis": {"kind": "APIGroupList", "apiVersion": "v1", "groups": []},
    "/api/v1": RESOURCES,
}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        url = urlsplit(self.path)
        path, query = url.path.rstrip("/"), parse_qs(url.query)
        if self.headers.get("Authorization") != "Bearer " + self.server.token:
            return self.answer(401, status(401, "Unauthorized", "no or wrong bearer token"))
        if path in FIXED:
            return self.answer(200, FIXED[path])
        if path in (NAMESPACE, "/api/v1/pods"):
            return self.answer(200, table() if "as=Table" in self.headers.get("Accept", "") else pods())
        for name, address in PODS:
            if path == f"{NAMESPACE}/{name}":
                return self.answer(200, pod(name, address))
            if path == f"{NAMESPACE}/{name}/log":
                return self.log_lines(name, "true" in query.get("follow", []))
        return self.answer(404, status(404, "NotFound", f"no {path} here"))

    def answer(self, code, value):
        body = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_lines(self, name, follow):
        self.send_response(200)
        self.send_header("Content-Type", "text/plain")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        number, how = 0, "end"
        try:
            while number < 3 or follow:
                number += 1
                line = f"{name} line {number}\n".encode()
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
                if follow:
                    time.sleep(0.2)
            self.wfile.write(b"0\r\n\r\n")
        except ConnectionResetError:
            how = "reset"
        except OSError:
            how = "closed"
        boot_ms = int(time.clock_gettime(time.CLOCK_BOOTTIME) * 1000)
        self.log_message("log of %s ended: %s %d", name, how, boot_ms)
        self.close_connection = how != "end"

    def log_message(self, format, *arguments):
        print(self.client_address[0], format % arguments, flush=True)


class Server(ThreadingTCPServer):
    daemon_threads, allow_reuse_address, request_queue_size = True, True, 64

    def __init__(self, address, port, token, context):
        self.address_family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.token, self.context = token, context
        super().__init__((address, port), Handler)

    def finish_request(self, request, client_address):
        """The TLS handshake belongs to the connection's own thread: a slow client holds up nobody."""
        try:
            with self.context.wrap_socket(request, server_side=True) as tls:
                super().finish_request(tls, client_address)
        except OSError as error:
            print(client_address[0], "tls:", error, flush=True)


def main():
    options = argparse.ArgumentParser()
    for name in ("cert", "key", "token"):
        options.add_argument("--" + name, required=True)
    options.add_argument("--port", type=int, default=6443)
    options.add_argument("address", nargs="+")
    options = options.parse_args()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(options.cert, options.key)
    servers = [Server(address, options.port, options.token, context) for address in options.address]
    for server in servers[1:]:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    print("listening", flush=True)
    try:
        servers[0].serve_forever()
    except KeyboardInterrupt:
        sys.exit(0)


if __name__ == "__main__":
    main()
