#!/usr/bin/env python3
"""`provision` against a server that answers as Grafana's API does, and as files."""

import base64
import json
import pathlib
import subprocess
import sys
import tempfile
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PROVISION = pathlib.Path(__file__).parents[2] / "docs" / "observability" / "provision"
BASIC = "Basic " + base64.b64encode(b"ana:secret").decode()


class Grafana(BaseHTTPRequestHandler):
    """The part of the API that is used. State: {path: body}; calls: [(method, path)]."""

    def log_message(self, *_):
        pass

    def answer(self, status, body):
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(body).encode())

    def serve(self):
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))) or "null")
        state = self.server.state
        self.server.calls.append((self.command, self.path))
        if self.headers.get("Authorization") not in ("Bearer good", BASIC):
            return self.answer(401, {"message": "Invalid API key"})
        if self.command == "GET":
            return self.answer(200, state[self.path]) if self.path in state else self.answer(404, {"message": "not found"})
        if self.path == "/api/dashboards/db":
            uid, known = body["dashboard"]["uid"], f"/api/dashboards/uid/{body['dashboard']['uid']}"
            if known in state and not body["overwrite"]:
                return self.answer(412, {"message": "version-mismatch"})
            if f"/api/folders/{body['folderUid']}" not in state or body["dashboard"].get("id"):
                return self.answer(400, {"message": "no such folder, or a foreign id"})
            state[known] = body["dashboard"]
            return self.answer(200, {"url": f"/d/{uid}", "uid": uid})
        made = {"/api/folders": "/api/folders/", "/api/datasources": "/api/datasources/uid/"}
        if self.command == "POST" and self.path in made:
            path = made[self.path] + body["uid"]
            if path in state:
                return self.answer(409, {"message": "exists"})
            state[path] = body
        elif self.command == "PUT" and self.path in state:
            state[self.path] = body
        else:
            return self.answer(404, {"message": "not found"})
        return self.answer(200, {"uid": body["uid"]})

    do_GET = do_POST = do_PUT = serve


def run(*options):
    done = subprocess.run([PROVISION, *map(str, options)], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout + done.stderr


def over_http(tmp):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Grafana)
    server.state, server.calls = {}, []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    token, wrong, password = tmp / "token", tmp / "wrong", tmp / "password"
    token.write_text("good\n"), wrong.write_text("bad\n"), password.write_text("secret\n")

    status, said = run("--grafana", url, "--token-file", wrong)
    assert status == 1 and "401" in said and "token" in said and not server.state, (status, said)

    sources = ("--prometheus", "http://p:9090", "--loki", "http://l:3100")
    status, said = run("--grafana", url + "/", "--token-file", token, *sources)
    assert status == 0, said
    assert f"{url}/d/postern-flows" in said and f"{url}/d/postern-gateway" in said, said
    boards = {path.rsplit("/", 1)[1]: board for path, board in server.state.items() if "/dashboards/" in path}
    for name in ("flows", "gateway"):
        assert boards[f"postern-{name}"] == json.loads((PROVISION.parent / "dashboards" / f"{name}.json").read_text())
    assert server.state["/api/datasources/uid/postern-loki"]["url"] == "http://l:3100"

    # again, after an upgrade: by password, without data sources, which stay as they are
    before = len(server.state)
    status, said = run("--grafana", url, "--user", "ana", "--password-file", password)
    assert status == 0 and len(server.state) == before, said
    status, said = run("--grafana", url, "--token-file", token, "--loki", "http://other:3100")
    assert status == 0 and server.state["/api/datasources/uid/postern-loki"]["url"] == "http://other:3100", said
    server.shutdown()
    server.server_close()
    status, said = run("--grafana", url, "--token-file", token)
    assert status == 1 and "Grafana's address" in said and "Traceback" not in said, said


def as_files(tmp):
    root = tmp / "etc"
    status, said = run("--files", root, "--prometheus", "http://p:9090")
    assert status == 0, said
    provider = (root / "provisioning" / "dashboards" / "postern.yml").read_text()
    assert f"path: {root.resolve() / 'postern'}" in provider, provider
    assert json.loads((root / "postern" / "flows.json").read_text())["uid"] == "postern-flows"
    assert (root / "postern" / "gateway.json").exists()
    made = json.loads((root / "provisioning" / "datasources" / "postern.yml").read_text())
    assert [source["uid"] for source in made["datasources"]] == ["postern-prometheus"], made


def usage():
    for options in ((), ("--grafana", "http://x", "--files", "y"), ("--grafana", "http://x", "--user", "ana"), ("--grfana", "x")):
        status, said = run(*options)
        assert status == 2 and "Traceback" not in said, (options, status, said)


with tempfile.TemporaryDirectory() as tmp:
    over_http(pathlib.Path(tmp))
    as_files(pathlib.Path(tmp))
    usage()
print("Grafana's API, files and usage: as they should be")
