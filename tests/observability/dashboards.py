#!/usr/bin/env python3
"""The dashboards are whole, and every LogQL query parses and names what records have.

    dashboards.py FOLDER_WITH_NODE_MODULES

Fields and words are those of docs/records.schema.json.
"""

import json
import pathlib
import re
import subprocess
import sys

import queries

LABELS = {"job", "gateway", "verdict", "kind"}
METADATA = {"user", "device", "rule", "state", "target", "close_reason", "deny_reason", "shadow_verdict", "grant",
            "action", "outcome", "n"}
faults = []


def fault(where, what):
    faults.append(f"{where}: {what}")


def structure(name, board):
    ids, taken, used = set(), {}, json.dumps([board["panels"], board["annotations"], board["templating"]])
    names = [variable["name"] for variable in board["templating"]["list"]]
    for variable in set(re.findall(r"\$\{?(\w+)", used)) - set(queries.VARIABLES) - {"prometheus", "loki", "__all"}:
        fault(name, f"variable {variable} is not known to this test")
    for variable in set(re.findall(r"\$\{?([a-z]\w+)", used)) - set(names):
        fault(name, f"variable {variable} is used and not defined")
    for variable in names:
        if not re.search(rf"\${{?{variable}\b", used):
            fault(name, f"variable {variable} is defined and not used")
    if board["schemaVersion"] < 39 or not board["uid"] or not board["title"] or board.get("id"):
        fault(name, "schemaVersion, uid, title or id")
    for panel in board["panels"]:
        where = f"{name}, panel {panel['id']} {panel['title']!r}"
        if panel["id"] in ids:
            fault(where, "its id is taken")
        ids.add(panel["id"])
        place = panel["gridPos"]
        if place["x"] + place["w"] > 24:
            fault(where, "reaches past the right edge")
        for cell in ((x, y) for x in range(place["x"], place["x"] + place["w"]) for y in range(place["y"], place["y"] + place["h"])):
            if cell in taken:
                fault(where, f"lies over {taken[cell]!r}")
                break
            taken[cell] = panel["title"]
        if panel["type"] == "row":
            continue
        if not panel.get("description", "").endswith("."):
            fault(where, "has no description that is a sentence")
        if not panel["fieldConfig"]["defaults"].get("unit"):
            fault(where, "has no unit")
        if not panel.get("targets"):
            fault(where, "shows nothing")
        if len({target["refId"] for target in panel["targets"]}) != len(panel["targets"]):
            fault(where, "has a refId twice")
        for source in [panel["datasource"], *(target["datasource"] for target in panel["targets"])]:
            if source["uid"] != f"${{{source['type']}}}":
                fault(where, f"names the data source {source['uid']}; only variables know it elsewhere")


def schema():
    """The fields that a record may have, and the words that some of them are limited to."""
    fields, words = set(), {}
    for kind in json.loads((queries.DOCS / "records.schema.json").read_text())["oneOf"]:
        for field, of in kind["properties"].items():
            fields.add(field)
            for each in (of, *of.get("oneOf", ())):
                words.setdefault(field, set()).update(each.get("enum", []), [each["const"]] if "const" in each else [])
    return fields, {field: allowed for field, allowed in words.items() if allowed}


def judge(parsed, record_fields, words, extra=()):
    """What is wrong with one LogQL query."""
    for after in parsed["errors"]:
        yield f"does not parse after {after!r}"
    known = LABELS | METADATA | set(parsed["fields"]) | set(parsed["made"])
    if "job" not in parsed["stream"]:
        yield "selects no job"
    for label in set(parsed["stream"]) - LABELS:
        yield f"selects by {label}, which is no label of the stream"
    for label in (set(parsed["used"]) | set(extra)) - known:
        yield f"uses {label}, which is neither a label nor structured metadata nor taken from the line"
    for field in set(parsed["fields"].values()) - record_fields:
        yield f"takes {field} from the line, which no record has"
    for label, value in parsed["values"]:
        field = parsed["fields"].get(label, label)
        if field in words and value not in words[field] | {".*"}:
            yield f"compares {label} with {value}, which it never is"


def parse(folder, exprs):
    command = ["node", str(pathlib.Path(__file__).with_name("logql.mjs")), folder]
    return json.loads(subprocess.run(command, input=json.dumps(exprs), text=True, capture_output=True, check=True).stdout)


def logql(folder, record_fields, words):
    found = [(where, queries.filled(expr), target) for where, expr, target in queries.of_dashboards("loki")]
    found += [(where, expr, {}) for where, expr in queries.of_documents("logql")]
    for (where, expr, target), parsed in zip(found, parse(folder, [expr for _, expr, _ in found])):
        extra = re.findall(r"{{(\w+)}}", target.get("legendFormat", ""))
        for step in target.get("panel", {}).get("transformations", []):
            if step["id"] == "filterFieldsByName":
                extra += step["options"]["include"]["names"]
        for what in judge(parsed, record_fields, words, extra):
            fault(where, f"{what}\n    {expr}")
    return len(found)


def selftest(folder, words):
    """A test that cannot fail proves nothing: these must."""
    broken = {
        '{job="postern"} | jsn': "does not parse",
        'sum by (user (count_over_time({job="postern"}[5m]))': "does not parse",
        '{job="postern"} | json a="count" | b="1"': "uses b",
        '{job="postern", user="ana"}': "selects by user",
        '{job="postern"} | json a="cuont"': "takes cuont",
        'sum by (usr) (count_over_time({job="postern"}[5m]))': "uses usr",
        '{job="postern"} | label_format a=`{{.usr}}`': "uses usr",
        'sum(sum_over_time({job="postern"} | unwrap size [5m]))': "uses size",
        '{job="postern", verdict="denied"}': "compares verdict with denied",
        '{job="postern"} | close_reason=~`policy|sesion`': "compares close_reason with sesion",
    }
    for (expr, expected), parsed in zip(broken.items(), parse(folder, list(broken))):
        said = list(judge(parsed, {"count"}, words))
        if not any(expected in each for each in said):
            fault("selftest", f"{expr} should be refused with {expected!r}, and got {said}")


def main(folder):
    record_fields, words = schema()
    for name, board in queries.dashboards().items():
        structure(f"{name}.json", board)
    selftest(folder, words)
    count = logql(folder, record_fields, words)
    print("\n".join(faults) or f"{count} LogQL queries parse, and every name in them is known")
    return 1 if faults or not count else 0


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
