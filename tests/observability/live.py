#!/usr/bin/env python3
"""Every PromQL of the dashboards and alerts, evaluated by a real Prometheus that scraped a real gateway.

    live.py PROMETHEUS_URL METRICS_FILE

Waits up to 20 s until every panel has data, then says which have none. Also: the metrics that are exported, those that
the queries use and those that the document explains are the same; no alert fires.
"""

import json
import math
import re
import sys
import time
import urllib.error
import urllib.parse
import urllib.request

import queries

# Queries that a healthy gateway answers with nothing, and why.
MAY_BE_EMPTY = {
    "annotation 'Policy put in force'": "only in the minute after a change",
}
# Exported by a gateway whose policy has rules in shadow, or grants; the one here has none.
NOT_YET = {"postern_shadow_verdicts_total", "postern_break_glass_total"}
# Need no panel: the lines by worker, and the lag, say it.
NOT_SHOWN = {"postern_workers", "postern_export_position"}
# Of Prometheus itself and of the process.
OTHERS = {"up", "process_start_time_seconds", "process_resident_memory_bytes", "process_cpu_seconds_total"}


def get(base, path, **query):
    try:
        with urllib.request.urlopen(f"{base}/api/v1/{path}?{urllib.parse.urlencode(query)}", timeout=10) as answer:
            return json.load(answer)["data"]
    except urllib.error.HTTPError as refused:
        raise ValueError(json.load(refused).get("error", refused)) from refused


def names_in(expr):
    return set(re.findall(r"\b(?:postern|process)_[a-z_]+\b|\bup\b(?=[{ ])", re.sub(r'"[^"]*"', '""', expr)))


def exported(metrics):
    """Families with their labels' values: {name: {label: {value}}}."""
    families = {}
    for line in metrics.splitlines():
        if line.startswith("# TYPE "):
            families.setdefault(line.split()[2], {})
        elif found := re.match(r"(\w+)(?:{(.*)})? ", line):
            family = families.setdefault(family_of(found[1], families), {})
            for label, value in re.findall(r'(\w+)="((?:[^"\\]|\\.)*)"', found[2] or ""):
                family.setdefault(label, set()).add(value)
    return families


def family_of(name, families):
    plain = re.sub(r"_(bucket|sum|count)$", "", name)
    return plain if plain in families and name not in families else name


def unknown_names(expr, families):
    """Names, labels and values of labels that no gateway exports."""
    for name in names_in(expr) - OTHERS - NOT_YET:
        if family_of(name, families) not in families:
            yield f"{name} is not exported"
    for name, matchers in re.findall(r"\b(postern_\w+){([^}]*)}", expr):
        have = families.get(family_of(name, families))
        for label, how, value in re.findall(r'(\w+)(=~|=)"([^"]*)"', matchers):
            if have is None or name in NOT_YET or label in ("job", "gateway", "instance"):
                continue
            for each in value.split("|") if how == "=~" else [value]:
                if each not in have.get(label, ()):
                    yield f"{name} has no {label}={each!r}"


def has_data(base, expr):
    result = get(base, "query", query=expr)["result"]
    return any(not math.isnan(float(sample["value"][1])) for sample in result)


def may_be_empty(where, expr):
    return any(word in expr or word in where for word in MAY_BE_EMPTY)


def alert_parts(base):
    """(where, expr): each alert, and its parts without the threshold, which must have data."""
    for group in get(base, "rules")["groups"]:
        for rule in group["rules"]:
            yield f"alerts.yml, {rule['name']}", rule["query"], rule


def main(base, metrics_file):
    faults = []
    families = exported(open(metrics_file).read())
    panels = [(where, queries.filled(expr)) for where, expr, _ in queries.of_dashboards("prometheus")]
    panels += list(queries.of_documents("promql"))
    deadline = time.monotonic() + 20
    waiting = {}
    for where, expr in panels:
        try:
            while not has_data(base, expr) and not may_be_empty(where, expr):
                if time.monotonic() > deadline:
                    waiting[where] = expr
                    break
                time.sleep(0.25)
        except ValueError as refused:
            faults.append(f"{where}: {refused}\n    {expr}")
        faults += [f"{where}: {what}" for what in unknown_names(expr, families)]
    faults += [f"{where}: no data\n    {expr}" for where, expr in waiting.items()]

    alerts = list(alert_parts(base))
    for where, expr, rule in alerts:
        if rule["health"] != "ok":
            faults.append(f"{where}: {rule['health']} {rule.get('lastError', '')}")
        if rule["state"] == "firing":
            faults.append(f"{where}: fires at a gateway that is well: {rule['alerts']}")
        faults += [f"{where}: {what}" for what in unknown_names(expr, families)]

    ours = {name for name in families if name.startswith("postern_")}
    document = (queries.DOCS / "observability.md").read_text()
    explained = set(re.findall(r"^\| `(postern_\w+)", document, re.M))
    shown = {family_of(name, families) for _, expr in panels for name in names_in(expr)}
    faults += [f"observability.md: {name} is not explained" for name in sorted(ours - explained)]
    faults += [f"observability.md: {name} is explained and not exported" for name in sorted(explained - ours - NOT_YET)]
    faults += [f"no panel shows {name}" for name in sorted(ours - shown - NOT_SHOWN)]
    for where, _, rule in alerts:
        heading = f"### {rule['name']}"
        if heading not in document.splitlines() or not rule["annotations"]["runbook"].endswith("#" + rule["name"].lower()):
            faults.append(f"{where}: observability.md has no section {heading!r}, or the annotation does not lead there")

    # What cannot fail proves nothing.
    if not list(unknown_names("postern_no_such_total > 0", families)) or has_data(base, "postern_no_such_total"):
        faults.append("selftest: a metric that is not there was not missed")
    if not list(unknown_names('postern_handshakes_total{outcome="no-such"}', families)):
        faults.append("selftest: a label that is not there was not missed")
    try:
        has_data(base, "sum by (rule (rate(postern_flows_total[1m]))")
        faults.append("selftest: broken PromQL was not refused")
    except ValueError:
        pass

    print("\n".join(faults) or f"{len(panels)} PromQL queries have data, {len(alerts)} alerts are silent, {len(ours)} metrics are explained")
    return 1 if faults or not alerts or not ours else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
