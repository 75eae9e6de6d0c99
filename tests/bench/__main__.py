"""Runs the peers in turn and prints the table. Started by scripts/bench, which builds what is measured.

Exit: 0 done, 1 something could not be measured, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys

from pathlib import Path

import handshakes
import hosts
import load
import measures
import peers
import postern
import profiling
import table

SUBJECT = "postern"
CROWDED = "postern-crowded"  # 10 000 rules and 100 000 open flows
GROUPS = {
    "rtt": [measures.rtt],
    "connect": [measures.connect],
    "tcp": [measures.tcp(streams, down) for streams in (1, 4) for down in (False, True)],
    "rttload": [measures.rtt_beside(False), measures.rtt_beside(True)],
    "udp": [measures.udp("64"), measures.udp("1400")],
    "loss": [measures.udp_without_loss("64"), measures.udp_without_loss("1400")],
    "devices": [measures.devices_rtt(False), measures.devices_rtt(True), measures.devices_share(False), measures.devices_share(True)],
    "handshakes": [handshakes.measure],
    "memory": [measures.memory],
}
QUICK = ("rtt", "connect", "tcp", "rttload", "udp", "memory")
DATAGRAMS = {"udp", "loss"}
DEVICES = 500  # that the gateway knows besides the two that are there


def main() -> int:
    options = arguments()
    if options.table:
        return print_saved(options.table)
    if os.geteuid():
        return complain("this needs root, for network namespaces")
    for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(each, lambda *_: sys.exit(130))
    hosts.remove_leftovers()
    contenders = chosen(options)
    options.known = handshakes.public_keys(options.binaries / "postern-load", options.devices) if options.devices else []
    result = {
        "machine": machine(),
        "underlay": options.underlay,
        "versions": {peer.name: peer.version for peer in contenders},
        "samples": {peer.name: {} for peer in contenders},
    }
    for folder in filter(None, (options.perf, options.logs)):
        folder.mkdir(parents=True, exist_ok=True)
    stolen, complete = 0.0, True
    for repetition in range(options.repeat):
        for peer in contenders:
            begin = f"[{repetition + 1}/{options.repeat}] {peer.name}"
            try:
                stolen = max(stolen, one_run(peer, options, begin, result))
            except (hosts.Failed, OSError, ValueError, KeyError) as error:
                complain(f"{begin}: {error}")
                complete = False
    print_result(result)
    if options.perf:
        recorded = {file.stem: profiling.shares(file) for file in sorted(options.perf.glob("*.perf"))}
        print("\n" + profiling.render(recorded))
    if stolen > 0.02:
        say(f"the hypervisor took up to {100 * stolen:.0f} % of a measurement: another machine is busy")
    if options.smoke:
        missing = [row.label.strip() for row in table.ROWS if row.key not in result["samples"][SUBJECT]]
        if missing:
            complain(f"not measured: {'; '.join(missing)}")
            complete = False
    return 0 if complete else 1


def one_run(peer: peers.Peer, options: argparse.Namespace, begin: str, result: dict) -> float:
    """Everything that is measured of one peer, once; saved as it comes. Returns the largest share of time that was stolen."""
    stolen, samples = 0.0, result["samples"][peer.name]
    say(f"{begin}: up")
    with hosts.world(options.underlay, options.congestion) as world:
        try:
            peer.start(world)
            stage = load.Stage(world, peer, options.seconds, options.congestion, 1 if options.smoke else 6,
                               options.binaries / "postern-load", options.known, options.perf)  # fmt: skip
            if peer.wireguard:
                peer.know(world, options.known)
            stage.ready()
            peer.prepare(world)
            for group, functions in GROUPS.items():
                if group not in options.only or group not in (peer.groups or GROUPS) or (group in DATAGRAMS and not peer.udp):
                    continue
                for measure in functions:
                    numbers, taken = measures.run(stage, measure, 1 if options.smoke else measures.TRIES, lambda text: say(f"{begin}: {text}"))
                    stolen = max(stolen, taken)
                    for key, value in numbers.items():
                        samples.setdefault(key, []).append(value)
                    if options.json:
                        options.json.write_text(json.dumps(result, indent=1) + "\n")
                    say(f"{begin}: " + ", ".join(f"{key} {table.number(value)}" for key, value in numbers.items()))
        except hosts.Failed as error:
            words = "\n".join(filter(None, (host.last_words() for host in world.hosts.values())))
            raise hosts.Failed(f"{error}\n{words}") from error
        if options.logs:
            for host in world.hosts.values():
                shutil.copytree(host.folder / "log", options.logs / f"{peer.name}-{host.name}", dirs_exist_ok=True)
    return stolen


def chosen(options: argparse.Namespace) -> list[peers.Peer]:
    """The peers of this run, Postern first. Those that are not built are named and left out."""
    known: list[peers.Peer] = [postern.Postern(SUBJECT, binaries=options.binaries, ports=load.PORTS)]
    known.append(postern.Postern(CROWDED, binaries=options.binaries, ports=load.PORTS, rules=10_000, flows=100_000,
                                 groups=frozenset({"tcp"})))  # fmt: skip
    known += options.peer
    named = {peer.name for peer in known}
    for name, command in (
        ("wireguard-go", None),
        ("gotatun", f"{options.built}/bin/gotatun -f --disable-drop-privileges {{if}}"),
        ("boringtun-cli", f"{options.built}/bin/boringtun-cli -f --disable-drop-privileges {{if}}"),
        ("wireguard-go-debian", f"{shutil.which('wireguard-go') or 'wireguard-go'} -f {{if}}"),
    ):
        if command and name not in named:
            known.append(peers.Daemon(name, laptop=command))
    known += [peers.Ssh("ssh -L", ports=load.PORTS), peers.Peer("no tunnel")]
    unknown = set(options.peers or []) - {peer.name for peer in known}
    if unknown:
        complain(f"no such peer: {', '.join(sorted(unknown))}; there are {', '.join(peer.name for peer in known)}")
        sys.exit(2)
    wanted = [peer for peer in known if peer.name in options.peers] if options.peers else known[:-1]
    there = []
    for peer in wanted:
        program = program_of(peer, options)
        if program and not shutil.which(program):
            say(f"{peer.name} is left out: there is no {program}")
            continue
        peer.version = version_of(program)
        there.append(peer)
    if not there:
        complain("nothing is left to measure")
        sys.exit(1)
    return there


def program_of(peer: peers.Peer, options: argparse.Namespace) -> str:
    match peer:
        case postern.Postern():
            return str(options.binaries / "postern-gateway")
        case peers.Daemon():
            return peer.laptop.split()[0]
        case peers.Ssh():
            return "ssh"
    return ""


def version_of(program: str) -> str:
    if not program:
        return ""
    done = subprocess.run([program, "-V" if program == "ssh" else "--version"], capture_output=True, text=True)
    return peers.first_number(done.stdout + done.stderr)


def machine() -> dict[str, str | int]:
    fields = dict(line.split(":", 1) for line in Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines() if ":" in line)
    model = next((value.strip() for key, value in fields.items() if key.strip() == "model name"), "?")
    return {"cpu": model, "cores": os.cpu_count() or 1, "kernel": os.uname().release.split("-")[0],
            "iperf3": peers.first_number(hosts.output("iperf3", "--version"))}  # fmt: skip


def print_result(result: dict) -> None:
    at = result["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items() if version)
    print(f"{at['cores']} cores of {at['cpu']}, Linux {at['kernel']}, iperf3 {at['iperf3']}, {result['underlay']} underlay; {versions}.")
    print("Medians [least–most]; × is how many times as good Postern is.\n")
    print(table.render(result["samples"], SUBJECT, result["underlay"]))


def print_saved(files: list[Path]) -> int:
    """One table of several runs: their samples are put together."""
    results = [json.loads(file.read_text()) for file in files]
    whole = results[0]
    if any(result["underlay"] != whole["underlay"] for result in results):
        return complain("runs over different underlays do not belong in one table")
    for result in results[1:]:
        whole["versions"] |= result["versions"]
        for name, rows in result["samples"].items():
            for key, values in rows.items():
                whole["samples"].setdefault(name, {}).setdefault(key, []).extend(values)
    print_result(whole)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench", add_help=False, usage="see scripts/bench --help")
    parser.add_argument("--repeat", type=int, default=None)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--seconds", type=float, default=None)
    parser.add_argument("--only", type=words_of(GROUPS), default=None)
    parser.add_argument("--peers", type=lambda text: text.split(","), default=None)
    parser.add_argument("--peer", type=peer_of, action="append", default=[])
    parser.add_argument("--underlay", choices=("veth", "nic"), default="veth")
    parser.add_argument("--congestion", default="cubic")
    parser.add_argument("--devices", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--perf", type=Path, default=None)
    parser.add_argument("--logs", type=Path, default=None)
    parser.add_argument("--table", type=Path, nargs="+", default=None)
    parser.add_argument("--binaries", type=Path, default=Path("target/release"))
    parser.add_argument("--built", type=Path, default=Path("target/bench-peers"))
    options = parser.parse_args()
    options.binaries, options.built = options.binaries.resolve(), options.built.resolve()
    short = options.quick or options.smoke
    options.only = options.only or (list(GROUPS) if not options.quick else list(QUICK))
    options.repeat = options.repeat or (1 if short else 3)
    options.seconds = options.seconds or (1 if options.smoke else 2 if options.quick else 4)
    options.devices = DEVICES if options.devices is None else options.devices
    if options.smoke:
        options.peers = [SUBJECT]
    return options


def words_of(known: dict) -> type:
    def parse(text: str) -> list[str]:
        words = text.split(",")
        unknown = [word for word in words if word not in known]
        if unknown:
            raise argparse.ArgumentTypeError(f"no {', '.join(unknown)}; there are {', '.join(known)}")
        return words

    return parse  # type: ignore[return-value]


def peer_of(text: str) -> peers.Daemon:
    try:
        return peers.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def complain(text: str) -> int:
    say(f"scripts/bench: {text}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
