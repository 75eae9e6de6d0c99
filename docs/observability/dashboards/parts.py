"""What the dashboards are made of: queries, panels, rows, and how they are written down."""

import json

PROMETHEUS = {"type": "prometheus", "uid": "${prometheus}"}
LOKI = {"type": "loki", "uid": "${loki}"}
RED, ORANGE, YELLOW, GREEN, BLUE = "red", "orange", "yellow", "green", "blue"
# Counts per second; Grafana's own `pps` says 0.06 as 60 mp/s.
PER_SECOND, PACKETS, LINES = "count:/s", "count:p/s", "count:lines/s"


# --- Queries: a list of them is what a panel shows.

def prom(expr, legend="", instant=False):
    return {"datasource": PROMETHEUS, "editorMode": "code", "expr": expr, "legendFormat": legend or "__auto",
            "instant": instant, "range": not instant}


def loki(expr, legend="", kind="range"):
    return {"datasource": LOKI, "editorMode": "code", "expr": expr, "legendFormat": legend, "queryType": kind}


# --- Panels. `steps`: colours from a value on, e.g. [(None, GREEN), (1, RED)].

def panel(kind, title, description, queries, unit, width, steps=None, **more):
    defaults = {"unit": unit, "color": {"mode": "thresholds" if steps else "palette-classic"}}
    if steps:
        defaults["thresholds"] = {"mode": "absolute", "steps": [{"color": c, "value": v} for v, c in steps]}
    defaults.update(more.pop("defaults", {}))
    targets = [{"refId": chr(ord("A") + i), **query} for i, query in enumerate(queries)]
    return {"type": kind, "title": title, "description": description, "width": width,
            "datasource": queries[0]["datasource"], "fieldConfig": {"defaults": defaults, "overrides": more.pop("overrides", [])},
            "targets": targets, **more}


def stat(title, description, query, unit="short", width=4, steps=None, **more):
    """One number; of a range, its last value."""
    options = {"colorMode": "value" if steps else "none", "graphMode": more.pop("graph", "none"), "justifyMode": "auto",
               "orientation": "auto", "textMode": more.pop("text", "auto"),
               "reduceOptions": {"calcs": ["lastNotNull"], "fields": more.pop("fields", ""), "values": False}}
    return panel("stat", title, description, [query], unit, width, steps or [(None, BLUE)], options=options, **more)


def series(title, description, queries, unit="short", width=12, stack=False, bars=False, calcs=("mean", "max"), **more):
    """Values over time. `many`: more lines than a legend below has rows for. `shades` of one colour: all are bad. `expected`: what the
    axis shows at least."""
    custom = {"drawStyle": "bars" if bars else "line", "lineWidth": 1, "fillOpacity": 70 if bars else 12, "showPoints": "never",
              "stacking": {"mode": "normal" if stack else "none", "group": "A"}}
    if expected := more.pop("expected", None):
        custom["axisSoftMax"] = expected
    if more.get("steps"):
        custom["thresholdsStyle"] = {"mode": "line"}
    if shades := more.pop("shades", None):
        colours = {"mode": "shades", "fixedColor": shades}
    else:
        colours = {"mode": "palette-classic"}
    defaults = {"custom": custom, "min": 0, "color": colours, **more.pop("defaults", {})}
    options = {"legend": {"calcs": list(calcs), "displayMode": "table" if width >= 8 else "list",
                          "placement": "right" if more.pop("many", False) else "bottom", "showLegend": True},
               "tooltip": {"mode": "multi", "sort": "desc"}}
    return panel("timeseries", title, description, queries, unit, width, defaults=defaults, options=options, **more)


def states(title, description, query, width, mappings):
    """On and off over time."""
    shown = [{"type": "value", "options": {str(value): {"text": text, "color": colour, "index": value}
                                          for value, (text, colour) in mappings.items()}}]
    return panel("state-timeline", title, description, [query], "none", width, [(None, GREEN)],
                 defaults={"mappings": shown, "custom": {"fillOpacity": 70, "lineWidth": 0}},
                 options={"mergeValues": True, "rowHeight": 0.8, "showValue": "auto",
                          "legend": {"displayMode": "list", "placement": "bottom", "showLegend": False},
                          "tooltip": {"mode": "single"}})


def top(title, description, query, what, unit="short", value="Attempts", width=8, colour=BLUE):
    """A table of one number each, largest first."""
    gauge = [{"id": "custom.cellOptions", "value": {"type": "gauge", "mode": "basic", "valueDisplayMode": "text"}},
             {"id": "unit", "value": unit}, {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}, {"id": "min", "value": 0}]
    return panel("table", title, description, [query], unit, width,
                 overrides=[{"matcher": {"id": "byName", "options": value}, "properties": gauge}],
                 options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": value, "desc": True}]},
                 transformations=[
                     {"id": "reduce", "options": {"mode": "seriesToRows", "reducers": ["lastNotNull"]}},
                     {"id": "organize", "options": {"renameByName": {"Field": what, "Last *": value}}}])


