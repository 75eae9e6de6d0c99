"""Who reached what, and who was refused: from the records (Loki), with rates from the counters (Prometheus)."""

from parts import (GREEN, LOKI, ORANGE, PER_SECOND, RED, YELLOW, all_of, choice, dashboard, data_source, lines, logs, loki, prom,
                   series, stat, text, top)

WHO = "| user=~`$user` | target=~`$target`"
FLOWS = '{job="postern", kind="flow", gateway=~"$gateway", verdict=~"$verdict"} ' + WHO
OPENED = '{job="postern", kind="flow", gateway=~"$gateway", verdict=~"$verdict", verdict="allow"} | state="open" ' + WHO
DENIED = '{job="postern", kind="flow", gateway=~"$gateway", verdict="deny"} | state="denied" ' + WHO
CLOSED = '{job="postern", kind="flow", gateway=~"$gateway", verdict="allow"} | state="closed" ' + WHO
AUDIT = '{job="postern", kind="audit", gateway=~"$gateway"} | user=~`$user`'
CUTS = "close_reason=~`policy|session|posture|revoked|grant-ended|killed`"

# An open record is one attempt, a denied one stands for `count` of them. What is structured metadata is not taken from the line,
# and no query reads a line twice: reading is what a query over many records waits for.
ATTEMPTS = FLOWS + ' | state=~`open|denied` | json attempts="count" | label_format attempts=`{{or .attempts "1"}}`'
REFUSALS = DENIED + ' | json attempts="count"'
REFUSED = REFUSALS.replace('verdict="deny"', 'verdict=~"$verdict", verdict="deny"')   # where the verdict's filter counts
MOVED = CLOSED + ' | json sent="bytes_out", received="bytes_in" | label_format size=`{{add .sent .received}}`'
SCANS = DENIED + ' |= `"scan":true`'
# A machine has no user, an address outside of all targets no name: then the device and the address stand for them. (A filter
# for `.*` keeps what has no user or target.)
BY_USER = " | label_format who=`{{or .user .device}}`"
BY_TARGET = ' | json address="dst_address" | label_format where=`{{or .target .address "many addresses"}}`'


def count(records, window, by="", field="attempts"):
    group = f" by ({by})" if by else ""
    return f"sum{group} (sum_over_time({records} | unwrap {field} [{window}]))"


def number(records, window, by=""):
    group = f" by ({by})" if by else ""
    return f"sum{group} (count_over_time({records} [{window}]))"


def largest(expr):
    return f"topk(15, {expr})"


def now(expr, legend=""):
    return loki(expr, legend, "instant")


def or_none(expr):
    return f"({expr} or vector(0))"


