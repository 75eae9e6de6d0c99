"""The peers: each brings a tunnel up from the laptops to the gateway, in its own way."""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass

from hosts import LAPTOPS, TARGET, TARGET_NET, Failed, Host, World, wait_until

PORT = 51820
MTU = 1420
TUNNEL = {"laptop": "100.64.0.2", "laptop2": "100.64.0.3", "gateway": "100.64.0.1"}


@dataclass
class Peer:
    """The base is no tunnel at all: plain routes, to see what the wires and iperf3 can do."""

    name: str
    version: str = ""
    udp: bool = True
    wireguard: bool = False  # speaks the protocol, so a gateway can be given devices and shaken hands with

    groups: frozenset[str] | None = None  # of measurements; None for all
    address: str = TARGET  # where a laptop finds the target

    def start(self, world: World) -> None:
        world.forward(bypass=True, masquerade=False)
        world["target"].ip("route", "add", "default", "via", "192.0.2.1")
        for name, (_, gateway) in LAPTOPS.items():
            world[name].ip("route", "add", TARGET_NET, "via", gateway)

    def know(self, world: World, devices: list[str]) -> None:
        """Tells the gateway of devices that are never there."""

    def prepare(self, world: World) -> None:
        """What else has to be there before anything is measured, once the tunnels carry packets."""

    def gateway_key(self) -> str:
        raise Failed(f"{self.name} speaks no WireGuard")


@dataclass
class Daemon(Peer):
    """A userspace WireGuard that `wg` configures. `{if}` in its command becomes the interface."""

    laptop: str = ""
    gateway: str = ""

    def __post_init__(self) -> None:
        self.wireguard = True
        self.gateway = self.gateway or self.laptop

    def start(self, world: World) -> None:
        world.forward(bypass=False, masquerade=True)
        keys = {name: key_pair(world[name]) for name in (*LAPTOPS, "gateway")}
        self.keys = keys
        peers = "".join(peer(keys[name][1], TUNNEL[name] + "/32") for name in LAPTOPS)
        self._up(world["gateway"], self.gateway, interface(keys["gateway"][0], listen=True) + peers)
        for name, (_, underlay) in LAPTOPS.items():
            to = peer(keys["gateway"][1], f"{TUNNEL['gateway']}/32, {TARGET_NET}", f"{underlay}:{PORT}")
            self._up(world[name], self.laptop, interface(keys[name][0]) + to)
            world[name].ip("route", "add", TARGET_NET, "dev", "tunnel")

    def _up(self, host: Host, command: str, configuration: str) -> None:
        (host.folder / "run/wireguard").mkdir()
        host.start("sh", "-c", "exec " + command.replace("{if}", "tunnel"), log=self.name)
        wait_until(10, f"{self.name} answers wg on {host.name}", lambda: _succeeds(host, "wg", "show", "tunnel"))
        host.run("wg", "setconf", "tunnel", "/dev/stdin", input=configuration)
        host.ip("addr", "add", TUNNEL[host.name] + "/24", "dev", "tunnel")
        host.ip("link", "set", "tunnel", "mtu", str(MTU), "up")

    def know(self, world: World, devices: list[str]) -> None:
        text = "".join(peer(public, f"100.65.{i // 250}.{i % 250 + 1}/32") for i, public in enumerate(devices))
        world["gateway"].run("wg", "addconf", "tunnel", "/dev/stdin", input=text)

    def gateway_key(self) -> str:
        return self.keys["gateway"][1]


@dataclass
class Ssh(Peer):
    """What a bastion does today: `ssh -L` through its sshd. TCP only, and only to named ports."""

    ports: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self.udp = False
        self.address = "127.0.0.1"

    def start(self, world: World) -> None:
        gateway, folder = world["gateway"], world["gateway"].folder
        for key in ("host_key", "user_key"):
            gateway.run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key))
        (folder / "sshd_config").write_text(
            f"HostKey {folder}/host_key\nAuthorizedKeysFile {folder}/user_key.pub\nStrictModes no\nUsePAM no\n"
            "PidFile none\nPermitRootLogin prohibit-password\nMaxSessions 100\n")  # fmt: skip
        server = gateway.start(shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", str(folder / "sshd_config"), log="sshd")
        wait_until(5, "sshd listens", lambda: gateway.listening(22, server.pid))
        for name, (_, underlay) in LAPTOPS.items():
            forwards = [word for port in self.ports for word in ("-L", f"127.0.0.1:{port}:{TARGET}:{port}")]
            client = world[name].start(
                "ssh", "-N", "-F", "none", "-i", str(folder / "user_key"), "-o", "StrictHostKeyChecking=no",
                "-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", *forwards, f"root@{underlay}", log="ssh")  # fmt: skip
            wait_until(10, f"ssh forwards on {name}", lambda: world[name].listening(self.ports[0], client.pid))


def interface(private: str, listen: bool = False) -> str:
    return f"[Interface]\nPrivateKey = {private}\n" + (f"ListenPort = {PORT}\n" if listen else "")


def peer(public: str, allowed: str, endpoint: str | None = None) -> str:
    text = f"[Peer]\nPublicKey = {public}\nAllowedIPs = {allowed}\n"
    return text + (f"Endpoint = {endpoint}\nPersistentKeepalive = 25\n" if endpoint else "")


def key_pair(host: Host) -> tuple[str, str]:
    private = host.run("wg", "genkey").strip()
    return private, host.run("wg", "pubkey", input=private).strip()


def first_number(text: str) -> str:
    """The first thing that looks like a version."""
    found = re.search(r"\d+(\.\d+)+\w*", text)
    return found[0] if found else "?"


def parse(words: str) -> Daemon:
    """`NAME=LAPTOP COMMAND[::GATEWAY COMMAND]`, for a WireGuard that was built elsewhere."""
    name, separator, commands = words.partition("=")
    laptop, _, gateway = commands.partition("::")
    if not re.fullmatch(r"[\w.-]+", name) or not separator:
        raise ValueError(f"--peer {words!r}: write NAME=COMMAND or NAME=LAPTOP COMMAND::GATEWAY COMMAND")
    for command in filter(None, (laptop, gateway)):
        if "{if}" not in command:
            raise ValueError(f"--peer {words!r}: say with {{if}} where the name of the interface goes in `{command}`")
        if not shutil.which(command.split()[0]):
            raise ValueError(f"--peer {words!r}: there is no program {command.split()[0]}")
    return Daemon(name, laptop=laptop, gateway=gateway)


def _succeeds(host: Host, *argv: str) -> bool:
    try:
        host.run(*argv)
    except Failed:
        return False
    return True