def lines(title, description, expr, columns, units=None, width=24):
    """A table of records, newest first. `columns`: label to heading; the labels are those that `expr` leaves."""
    widths = {"time": 165, "gateway": 80, "user": 165, "device": 120, "target": 110, "dst_address": 125, "dst_port": 65,
              "protocol": 80, "rule": 150, "close_reason": 90, "deny_reason": 110, "nearest_rule": 190, "duration_ms": 80, "bytes_out": 90,
              "bytes_in": 105, "attempts": 90, "actor": 80, "from": 160, "action": 130, "object": 160, "outcome": 80}
    overrides = [{"matcher": {"id": "byName", "options": columns[label]},
                  "properties": [{"id": "custom.width", "value": wide}]} for label, wide in widths.items() if label in columns]
    overrides += [{"matcher": {"id": "byName", "options": columns[label]}, "properties": [{"id": "unit", "value": unit}]}
                  for label, unit in {"time": "time:YYYY-MM-DD HH:mm:ss", **(units or {})}.items()]
    overrides += [{"matcher": {"id": "byName", "options": columns[label]}, "properties": [{"id": "custom.inspect", "value": True}]}
                  for label in ("failed_condition",) if label in columns]
    numbers = [{"targetField": label, "destinationType": "number"} for label in (units or {})]
    return panel("table", title, description, [{**loki(expr), "maxLines": 200}], "none", width, overrides=overrides,
                 options={"showHeader": True, "cellHeight": "sm", "sortBy": [{"displayName": columns["time"], "desc": True}]},
                 transformations=[
                     {"id": "extractFields", "options": {"source": "labels", "format": "json", "replace": True}},
                     {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
                     {"id": "convertFieldType", "options": {"fields": {}, "conversions":
                         [{"targetField": "time", "destinationType": "time"}, *numbers]}},
                     {"id": "organize", "options": {"indexByName": {label: i for i, label in enumerate(columns)},
                                                    "renameByName": dict(columns)}}])


def logs(title, description, expr, width=24):
    """The lines themselves."""
    return panel("logs", title, description, [{**loki(expr), "maxLines": 200}], "none", width,
                 options={"dedupStrategy": "none", "enableLogDetails": True, "prettifyLogMessage": False, "showTime": True,
                          "sortOrder": "Descending", "wrapLogMessage": True})


# --- Variables.

def data_source(name, label, kind):
    return {"type": "datasource", "name": name, "label": label, "query": kind, "refresh": 1, "regex": "", "current": {}}


def all_of(name, label, source, query, definition):
    return {"type": "query", "name": name, "label": label, "datasource": source, "query": query, "definition": definition,
            "refresh": 2, "regex": "", "sort": 1, "includeAll": True, "allValue": ".*", "multi": True,
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]}}


def choice(name, label, values):
    return {"type": "custom", "name": name, "label": label, "query": ",".join(values), "includeAll": True, "allValue": ".*",
            "multi": False, "current": {"selected": True, "text": "All", "value": "$__all"},
            "options": [{"selected": True, "text": "All", "value": "$__all"},
                        *({"selected": False, "text": each, "value": each} for each in values)]}


def text(name, label, description, value=".*"):
    return {"type": "textbox", "name": name, "label": label, "description": description, "query": value,
            "current": {"selected": True, "text": value, "value": value},
            "options": [{"selected": True, "text": value, "value": value}]}


# --- The whole.

def dashboard(uid, title, description, variables, rows):
    """`rows`: (title or None, height, panels); panels stand side by side, 24 wide, and wrap."""
    panels, y = [], 0
    for title_of_row, height, members in rows:
        if title_of_row:
            panels.append({"type": "row", "title": title_of_row, "collapsed": False, "panels": [],
                           "gridPos": {"h": 1, "w": 24, "x": 0, "y": y}})
            y += 1
        x = 0
        for each in members:
            width = each.pop("width")
            if x + width > 24:
                x, y = 0, y + height
            each["gridPos"] = {"h": height, "w": width, "x": x, "y": y}
            panels.append(each)
            x += width
        y += height
    policy_loaded = {"datasource": PROMETHEUS, "enable": True, "iconColor": "purple", "name": "Policy put in force",
                     "expr": 'changes(postern_policy_generation{gateway=~"$gateway"}[1m]) > 0', "step": "60s",
                     "titleFormat": "policy put in force", "textFormat": "{{gateway}}"}
    return {
        "uid": uid, "title": title, "description": description, "tags": ["postern"], "schemaVersion": 41, "editable": True,
        "graphTooltip": 1, "refresh": "30s", "time": {"from": "now-6h", "to": "now"}, "timezone": "browser",
        "annotations": {"list": [policy_loaded]},
        "links": [{"type": "dashboards", "title": "Postern", "tags": ["postern"], "asDropdown": False, "includeVars": False,
                   "keepTime": True, "targetBlank": False}],
        "templating": {"list": variables},
        "panels": [{"id": number, **each} for number, each in enumerate(panels, 1)],
    }


def tidy(value, indent=0, before=0):
    """JSON with whatever fits a line on one line."""
    flat = json.dumps(value, ensure_ascii=False)
    if indent + before + len(flat) <= 130 or not isinstance(value, (dict, list)) or not value:
        return flat
    pad = " " * (indent + 2)
    if isinstance(value, dict):
        inner = [f"{pad}{json.dumps(k)}: {tidy(v, indent + 2, len(k) + 5)}" for k, v in value.items()]
        return "{\n" + ",\n".join(inner) + "\n" + " " * indent + "}"
    return "[\n" + ",\n".join(pad + tidy(v, indent + 2, 1) for v in value) + "\n" + " " * indent + "]"
