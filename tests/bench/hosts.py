"""Hosts as network namespaces, the wires between them, and the processes on them.

    laptop   198.51.100.2 ──── .1 ┐
                                  ├ gateway  192.0.2.1 ──── 192.0.2.10  target
    laptop2  198.51.100.6 ──── .5 ┘

No laptop has a route to the target, and the gateway lets nothing through from an underlay wire: what reaches the
target went through the tunnel. No packet leaves these namespaces.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

TARGET = "192.0.2.10"
TARGET_NET = "192.0.2.0/24"
LAPTOPS = {"laptop": ("198.51.100.2", "198.51.100.1"), "laptop2": ("198.51.100.6", "198.51.100.5")}
HOSTS = (*LAPTOPS, "gateway", "target")
PREFIX = "bench"  # of namespaces: bench-PID-HOST


class Failed(Exception):
    """Something that the bench needs did not happen; the text says what."""


def output(*argv: str, **options) -> str:
    """What a command prints; `Failed` with its own words when it does not end well."""
    done = subprocess.run(argv, capture_output=True, text=True, **options)
    if done.returncode:
        raise Failed(f"{' '.join(argv)}: {(done.stderr or done.stdout).strip()}")
    return done.stdout


def wait_until(seconds: float, what: str, condition: Callable[[], bool]) -> None:
    """Polls until the condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise Failed(f"{what}: not within {seconds:g} s")
        time.sleep(0.03)


class Host:
    """One namespace. Each has its own /run and /var/lib, so that two daemons never share a socket."""

    def __init__(self, name: str, folder: Path):
        self.name = name
        self.namespace = f"{PREFIX}-{os.getpid()}-{name}"
        self.folder = folder / name
        self.processes: list[subprocess.Popen] = []
        for each in ("run/sshd", "lib", "log"):
            (self.folder / each).mkdir(parents=True)
        output("ip", "netns", "add", self.namespace)
        self.inode = os.stat(f"/run/netns/{self.namespace}").st_ino
        self.ip("link", "set", "lo", "up")

    def inside(self, *argv: str) -> list[str]:
        """The words that run a command on this host; its process id is the command's own."""
        script = 'mount --bind "$0/run" /run && mount --bind "$0/lib" /var/lib && exec "$@"'
        return ["ip", "netns", "exec", self.namespace, "sh", "-c", script, str(self.folder), *argv]

    def run(self, *argv: str, **options) -> str:
        return output(*self.inside(*argv), **options)

    def ip(self, *words: str) -> str:
        return output("ip", "-n", self.namespace, *words)

    def start(self, *argv: str, log: str, capture: bool = False) -> subprocess.Popen:
        """Starts a process; it ends with the host. Its output goes to a file that `log` names."""
        with open(self.folder / "log" / log, "ab") as sink:
            process = subprocess.Popen(
                self.inside(*argv), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE if capture else sink,
                stderr=sink, text=True, start_new_session=True)  # fmt: skip
        self.processes.append(process)
        return process

    def stop(self, process: subprocess.Popen) -> None:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(3)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        if process in self.processes:
            self.processes.remove(process)

    def last_words(self) -> str:
        """The ends of the logs, for an error message."""
        logs = sorted((self.folder / "log").iterdir())
        return "\n".join(f"--- {self.name}, {log.name}\n{log.read_text(errors='replace')[-1200:]}"
                         for log in logs if log.stat().st_size)  # fmt: skip

    def listening(self, port: int, pid: int) -> bool:
        """Whether something listens on a TCP port, seen from a process of this host."""
        for table in ("tcp", "tcp6"):
            with contextlib.suppress(OSError):
                for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
                    words = line.split()
                    if words[1].endswith(f":{port:04X}") and words[3] == "0A":
                        return True
        return False

    def remove(self) -> None:
        for process in self.processes:
            with contextlib.suppress(OSError):
                process.terminate()
        end = time.monotonic() + 3
        while (pids := self._pids()) and time.monotonic() < end:
            for process in self.processes:
                process.poll()
            time.sleep(0.03)
        for pid in pids:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        for process in self.processes:
            process.wait()
        subprocess.run(["ip", "netns", "del", self.namespace], capture_output=True)

    def _pids(self) -> list[int]:
        done = subprocess.run(["ip", "netns", "pids", self.namespace], capture_output=True, text=True)
        return [int(word) for word in done.stdout.split()]


