"""Postern as a peer: its own two programs, its own verbs, its admin API for the many devices."""

from __future__ import annotations

import http.client
import json
import socket
from dataclasses import dataclass
from pathlib import Path

from hosts import LAPTOPS, TARGET, Failed, World, wait_until
from peers import PORT, Peer

SILENT_PORTS = (7100, 7101)
POLICY = """version: 1
targets:
  lab: {{ addresses: [{target}], ports: [{ports}] }}
rules:
{rules}  - {{ name: the lab, action: allow, from: {{ groups: [admins] }}, to: [lab] }}
"""


@dataclass
class Postern(Peer):
    """`rules`: how many that match nothing stand before the one that does. `flows`: how many of others are open."""

    binaries: Path = Path()
    ports: tuple[int, ...] = ()
    rules: int = 0
    flows: int = 0

    def __post_init__(self) -> None:
        self.wireguard = True

    def start(self, world: World) -> None:
        gateway = world["gateway"]
        program, self.folder = str(self.binaries / "postern-gateway"), gateway.folder / "postern"
        config = str(self.folder / "gateway.yaml")
        world.forward(bypass=False, masquerade=False)
        gateway.run(program, "init", str(self.folder), "--endpoint", f"{LAPTOPS['laptop'][1]}:{PORT}")
        (self.folder / "policy.yaml").write_text(self._policy())
        with open(config, "a") as file:
            room = 2 * self.flows + 65_536
            file.write(f"limits: {{ flows: {room}, flows_per_device: {room} }}\n" if self.flows else "")
        process = gateway.start(program, "run", "--config", config, log="postern-gateway")
        wait_until(20, "the gateway is ready", lambda: process.poll() is not None or self._ready())
        for name, (_, underlay) in LAPTOPS.items():
            profile = gateway.folder / f"{name}.yaml"
            gateway.run(program, "device", "add", name, "--user", name, "--group", "admins", "--out", str(profile), "-c", config)
            profile.write_text(profile.read_text().replace(LAPTOPS["laptop"][1], underlay))
            world[name].start(str(self.binaries / "postern"), "up", str(profile), log="postern")

    def know(self, world: World, devices: list[str]) -> None:
        for number, public in enumerate(devices):
            body = {"name": f"device-{number}", "user": f"user-{number}", "groups": ["others"], "public_key": public}
            self._ask("POST", "/v1/devices", body)

    def prepare(self, world: World) -> None:
        """Opens the flows: datagrams that nobody answers, so each stays open for the two minutes that UDP has."""
        if not self.flows:
            return
        ports = [str(port) for port in SILENT_PORTS]
        drop = f"table ip silent {{\nchain input {{ type filter hook input priority 0; udp dport {{ {', '.join(ports)} }} drop; }}\n}}\n"
        world["target"].run("nft", "-f", "-", input=drop)
        agent = Path(__file__).with_name("agent.py")
        for _ in range(5):
            world["laptop"].run("python3", str(agent), "flows", TARGET, str(self.flows // len(ports)), *ports)
            if self._ask("GET", "/v1/status")["open_flows"] >= self.flows:
                return
        raise Failed(f"{self.flows} open flows: there are {self._ask('GET', '/v1/status')['open_flows']}")

    def gateway_key(self) -> str:
        return self._ask("GET", "/v1/status")["public_key"]

    def _policy(self) -> str:
        ports = ", ".join(f"{port}/{protocol}" for port in (*self.ports, *SILENT_PORTS) for protocol in ("tcp", "udp"))
        rules = "".join(
            f"  - {{ name: rule {i}, action: allow, from: {{ groups: [group-{i}] }}, to: [lab] }}\n" for i in range(self.rules))  # fmt: skip
        return POLICY.format(target=TARGET, ports=ports, rules=rules)

    def _ready(self) -> bool:
        try:
            return self._ask("GET", "/v1/status")["state"] == "ready"
        except (OSError, KeyError):
            return False

    def _ask(self, method: str, path: str, body: dict | None = None) -> dict:
        connection = _LocalConnection(self.folder / "data/admin.sock")
        connection.request(method, path, json.dumps(body) if body else None, {"content-type": "application/json"})
        answer = connection.getresponse()
        text = answer.read()
        connection.close()
        if answer.status >= 300:
            raise Failed(f"{method} {path}: {answer.status} {text.decode(errors='replace')}")
        return json.loads(text)


class _LocalConnection(http.client.HTTPConnection):
    def __init__(self, path: Path):
        super().__init__("localhost", timeout=10)
        self.path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self.path))
