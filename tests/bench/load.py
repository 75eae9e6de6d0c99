"""Traffic: iperf3 from a laptop to the target and back, and the small agent's round trips."""

from __future__ import annotations

import contextlib
import json
import math
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from hosts import Failed, World, wait_until
from peers import Peer

BULK_PORT, SECOND_BULK_PORT, ECHO_PORT = 5201, 5202, 7001
PORTS = (BULK_PORT, SECOND_BULK_PORT, ECHO_PORT)
AGENT = str(Path(__file__).with_name("agent.py"))


@dataclass
class Stage:
    """A peer's tunnels, up, in a world of their own; and how long one measurement lasts."""

    world: World
    peer: Peer
    seconds: float
    congestion: str
    steps: int  # of a search
    generator: Path  # postern-load
    devices: list[str]  # public keys of those that the gateway knows and that are not there, unless the generator plays them
    recordings: Path | None = None  # a folder for `perf`

    def recording(self, transfer: str) -> Path | None:
        """Where the samples of a transfer go, if anybody wants them: of those with one stream."""
        return self.recordings / f"{self.peer.name}-{transfer}.perf" if self.recordings and transfer.startswith("1") else None

    def ready(self) -> None:
        """Starts the echo server, and waits until both laptops have reached it through their tunnels."""
        target = self.world["target"]
        server = target.start(sys.executable, AGENT, "echo", str(ECHO_PORT), log="echo")
        wait_until(5, "the echo server listens", lambda: target.listening(ECHO_PORT, server.pid))
        for laptop in ("laptop", "laptop2"):
            wait_until(20, f"{self.peer.name}: {laptop} reaches the target", lambda: self._reaches(laptop))

    def _reaches(self, laptop: str) -> bool:
        probe = f"import socket; socket.create_connection(('{self.peer.address}', {ECHO_PORT}), 1).send(b'x')"
        argv = self.world[laptop].inside("timeout", "3", sys.executable, "-c", probe)
        return subprocess.run(argv, capture_output=True).returncode == 0

    def agent(self, what: str, count: int, seconds: float, laptop: str = "laptop") -> dict[str, list[int]]:
        words = (sys.executable, AGENT, what, self.peer.address, str(ECHO_PORT), str(count), str(seconds))
        try:
            return json.loads(self.world[laptop].run(*words, timeout=seconds + 30))
        except subprocess.TimeoutExpired:
            raise Failed(f"{what}: stuck") from None

    @contextlib.contextmanager
    def iperf(self, seconds: float, *options: str, laptop: str = "laptop", port: int = BULK_PORT) -> Iterator[Iperf]:
        """Traffic while the body runs, in whole seconds; `result()` waits for its end. The server serves this one client."""
        target = self.world["target"]
        server = target.start("iperf3", "-s", "-1", "-p", str(port), log=f"iperf3-{port}")
        wait_until(5, "iperf3 listens", lambda: target.listening(port, server.pid))
        client = self.world[laptop].start(
            "iperf3", "-J", "-c", self.peer.address, "-p", str(port), "-t", str(math.ceil(seconds)), "--connect-timeout", "5000",
            *options, log="iperf3", capture=True)  # fmt: skip
        try:
            yield Iperf(client, seconds)
        finally:
            self.world[laptop].stop(client)
            target.stop(server)

    def tcp_options(self, streams: int = 1, down: bool = False) -> list[str]:
        return ["-P", str(streams), "-C", self.congestion, *(["-R"] if down else [])]


@dataclass
class Iperf:
    client: subprocess.Popen
    seconds: float

    def result(self) -> dict:
        """The `end` part of iperf3's report."""
        try:
            printed, _ = self.client.communicate(timeout=self.seconds + 25)
            report = json.loads(printed)
        except (subprocess.TimeoutExpired, ValueError):
            raise Failed("iperf3 did not finish") from None
        if "error" in report:
            raise Failed(f"iperf3: {report['error']}")
        return report["end"]
