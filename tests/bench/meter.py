"""What a measurement cost: CPU seconds of each host's daemons, of the machine, and of everybody else."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from pathlib import Path

from hosts import World

TICK = os.sysconf("SC_CLK_TCK")
CPUS = os.cpu_count() or 1


@dataclass
class Usage:
    """Seconds. `hosts` counts the processes that were there before and after: the daemons, and not the load."""

    wall: float
    hosts: dict[str, float]
    machine: float
    foreign: float
    stolen: float

    def share(self, seconds: float) -> float:
        """Of all that the machine's cores could do meanwhile."""
        return seconds / (CPUS * self.wall)


@dataclass
class Reading:
    at: float
    idle: float
    stolen: float
    processes: dict[int, tuple[int, float, float]] = field(default_factory=dict)  # pid: namespace, CPU of itself, of children


def read() -> Reading:
    words = [int(word) / TICK for word in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    reading = Reading(time.monotonic(), words[3] + words[4], words[7])
    for entry in filter(str.isdigit, os.listdir("/proc")):
        if int(entry) == os.getpid():
            continue
        try:
            if os.readlink(f"/proc/{entry}/exe"):  # a thread of the kernel has none
                namespace = os.stat(f"/proc/{entry}/ns/net").st_ino
                reading.processes[int(entry)] = (namespace, *cpu_seconds(int(entry)))
        except OSError:
            continue
    return reading


def between(world: World, before: Reading, after: Reading) -> Usage:
    ours = {host.inode: name for name, host in world.hosts.items()}
    hosts = dict.fromkeys(world.hosts, 0.0)
    foreign = 0.0
    for pid, (namespace, seconds, children) in after.processes.items():
        _, earlier, earlier_children = before.processes.get(pid, (0, 0.0, 0.0))
        if namespace not in ours:
            foreign += seconds - earlier  # a neighbour's child may have worked long before: it is not counted when it ends
        elif pid in before.processes:
            hosts[ours[namespace]] += seconds + children - earlier - earlier_children
    wall = after.at - before.at
    return Usage(wall, hosts, CPUS * wall - (after.idle - before.idle), foreign, after.stolen - before.stolen)


def cpu_seconds(pid: int) -> tuple[float, float]:
    """User and system time: of the process with its ended threads, and of the children that it awaited."""
    words = [int(word) / TICK for word in Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[11:15]]
    return words[0] + words[1], words[2] + words[3]


def peak_memory(world: World, name: str) -> float:
    """MiB: the sum of the peak resident sizes of a host's processes."""
    total = 0
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{entry}/ns/net").st_ino != world[name].inode:
                continue
            for line in Path(f"/proc/{entry}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    total += int(line.split()[1])
        except OSError:
            continue
    return total / 1024