class World:
    """The four hosts of one peer's run."""

    def __init__(self, underlay: str, congestion: str):
        self.folder = Path(tempfile.mkdtemp(prefix="postern-bench-"))
        self.hosts: dict[str, Host] = {}
        self.congestion = congestion
        try:
            for name in HOSTS:
                self.hosts[name] = Host(name, self.folder)
            for name, (laptop, gateway) in LAPTOPS.items():
                self._wire(name, "underlay", laptop, "gateway", name, gateway, 30)
            self._wire("target", "lan", TARGET, "gateway", "lan", "192.0.2.1", 24)
            if underlay == "nic":
                self._like_a_nic()
        except BaseException:
            self.remove()
            raise

    def __getitem__(self, name: str) -> Host:
        return self.hosts[name]

    def forward(self, bypass: bool, masquerade: bool) -> None:
        """Lets the gateway forward. `bypass`: also what comes straight from the underlay, for the run without a tunnel."""
        gateway = self["gateway"]
        gateway.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        rules = "table ip bench {\n"
        if not bypass:
            rules += ' chain only_tunnel { type filter hook forward priority 0; iifname "laptop*" oifname "lan" drop; }\n'
        if masquerade:
            rules += ' chain out { type nat hook postrouting priority 100; oifname "lan" masquerade; }\n'
        gateway.run("nft", "-f", "-", input=rules + "}\n")

    def remove(self) -> None:
        for host in self.hosts.values():
            host.remove()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _wire(self, a: str, a_interface: str, a_address: str, b: str, b_interface: str, b_address: str, bits: int) -> None:
        output("ip", "link", "add", a_interface, "netns", self[a].namespace, "type", "veth",
               "peer", "name", b_interface, "netns", self[b].namespace)  # fmt: skip
        ends = ((self[a], a_interface, a_address), (self[b], b_interface, b_address))
        for host, interface, address in ends:
            host.ip("addr", "add", f"{address}/{bits}", "dev", interface)
            host.ip("link", "set", interface, "up")
        for host, interface, address in ends:
            # A namespace may use only what the machine allows; a route may ask for anything, and nobody else notices.
            net = str(ipaddress.ip_interface(f"{address}/{bits}").network)
            host.ip("route", "replace", net, "dev", interface, "src", address, "congctl", self.congestion)

    def _like_a_nic(self) -> None:
        """Packets cross the wires one MTU at a time: cut before, joined behind, as on a NIC that cannot cut."""
        for host in self.hosts.values():
            for interface in re.findall(r"^\d+: (\w+)@", host.ip("-o", "link"), re.M):
                host.run("ethtool", "-K", interface, "tso", "off", "tx-udp-segmentation", "off", "gro", "on")


@contextlib.contextmanager
def world(underlay: str, congestion: str) -> Iterator[World]:
    made = World(underlay, congestion)
    try:
        yield made
    finally:
        made.remove()


def remove_leftovers() -> None:
    """Takes away the namespaces of a bench that was killed: those named after a process that is gone."""
    listed = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True).stdout
    for name, pid in re.findall(rf"^({PREFIX}-(\d+)-\w+)", listed, re.M):
        if not os.path.exists(f"/proc/{pid}"):
            for each in output("ip", "netns", "pids", name).split():
                with contextlib.suppress(OSError):
                    os.kill(int(each), signal.SIGKILL)
            output("ip", "netns", "del", name)
