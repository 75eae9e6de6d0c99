"""Every example is what policy-examples/policy.schema.json says, and what the reader refuses for its shape is not."""

import json
import re
from copy import deepcopy
from pathlib import Path

import yaml
from jsonschema import Draft202012Validator

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "policy-examples"
BAD = ROOT / "gateway/engine/tests/bad"

# Faults of meaning, which no shape can have. The schema refuses the rest of BAD.
MEANING = {
    "name-twice", "outer-is-no-prefix", "rule-unreachable", "target-unknown", "until-before-from", "window-never-opens",
    "zone-unknown",
}


class Core(yaml.SafeLoader):
    """YAML 1.2 as editors read it: a date is a text, and `on` is a word."""


Core.yaml_implicit_resolvers = {}
for tag, pattern, first in (
    ("bool", r"^(true|false)$", "tf"),
    ("null", r"^(null|~|)$", ["n", "~", ""]),
    ("int", r"^-?[0-9]+$", "-0123456789"),
    ("float", r"^-?[0-9]+\.[0-9]+$", "-0123456789"),
):
    Core.add_implicit_resolver(f"tag:yaml.org,2002:{tag}", re.compile(pattern), list(first))


def load(file: Path):
    return yaml.load(file.read_text(), Core)


def changed(policy: dict, path: list, value) -> dict:
    """The policy with one value replaced, or taken out (`...`)."""
    policy = deepcopy(policy)
    place = policy
    for step in path[:-1]:
        place = place[step]
    if value is ...:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return policy


GOOD = {
    "version": 1,
    "targets": {"t": {"addresses": ["192.0.2.10"], "ports": ["22/tcp"]}},
    "posture": {"linux": {"kernel": ">= 6.1"}},
    "rules": [{
        "name": "r", "action": "allow", "mode": "shadow", "to": ["t"], "until": "2027-01-31 18:00",
        "from": {"machines": "any", "labels": ["a=b"], "acr": [2], "outer": ["198.51.100.0/24"], "session_age": "12h"},
        "when": {"days": ["mon-fri", "sun"], "hours": ["07:00-12:00", "22:00-24:00"], "zone": "Europe/Berlin"},
    }],
    "grants": [{"name": "g", "from": "anyone", "to": ["t", {"addresses": ["::1"], "ports": ["icmp"]}], "max": "4 h",
                "approvers": {"groups": ["leads"]}, "break_glass": True}],
    "tests": [{"to": "192.0.2.10:22/tcp", "expect": "deny", "machine": True, "at": "2026-12-01 09:00 Europe/Berlin",
               "outer": "198.51.100.7", "grant": "g", "labels": ["a=b"]}],
}
RULE, FROM, WHEN = ["rules", 0], ["rules", 0, "from"], ["rules", 0, "when"]
GRANT, TEST, TARGET = ["grants", 0], ["tests", 0], ["targets", "t"]
# The reader takes these as well.
ALSO = (
    (["$schema"], "policy.schema.json"), (["grants"], []), (["grants"], None), (["grants"], ...), (["tests"], ...),
    ([*RULE, "from"], "anyone"), ([*RULE, "to"], "anything"), ([*GRANT, "to"], "anything"),
    ([*GRANT, "to"], {"addresses": ["192.0.2.1"], "ports": ["22/tcp"]}), ([*FROM, "machines"], ["ci-1"]),
    ([*WHEN], {"zone": "Europe/Berlin"}), ([*TEST, "at"], "2026-12-01 09:00"), ([*TARGET, "names"], ["api.example.com"]),
)
# It refuses these, and so does the schema.
FAULTS = (
    (["version"], 2), (["rules"], []), (["rules"], ...), (["tests"], []), (["surprise"], 1), (["targets"], None),
    ([*RULE, "action"], "permit"), ([*RULE, "mode"], "shadows"), ([*RULE, "from"], {}), ([*RULE, "from"], "all"),
    ([*RULE, "to"], []), ([*RULE, "name"], ...), ([*RULE, "groups"], ["sre"]), ([*RULE, "until"], "31.01.2027"),
    ([*FROM, "machines"], "all"), ([*FROM, "labels"], ["infra"]), ([*FROM, "outer"], ["office"]), ([*FROM, "group"], ["x"]),
    ([*FROM, "users"], ["ana"]), ([*FROM, "session_age"], "12"), ([*FROM, "session_age"], "0h"), ([*FROM, "session_age"], "2w"),
    ([*WHEN, "days"], ["monday"]), ([*WHEN, "hours"], "7-20"), ([*WHEN, "hours"], []), ([*RULE, "when"], {}), ([*WHEN, "date"], 1),
    ([*GRANT, "max"], ...), ([*GRANT, "max"], "long"), ([*GRANT, "to"], []), ([*GRANT, "from"], ...), ([*GRANT, "break_glass"], "yes"),
    ([*GRANT, "approvers"], ["leads"]), ([*GRANT, "reason"], "x"), (["grants"], {}),
    ([*TEST, "expect"], "allowed"), ([*TEST, "to"], ...), ([*TEST, "at"], "2026-12-01"), ([*TEST, "outer"], "198.51.100.0/24"),
    ([*TEST, "groups"], "sre"), ([*TEST, "labels"], ["a"]), ([*TEST, "who"], "ana"),
    ([*TARGET, "ports"], [22]), ([*TARGET, "ports"], ...), ([*TARGET, "addresses"], ...), ([*TARGET, "names"], ["https://a.example"]),
    (["posture", "linux"], {}), (["posture", "linux", "kernel"], "6.1"),
)


if __name__ == "__main__":
    schema = json.loads((EXAMPLES / "policy.schema.json").read_text())
    Draft202012Validator.check_schema(schema)
    check = Draft202012Validator(schema)
    examples = sorted(EXAMPLES.glob("*.yaml"))
    assert len(examples) >= 11
    for file in examples:
        for error in check.iter_errors(load(file)):
            raise AssertionError(f"{file.name}: {error.json_path}: {error.message}")
    check.validate(GOOD)
    for path, value in ALSO:
        assert check.is_valid(changed(GOOD, path, value)), f"{path} may be {value}"
    for path, value in FAULTS:
        assert not check.is_valid(changed(GOOD, path, value)), f"{path} must not be {value}"
    bad = {file.stem: file for file in BAD.glob("*.yaml")}
    taken = set()
    for name, file in bad.items():
        try:
            if check.is_valid(load(file)):
                taken.add(name)
        except yaml.YAMLError:
            pass
    assert taken == MEANING, f"the schema takes {sorted(taken - MEANING)}, and refuses {sorted(MEANING - taken)}"
    print(f"{len(examples)} examples are what the schema says; {len(FAULTS) + len(bad) - len(taken)} faults are not")
