"""Where the time of a transfer goes: `perf` samples both cores, and every sample falls into one kind of work."""

from __future__ import annotations

import contextlib
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

IDLE, LOAD, AEAD, COPY, OWN, OTHER = "idle", "iperf3", "user: AEAD", "user: copies", "user: the daemons' own code", "everything else"
KERNEL_COPY, KERNEL_WAKE, KERNEL_MEMORY, KERNEL_NET = (
    "kernel: copies and checksums", "kernel: scheduler, wake-ups, locks", "kernel: memory", "kernel: network stack and calls")  # fmt: skip
KINDS = (AEAD, OWN, COPY, KERNEL_COPY, KERNEL_NET, KERNEL_WAKE, KERNEL_MEMORY, LOAD, OTHER, IDLE)

_IDLE = re.compile(r"idle|halt|cpu_startup|swapper")
_AEAD = re.compile(r"chacha|poly1305|aead|^gcm", re.I)
_USER_COPY = re.compile(r"mem(cpy|move|set|cmp)")
_COPY = re.compile(r"copy|csum|^mem(cpy|move|set)|rep_movs|clear_page|^(sk|zero)_.*iter")
_WAKE = re.compile(
    r"sched|wake|ttwu|futex|spin|mutex|enqueue_|dequeue_|task|_rq|switch|ipi|smp_|resched|hrtimer|timer|tick|clock|pvclock|tsc|"
    r"x2apic|apic|e?poll|wait|update_curr|update_load|rcu|cpu_util|cfs|irq_(enter|exit)|interrupt")  # fmt: skip
_MEMORY = re.compile(r"alloc|free|slab|kmem|page|folio|vma|mmap|fault|zone|rmqueue|memcg|obj_cgroup")


def kind_of(command: str, module: str, symbol: str) -> str:
    """The kind of work of one sampled place."""
    if command.startswith("swapper") and _IDLE.search(symbol):
        return IDLE
    if command.startswith("iperf3"):
        return LOAD
    if module.startswith("[kernel") or module.startswith("[guest"):
        for pattern, kind in ((_COPY, KERNEL_COPY), (_WAKE, KERNEL_WAKE), (_MEMORY, KERNEL_MEMORY)):
            if pattern.search(symbol):
                return kind
        return KERNEL_NET
    if command.startswith(("python", "perf")):
        return OTHER
    if _AEAD.search(symbol):
        return AEAD
    return COPY if _USER_COPY.search(symbol) else OWN


@contextlib.contextmanager
def sampled(file: Path | None, seconds: float) -> Iterator[None]:
    """Records what both cores do while the body runs, for so long; nothing without a file."""
    if file is None:
        yield
        return
    words = ["perf", "record", "-q", "-a", "-e", "cpu-clock", "-F", "997", "-o", str(file), "--", "sleep", str(seconds)]
    recorder = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        yield
    finally:
        recorder.wait()


def shares(file: Path) -> dict[str, float]:
    """Percent of all samples, by kind of work."""
    words = ["perf", "report", "--stdio", "-i", str(file), "--no-children", "-F", "overhead,comm,dso,symbol", "-t", "|", "-g", "none"]
    printed = subprocess.run(words, capture_output=True, text=True).stdout
    sums = dict.fromkeys(KINDS, 0.0)
    for line in printed.splitlines():
        fields = [field.strip() for field in line.split("|")]
        if len(fields) == 4 and fields[0].endswith("%"):
            symbol = re.sub(r"^\[.\]\s*", "", fields[3])
            sums[kind_of(fields[1], fields[2], symbol)] += float(fields[0].rstrip("%"))
    return sums


def render(profiles: dict[str, dict[str, float]]) -> str:
    lines = ["| share of all samples, % | " + " | ".join(profiles) + " |", "|---|" + "---|" * len(profiles)]
    for kind in KINDS:
        lines.append(f"| {kind} | " + " | ".join(f"{of.get(kind, 0):.1f}" for of in profiles.values()) + " |")
    return "\n".join(lines)
