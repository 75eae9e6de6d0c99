"""Every query of the dashboards, the alerts' annotations aside, with the variables filled in as Grafana does."""

import json
import pathlib
import re

DOCS = pathlib.Path(__file__).parents[2] / "docs"
HERE = DOCS / "observability"
VARIABLES = {"gateway": ".*", "verdict": ".*", "user": ".*", "target": ".*", "__rate_interval": "1m", "__range": "1h",
             "__auto": "1m", "__interval": "1m"}


def dashboards():
    return {name: json.loads((HERE / "dashboards" / f"{name}.json").read_text()) for name in ("flows", "gateway")}


def filled(query):
    return re.sub(r"\$\{?(\w+)\}?", lambda found: VARIABLES[found[1]], query)


def of_dashboards(kind):
    """(where, query as written, target) for each query of this kind of data source."""
    for name, board in dashboards().items():
        for panel in board["panels"]:
            for target in panel.get("targets", []):
                if target["datasource"]["type"] == kind:
                    yield f"{name}.json, {panel['title']!r} {target['refId']}", target["expr"], {"panel": panel, **target}
        for note in board["annotations"]["list"]:
            if note["datasource"]["type"] == kind:
                yield f"{name}.json, annotation {note['name']!r}", note["expr"], note


def of_documents(language):
    """(where, query) for each fenced block of this language in the documents."""
    for file in ("observability.md", "exporters.md", "joining.md"):
        for number, block in enumerate(re.findall(rf"^```{language}\n(.*?)^```", (DOCS / file).read_text(), re.M | re.S), 1):
            for line in filter(None, block.split("\n\n")):
                yield f"{file}, block {number} of {language}", line.strip()
