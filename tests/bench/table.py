"""The rows of the table, the goals, and how samples become text: medians, spread, ratios."""

from __future__ import annotations

import statistics
from dataclasses import dataclass, field

Samples = dict[str, dict[str, list[float]]]  # peer: row: one number for each repetition


@dataclass(frozen=True)
class Goal:
    """Met when Postern is as good as `value`, or `times` as good as the first of these peers that is in the same run: the
    values were set on one machine, and on a slower or a faster one it is the ratio that still says something."""

    value: float
    stretch: float | None = None
    times: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    key: str
    label: str
    more: bool = True  # is better
    goal: Goal | None = None
    nic: Goal | None = None  # the goal when packets cross the wires one by one

    def goal_on(self, underlay: str) -> Goal | None:
        return self.goal if underlay == "veth" else self.nic


BULK = Goal(5.0, 6.2, {"wireguard-go": 2.1, "gotatun": 4, "boringtun-cli": 6})


def _tcp() -> list[Row]:
    return [
        Row(f"tcp_{streams}_{way}", f"TCP {streams} stream{'s' if streams > 1 else ''} {way}, Gbit/s", goal=BULK, nic=nic)
        for streams in (1, 4)
        for way, nic in (("up", Goal(3.8, 4.3, {"wireguard-go": 1.9})), ("down", Goal(3.4, 4.0, {"wireguard-go": 1.64})))
    ]


def _cpu() -> list[Row]:
    goals = {"ends": Goal(2.4, 2.0, {"wireguard-go": 2.2}), "gateway": Goal(1.2, 1.0, {"wireguard-go": 2.2})}
    words = {"laptop": "laptop", "gateway": "gateway", "ends": "both ends", "machine": "machine"}
    return [
        Row(f"cpu_{end}_1_{way}", f"CPU s/GB, {words[end]}, 1 {way}", more=False, goal=goals.get(end))
        for way in ("up", "down")
        for end in words
    ]


def _times(key: str, label: str, p50: Goal | None = None, p99: Goal | None = None) -> list[Row]:
    return [Row(f"{key}_{p}", f"{label} {p}, µs", more=False, goal=goal) for p, goal in (("p50", p50), ("p99", p99))]


ROWS: list[Row] = [
    *_tcp(),
    *_cpu(),
    Row("udp_64", "UDP 64 B overload, received kpps"),
    Row("udp_64_lossless", "UDP 64 B at ≤ 1 % loss, kpps", goal=Goal(150, 200, {"boringtun-cli": 1.18})),
    Row("udp_1400", "UDP 1400 B overload, received kpps"),
    Row("udp_1400_lossless", "UDP 1400 B at ≤ 1 % loss, kpps", goal=Goal(130, 170, {"gotatun": 1.46})),
    *_times("rtt", "RTT idle", Goal(170, 135, {"gotatun": 0.79}), Goal(300, 280, {"gotatun": 0.94})),
    *_times("rtt_up", "RTT beside a bulk upload",
            Goal(2000, 1300, {"wireguard-go": 5.95}), Goal(6000, 4000, {"wireguard-go": 4.65})),  # fmt: skip
    Row("rtt_up_rate", "  that upload, Gbit/s"),
    *_times("rtt_down", "RTT beside a bulk download"),
    Row("rtt_down_rate", "  that download, Gbit/s"),
    *_times("connect", "connect"),
    *_times("first_byte", "connect and first byte", Goal(260, 220, {"gotatun": 0.97}), Goal(500, 420, {"gotatun": 0.97})),
    *_times("other_rtt_up", "RTT of a device beside another's upload"),
    *_times("other_rtt_down", "RTT of a device beside another's download"),
    Row("other_share_up", "share of 1 stream beside another's 4, up, %"),
    Row("other_share_down", "share of 1 stream beside another's 4, down, %"),
    Row("both_up", "  both devices together, up, Gbit/s"),
    Row("both_down", "  both devices together, down, Gbit/s"),
    Row("handshakes", "handshakes a second, 500 peers", goal=Goal(5000, 8000, {"boringtun-cli": 0.85})),
    Row("memory_laptop", "peak memory, laptop, MiB", more=False, goal=Goal(20, 12)),
    Row("memory_gateway", "peak memory, gateway, MiB", more=False, goal=Goal(20, 12)),
]


def percentile(ordered: list[int], p: int) -> float:
    if not ordered:
        raise ValueError("nothing was measured")
    return ordered[min(len(ordered) - 1, len(ordered) * p // 100)]


def number(value: float) -> str:
    """Three digits, and no exponent."""
    digits = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2
    return f"{value:.{digits}f}"


def cell(values: list[float] | None) -> str:
    if not values:
        return "–"
    middle = number(statistics.median(values))
    return middle if len(values) == 1 else f"{middle} [{number(min(values))}–{number(max(values))}]"


def ratio(row: Row, samples: Samples, subject: str, peer: str) -> float | None:
    """How many times as good the subject is, so that more is better in every row."""
    ours, theirs = samples[subject].get(row.key), samples[peer].get(row.key)
    if not ours or not theirs:
        return None
    a, b = statistics.median(ours), statistics.median(theirs)
    if not a or not b:
        return None
    return a / b if row.more else b / a


def verdict(row: Row, samples: Samples, subject: str, underlay: str) -> tuple[str, str]:
    """The goal in words, and whether it is met: `yes`, `stretch`, `by ratio` only, `no`; nothing where nothing was measured."""
    goal = row.goal_on(underlay)
    if goal is None:
        return "", ""
    sign = "≥" if row.more else "≤"
    peer = next((peer for peer in goal.times if samples.get(peer, {}).get(row.key)), None)
    words = f"{sign} {goal.value:g}" + (f", or {goal.times[peer]:g}× {peer}" if peer else "")
    values = samples[subject].get(row.key)
    if not values:
        return words, ""
    ours = statistics.median(values)
    good = lambda bound: ours >= bound if row.more else ours <= bound  # noqa: E731
    if goal.stretch is not None and good(goal.stretch):
        return words, "stretch"
    if good(goal.value):
        return words, "yes"
    times = ratio(row, samples, subject, peer) if peer else None
    return words, "by ratio" if peer and times and times >= goal.times[peer] else "no"


def render(samples: Samples, subject: str, underlay: str) -> str:
    """A Markdown table: the subject, each peer with the subject's ratio to it, the goal. Without the subject, the peers."""
    judged = subject in samples
    peers = [name for name in samples if name != subject]
    head = ["", subject, *(word for name in peers for word in (name, "×")), "goal", "met"] if judged else ["", *peers]
    lines = [head]
    for row in ROWS:
        if not any(row.key in samples[name] for name in samples):
            continue
        cells = [row.label]
        if judged:
            cells.append(cell(samples[subject].get(row.key)))
        for name in peers:
            cells.append(cell(samples[name].get(row.key)))
            if judged:
                cells.append(factor(ratio(row, samples, subject, name)))
        lines.append(cells + (list(verdict(row, samples, subject, underlay)) if judged else []))
    widths = [max(3, *(len(line[column]) for line in lines)) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(f"{text:<{width}}" for text, width in zip(line, widths, strict=True)) + " |" for line in lines)


def factor(times: float | None) -> str:
    return "" if times is None else f"{times:.2f}" if times < 10 else f"{times:.0f}"
