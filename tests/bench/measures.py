"""The measurements. Each is a function from a stage to numbers by row; `table.ROWS` says what the rows mean.

A measurement during which others used the machine is void: see `run`.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator

import meter
import profiling
from hosts import Failed
from load import SECOND_BULK_PORT, Iperf, Stage
from table import percentile

Numbers = dict[str, float]
FOREIGN = 0.04  # of the machine: a measurement during which others used more is taken again
TRIES = 3
LOSS = 1.0  # percent
PAYLOADS = {"64": 64, "1400": 1372}  # bytes of UDP payload; 1372 make a packet of 1400


def rtt(stage: Stage) -> Numbers:
    trips = stage.agent("ping", 10_000, 2 * stage.seconds)["trip"]
    return micros("rtt", trips)


def connect(stage: Stage) -> Numbers:
    taken = stage.agent("connect", 1_000, 3 * stage.seconds)
    if taken["failed"]:
        raise Failed(f"{taken['failed']} connections failed")
    return micros("connect", taken["connect"]) | micros("first_byte", taken["first_byte"])


def tcp(streams: int, down: bool) -> Callable[[Stage], Numbers]:
    def measure(stage: Stage) -> Numbers:
        name = f"{streams}_{'down' if down else 'up'}"
        before = meter.read()
        with (
            stage.iperf(stage.seconds, *stage.tcp_options(streams, down)) as iperf,
            profiling.sampled(stage.recording(name), stage.seconds - 0.5),
        ):
            end = iperf.result()["sum_received"]
            used = meter.between(stage.world, before, meter.read())
        gigabytes = end["bytes"] / 1e9
        laptop, gateway = used.hosts["laptop"], used.hosts["gateway"]
        return {
            f"tcp_{name}": end["bits_per_second"] / 1e9,
            f"cpu_laptop_{name}": laptop / gigabytes,
            f"cpu_gateway_{name}": gateway / gigabytes,
            f"cpu_ends_{name}": (laptop + gateway) / gigabytes,
            f"cpu_machine_{name}": used.machine / gigabytes,
        }

    return measure


def rtt_beside(down: bool) -> Callable[[Stage], Numbers]:
    def measure(stage: Stage) -> Numbers:
        name = "rtt_down" if down else "rtt_up"
        with in_full_swing(stage, 1, down) as iperf:
            trips = stage.agent("ping", 10_000_000, stage.seconds)["trip"]
            rate = iperf.result()["sum_received"]["bits_per_second"] / 1e9
        return micros(name, trips) | {f"{name}_rate": rate}

    return measure


def udp(size: str) -> Callable[[Stage], Numbers]:
    """As fast as iperf3 can; what arrives is what counts."""
    return lambda stage: {f"udp_{size}": datagrams(stage, size, 0)[1] / 1e3}


def udp_without_loss(size: str) -> Callable[[Stage], Numbers]:
    """The highest rate, of those tried, at which at most one datagram in a hundred is lost."""

    def measure(stage: Stage) -> Numbers:
        sent, received = datagrams(stage, size, 0)
        good, bad, best, rate = 0.0, sent, 0.0, 0.7 * received
        for _ in range(stage.steps):
            sent, received = datagrams(stage, size, rate)
            if received >= sent * (1 - LOSS / 100) and sent > 0.9 * rate:
                good, best = rate, max(best, received)
            else:
                bad = rate
            middle = (good + bad) / 2 if good else 0.7 * bad
            rate = min(middle, 1.3 * good) if good else middle
        return {f"udp_{size}_lossless": best / 1e3}

    return measure


def datagrams(stage: Stage, size: str, rate: float) -> tuple[float, float]:
    """Sent and received, each second. A rate of 0 is as fast as it goes."""
    payload = PAYLOADS[size]
    options = ("-u", "-l", str(payload), "-b", str(int(rate * payload * 8)), "-w", "2M")
    with stage.iperf(0.6 * stage.seconds, *options) as iperf:
        end = iperf.result()["sum"]
    return end["packets"] / end["seconds"], (end["packets"] - end["lost_packets"]) / end["seconds"]


def devices_rtt(down: bool) -> Callable[[Stage], Numbers]:
    """What a second device feels while the first moves all it can."""

    def measure(stage: Stage) -> Numbers:
        with in_full_swing(stage, 4, down) as iperf:
            trips = stage.agent("ping", 10_000_000, stage.seconds, laptop="laptop2")["trip"]
            iperf.result()
        return micros("other_rtt_down" if down else "other_rtt_up", trips)

    return measure


def devices_share(down: bool) -> Callable[[Stage], Numbers]:
    """What one stream of the second device gets beside four of the first: half would be fair."""

    def measure(stage: Stage) -> Numbers:
        many, one = stage.tcp_options(4, down), stage.tcp_options(1, down)
        with (
            stage.iperf(stage.seconds, *many) as first,
            stage.iperf(stage.seconds, *one, laptop="laptop2", port=SECOND_BULK_PORT) as second,
        ):
            rates = [each.result()["sum_received"]["bits_per_second"] / 1e9 for each in (first, second)]
        name = "down" if down else "up"
        return {f"other_share_{name}": 100 * rates[1] / sum(rates), f"both_{name}": sum(rates)}

    return measure


def memory(stage: Stage) -> Numbers:
    return {f"memory_{name}": meter.peak_memory(stage.world, name) for name in ("laptop", "gateway")}


@contextlib.contextmanager
def in_full_swing(stage: Stage, streams: int, down: bool) -> Iterator[Iperf]:
    """A transfer that has found its rate, and goes on for as long as a measurement lasts."""
    settling = min(1.0, stage.seconds / 2)
    with stage.iperf(stage.seconds + settling + 0.3, *stage.tcp_options(streams, down)) as iperf:
        time.sleep(settling)
        yield iperf


def wait_for_quiet(stage: Stage) -> None:
    """Until the others have used next to nothing for a second; at most a minute, for then they will not stop."""
    for _ in range(60):
        before = meter.read()
        time.sleep(1)
        used = meter.between(stage.world, before, meter.read())
        if used.share(used.foreign) <= FOREIGN:
            return


def micros(name: str, nanoseconds: list[int]) -> Numbers:
    ordered = sorted(nanoseconds)
    return {f"{name}_p{p}": percentile(ordered, p) / 1e3 for p in (50, 99)}


def run(stage: Stage, measure: Callable[[Stage], Numbers], tries: int, say: Callable[[str], None]) -> tuple[Numbers, float]:
    """One measurement, taken again while neighbours disturb it. Also the share of time that the hypervisor took."""
    for attempt in range(tries):
        before = meter.read()
        numbers = measure(stage)
        used = meter.between(stage.world, before, meter.read())
        foreign = used.share(used.foreign)
        if foreign <= FOREIGN or attempt == tries - 1:
            break
        say(f"others used {100 * foreign:.0f} % of the machine: once more")
        wait_for_quiet(stage)
    if foreign > FOREIGN:
        say(f"others used {100 * foreign:.0f} % of the machine, and there is no time to wait: kept all the same")
    return numbers, used.share(used.stolen)
