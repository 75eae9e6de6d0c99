"""Handshakes: how many a second one gateway answers, from devices that it knows. `postern-load` plays them.

Devices come from a seed, so that the gateway can be given their public keys before. They come from many addresses,
because a gateway may well bound what one address can ask for.
"""

from __future__ import annotations

import json
from pathlib import Path

from hosts import LAPTOPS, Failed, output
from load import Stage
from peers import PORT

SEED = 7
SOURCES = "198.18.0.0/23"  # an address for each (RFC 2544): some daemons mix up devices that share one


def public_keys(program: Path, count: int) -> list[str]:
    """Of the devices that `postern-load` plays."""
    lines = output(str(program), "keys", "--count", str(count), "--seed", str(SEED), "-o", "json").splitlines()
    return [json.loads(line)["public_key"] for line in lines]


def measure(stage: Stage) -> dict[str, float]:
    if not stage.devices or not stage.peer.wireguard:
        return {}
    laptop, gateway = LAPTOPS["laptop"]
    stage.world["laptop"].ip("route", "replace", "local", SOURCES, "dev", "lo")
    stage.world["gateway"].ip("route", "replace", SOURCES, "via", laptop)
    words = [
        str(stage.generator), "handshakes", "--to", f"{gateway}:{PORT}", "--gateway-key", stage.peer.gateway_key(),
        "--count", str(len(stage.devices)), "--seed", str(SEED), "--seconds", str(max(1, round(stage.seconds))),
        "--from", SOURCES, "--verify-every", "16", "-o", "json"]  # fmt: skip
    best = 0.0
    # Made ahead they cost the generator nothing; some daemons answer only those that are fresh.
    for ahead in ([], ["--prepare", "18"]):
        outcome = json.loads(stage.world["laptop"].run(*words, *ahead, timeout=60))
        best = max(best, outcome["handshakes_per_s"] if outcome["handshakes"] else 0.0)
    if not best:
        raise Failed("no handshake was answered")
    return {"handshakes": best}