def build():
    denial = {"time": "Time", "gateway": "Gateway", "user": "User", "device": "Device", "target": "Target",
              "dst_address": "Address", "dst_port": "Port", "deny_reason": "Reason", "failed_condition": "Failed condition",
              "nearest_rule": "Nearest rule", "attempts": "Attempts"}
    fields = ('| json time="time", dst_address="dst_address", dst_port="dst_port", '
              'failed_condition="failed_condition", nearest_rule="nearest_rule", attempts="count"')
    end = {"time": "Time", "gateway": "Gateway", "user": "User", "device": "Device", "target": "Target",
           "dst_address": "Address", "dst_port": "Port", "rule": "Rule", "close_reason": "Reason",
           "failed_condition": "Failed condition", "duration_ms": "Lasted", "bytes_out": "To target", "bytes_in": "From target"}
    end_fields = ('| json time="time", dst_address="dst_address", dst_port="dst_port", failed_condition="failed_condition", '
                  'duration_ms="duration_ms", bytes_out="bytes_out", bytes_in="bytes_in"')
    scan = {"time": "Time", "gateway": "Gateway", "user": "User", "device": "Device", "protocol": "Protocol",
            "dst_port": "Port", "dst_ports": "Ports", "deny_reason": "Reason", "attempts": "Attempts"}
    scan_fields = '| json time="time", protocol="protocol", dst_port="dst_port", dst_ports="dst_ports", attempts="count"'

    at_a_glance = (None, 4, [
        stat("Attempts", "Attempts to reach a target, allowed and denied, in the time shown.",
             now(or_none(number(OPENED, "$__range")) + " + " + or_none(count(REFUSED, "$__range")))),
        stat("Denied", "Attempts that were refused. Scans count every packet.", now(count(REFUSALS, "$__range")),
             steps=[(None, GREEN), (1, ORANGE)]),
        stat("Users", "Users who attempted anything; a machine counts as its device.",
             now(f"count({number(FLOWS + BY_USER, '$__range', 'who')})")),
        stat("Open now", "Live flows of all users (metric; the user and target filters do not apply).",
             prom('sum(postern_flows_open{gateway=~"$gateway"})', "open"), graph="area"),
        stat("Cut", "Flows that were ended because something changed: policy, session, posture, revocation, grant, or an admin.",
             now(number(f"{CLOSED} | {CUTS}", "$__range")), steps=[(None, GREEN), (1, YELLOW)]),
        stat("Scans", "Records that stand for attempts of one device at many addresses.",
             now(number(SCANS, "$__range")), steps=[(None, GREEN), (1, RED)]),
    ])
    rates = ("Rates (all users)", 9, [
        series("Allowed by rule", "Flows opened per second, by the rule that allowed them (metric; exact even while Loki lags).",
               [prom('sum by (rule) (rate(postern_flows_total{gateway=~"$gateway", verdict="allow"}[$__rate_interval])) > 0',
                     "{{rule}}")], PER_SECOND, stack=True),
        series("Denied by rule", "Attempts refused per second, by the rule that decided; `default` is no rule at all.",
               [prom('sum by (rule) (rate(postern_flows_total{gateway=~"$gateway", verdict="deny"}[$__rate_interval])) > 0',
                     "{{rule}}")], PER_SECOND, stack=True, shades=RED),
    ])
    who = ("Who reached what", 9, [
        top("Attempts by user", "Allowed and denied, as the verdict filter says.",
            now(largest(count(ATTEMPTS + BY_USER, "$__range", "who")), "{{who}}"), "User"),
        top("Attempts by target", "By the policy's name; the address where no target has it.",
            now(largest(count(ATTEMPTS + BY_TARGET, "$__range", "where")), "{{where}}"), "Target"),
        top("Attempts by rule", "The rule that decided; `default` is no rule at all.",
            now(largest(count(ATTEMPTS, "$__range", "rule")), "{{rule}}"), "Rule"),
        series("Attempts by verdict", "From the records, so the user and target filters apply.",
               [loki(number(OPENED, "$__auto", "verdict"), "{{verdict}}"), loki(count(REFUSED, "$__auto", "verdict"), "{{verdict}}")],
               stack=True, bars=True, calcs=("sum",), interval="1m", overrides=[{"matcher": {"id": "byName", "options": name}, "properties": [
                   {"id": "color", "value": {"mode": "fixed", "fixedColor": colour}}]}
                   for name, colour in (("allow", GREEN), ("deny", RED))]),
        top("Bytes by user", "Both ways, of flows that ended in the time shown.",
            now(largest(count(MOVED + BY_USER, "$__range", "who", "size")), "{{who}}"), "User", "bytes", "Bytes", width=6, colour=GREEN),
        top("Bytes by target", "Both ways, of flows that ended in the time shown.",
            now(largest(count(MOVED + BY_TARGET, "$__range", "where", "size")), "{{where}}"), "Target", "bytes", "Bytes", width=6, colour=GREEN),
    ])
    denials = ("Denials", 9, [
        series("Denied by reason", "`policy`: no rule allows it. The others: docs/records.md.",
               [loki(count(REFUSALS, "$__auto", "deny_reason"), "{{deny_reason}}")], stack=True, bars=True, calcs=("sum",),
               interval="1m", shades=RED, many=True),
        top("Denied by user", "Attempts that were refused.",
            now(largest(count(REFUSALS + BY_USER, "$__range", "who")), "{{who}}"), "User", width=6, colour=RED),
        top("Denied by target", "What was asked for, by name or address.",
            now(largest(count(REFUSALS + BY_TARGET, "$__range", "where")), "{{where}}"), "Target", width=6, colour=RED),
        lines("Last denials", "The newest 200. The nearest rule would have allowed, had the failed condition held.",
              f"{DENIED} {fields}", denial, {"attempts": "short"}),
    ])
    ends = ("How flows end", 9, [
        series("Close reasons", "Flows that ended, by reason.", [loki(number(CLOSED, "$__auto", "close_reason"), "{{close_reason}}")],
               stack=True, bars=True, calcs=("sum",), interval="1m", many=True),
        series("Cuts", "Flows that were ended because their facts changed: by policy, session, posture, revocation, grant or an admin.",
               [loki(number(f"{CLOSED} | {CUTS}", "$__auto", "close_reason"), "{{close_reason}}")], stack=True, bars=True,
               calcs=("sum",), interval="1m", shades=ORANGE),
        lines("Last cuts", "The newest 200 flows that were cut, and the condition that no longer holds.",
              f"{CLOSED} | {CUTS} {end_fields}", end, {"duration_ms": "ms", "bytes_out": "bytes", "bytes_in": "bytes"}),
    ])
    scans = ("Scans", 9, [
        lines("Scans", "One record stands for many addresses; its ports are the first 16.",
              f"{SCANS} {scan_fields}", scan, {"attempts": "short"}),
    ])
    change = {"time": "Time", "gateway": "Gateway", "actor": "By", "user": "User", "device": "Device", "from": "From",
              "action": "Action", "object": "Object", "outcome": "Outcome", "reason": "Reason"}
    change_fields = '| json time="time", actor="actor", from="from", object="object", reason="reason"'
    changes = ("Changes", 9, [
        series("Refused and failed", "Joins, logins and commands that were refused or failed.",
               [loki(number(f"{AUDIT} | outcome!=`done`", "$__auto", "action"), "{{action}}")], stack=True, bars=True,
               calcs=("sum",), interval="1m", shades=RED, width=24),
        lines("Who changed what", "The newest 200: enrolment, logins, approval, revocation, an admin's commands.",
              f"{AUDIT} {change_fields}", change),
    ])
    records = ("Records", 10, [
        logs("Records", "The lines as they are on disk; expand one for its fields.", FLOWS),
    ])
    stream = '{job="postern"}'
    return dashboard(
        "postern-flows", "Postern: flows and denials", "Who reached what through the gateway, who was refused and why.",
        [data_source("prometheus", "Prometheus", "prometheus"), data_source("loki", "Loki", "loki"),
         all_of("gateway", "Gateway", LOKI, {"label": "gateway", "refId": "gateway", "stream": stream, "type": 1},
                f"label_values({stream}, gateway)"),
         choice("verdict", "Verdict", ["allow", "deny"]),
         text("user", "User", "A regular expression for the whole name: ana@example.com, or .*@example.com"),
         text("target", "Target", "A regular expression for the target's whole name, as in the policy")],
        [at_a_glance, who, denials, ends, scans, changes, rates, records])
