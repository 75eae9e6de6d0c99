"""Is the gateway well: from its metrics (Prometheus)."""

from parts import (GREEN, LINES, ORANGE, PACKETS, PER_SECOND, PROMETHEUS, RED, YELLOW, all_of, dashboard, data_source, prom, series,
                   stat, states)

OF = 'gateway=~"$gateway"'


def value(name, labels=""):
    return f"{name}{{{OF}{', ' + labels if labels else ''}}}"


def total(name, labels=""):
    return f"sum({value(name, labels)})"


def rate(name, labels="", by=""):
    return f"sum{f' by ({by})' if by else ''} (rate({value(name, labels)}[$__rate_interval]))"


def grown(name, labels="", window="$__range"):
    return f"sum(increase({value(name, labels)}[{window}]))"


def quantile(q, name):
    return f"histogram_quantile({q}, {rate(name + '_bucket', by='le')})"


def both(*names):
    return [prom(rate(name, by="direction"), "{{direction}}") for name in names]


ZERO_IS_GOOD = [(None, GREEN), (1, RED)]
ONE_IS_GOOD = [(None, RED), (1, GREEN)]


def yes_no(yes, no):
    return {"mappings": [{"type": "value", "options": {"0": {"text": no, "index": 0}, "1": {"text": yes, "index": 1}}}]}


def build():
    health = ("Health", 4, [
        stat("Gateways", "Gateways that answer Prometheus.", prom(f'sum(up{{job="postern", {OF}}})'), width=3, steps=ONE_IS_GOOD),
        stat("Version", "What runs; two versions during an upgrade.",
             prom(f'count by (version) ({value("postern_build_info")})', "{{version}}"), "none", 3, text="name"),
        stat("Running for", "Since the youngest gateway's start.",
             prom(f'time() - max({value("process_start_time_seconds", "job=" + chr(34) + "postern" + chr(34))})'), "s", 3),
        stat("Devices connected", "Devices with an established session.", prom(total("postern_devices_connected"), "connected"),
             width=3, graph="area"),
        stat("Policy", "Whether the last attempt to load the policy succeeded. If not, the former one is in force.",
             prom(f'min({value("postern_policy_reload_success")})'), "none", 3, ONE_IS_GOOD,
             defaults=yes_no("loaded", "refused")),
        stat("Flow log", "Whether records can be written.", prom(f'min({value("postern_log_writable")})'), "none", 3, ONE_IS_GOOD,
             defaults=yes_no("writable", "failing")),
        stat("Records lost", "In the time shown, in crashes as well. Anything but 0 is an alert.",
             prom(f'{grown("postern_records_lost_total")} + {grown("postern_records_lost_in_crashes_total")}'), width=3,
             steps=ZERO_IS_GOOD, defaults={"decimals": 0}),
        stat("Slowest exporter", "Age of the oldest record that the slowest exporter has not delivered.",
             prom(f'max({value("postern_export_lag_seconds")})'), "s", 3, [(None, GREEN), (60, YELLOW), (300, RED)]),
    ])
    traffic = ("Devices and traffic", 9, [
        series("Devices", "Enrolled, and those with an established session.",
               [prom(total("postern_devices"), "enrolled"), prom(total("postern_devices_connected"), "connected")], width=8,
               calcs=("lastNotNull", "max")),
        series("Throughput", "Inner bytes forwarded, as bits per second.",
               [prom(f'8 * {rate("postern_bytes_total", by="direction")}', "{{direction}}")], "bps", 8),
        series("Packets", "Inner packets forwarded.", both("postern_packets_total"), PACKETS, 8),
        series("Packets dropped by reason", "Packets that went no further; the reasons: docs/observability.md.",
               [prom(f'{rate("postern_packets_dropped_total", by="reason")} > 0', "{{reason}}")], PACKETS, 12, stack=True, many=True),
        series("Handshakes by outcome", "`cookie` and `handed` without `established` is a flood; `gave-up` is a device that went silent.",
               [prom(rate("postern_handshakes_total", by="outcome"), "{{outcome}}")], PER_SECOND, 12, many=True),
    ])
    verdicts = ("Verdicts", 9, [
        series("Attempts", "Flows allowed and attempts denied per second.",
               [prom(rate("postern_flows_total", by="verdict"), "{{verdict}}")], PER_SECOND, 8),
        series("Live flows", "All, and those whose target has not answered.",
               [prom(total("postern_flows_open"), "open"), prom(total("postern_flows_half_open"), "half-open")], width=8,
               calcs=("lastNotNull", "max")),
        series("Exceptions", "Verdicts in which a policy under trial differs from the live one, and uses of break-glass; no line above 0 "
               "is as it should be.",
               [prom(f'sum by (rule) (increase({value("postern_shadow_verdicts_total")}[$__rate_interval])) or vector(0)',
                     "shadow {{rule}}"),
                prom(f'{grown("postern_break_glass_total", window="$__rate_interval")} or vector(0)', "break-glass"),
                prom(f'{grown("postern_break_glass_flows_total", window="$__rate_interval")} or vector(0)', "flows by break-glass"),
                prom(f'sum by (state) ({value("postern_grants")}) or vector(0)', "grants {{state}}")],
               width=8, calcs=("sum",), defaults={"decimals": 0}, expected=1),
        series("Time to a verdict", "How long it takes to judge a new flow.",
               [prom(quantile(q, "postern_verdict_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)], "s", 8),
        series("From change to cut", "From a change of the facts to the end of each flow that they no longer allow. The promise is 1 s; "
               "nothing is shown where nothing was cut.",
               [prom(quantile(q, "postern_change_to_cut_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)], "s", 8,
               steps=[(None, GREEN), (1, RED)]),
        series("Policy loads", "Attempts to load a policy, by result.",
               [prom(f'sum by (result) (increase({value("postern_policy_reloads_total")}[$__rate_interval]))', "{{result}}")],
               width=5, calcs=(), defaults={"decimals": 0}),
        series("Names of targets", "Time since each name was last resolved. A line that grows beyond an hour is a name that answers no more; "
               "its last addresses stay.",
               [prom(f'max by (name) ({value("postern_target_name_age_seconds")})', "{{name}}")], "s", 6,
               calcs=("lastNotNull",), many=True, steps=[(None, GREEN), (3900, RED)]),
        series("Names not resolved", "Names that were asked for in vain.",
               [prom(f'sum by (name) (increase({value("postern_target_name_failures_total")}[$__rate_interval]))', "{{name}}")],
               width=4, calcs=("sum",), defaults={"decimals": 0}, many=True, expected=1),
        stat("Policy in force for", "Since the youngest policy was put in force.",
             prom(f'time() - max({value("postern_policy_loaded_timestamp_seconds")})'), "s", 3),
        stat("Policy file", "Whether the file on disk is what is in force, at every gateway.",
             prom(f'1 - max({value("postern_policy_file_differs")})'), "none", 3, ONE_IS_GOOD,
             defaults=yes_no("in force", "differs")),
        stat("To be confirmed within", "Until a change of the policy is taken back, unless somebody confirms it. 0: none waits.",
             prom(f'clamp_min(max({value("postern_policy_pending_deadline_timestamp_seconds")}) - time(), 0)'), "s", 3),
    ])
    log = ("Flow log", 9, [
        series("Records", "Made by the workers, written to the log, lost.",
               [prom(rate(f"postern_records_{what}_total"), what) for what in ("made", "written", "lost")], LINES, 8),
        series("Attempts not yet written", "Attempts whose record waits, by where. The rest of seen = written + lost + waiting is `unaccounted`: "
               "0, but for what happens during the scrape.",
               [prom(f'sum by (where) ({value("postern_flows_waiting")})', "{{where}}"),
                prom(" - ".join([total("postern_flows_seen_total"), total("postern_flows_written_total"),
                                 total("postern_flows_lost_total"), total("postern_flows_waiting")]), "unaccounted")],
               width=8, calcs=("lastNotNull", "max"), defaults={"min": None}),
        series("Behind the disk", "Records written that a power cut could still take back: head - synced.",
               [prom(f'{total("postern_log_head")} - {total("postern_log_synced")}', "not synced")], width=8,
               calcs=("lastNotNull", "max")),
        series("Time to sync", "How long one fsync takes.",
               [prom(quantile(q, "postern_log_sync_seconds"), f"p{q * 100:g}") for q in (0.5, 0.99)], "s", 6, calcs=()),
        series("Egress in records", "Opening and closing records that say what the target saw as the source, and those that do not; without it a "
               "target's own log joins to nobody.",
               [prom(rate("postern_egress_total", by="result"), "{{result}}")], LINES, 5, calcs=()),
        series("Size on disk", "Of all segments.", [prom(total("postern_log_bytes"), "bytes")], "bytes", 4, calcs=()),
        stat("Segments", "Files of the spool.", prom(total("postern_log_segments"), "segments"), width=3),
        stat("Reaches back", "Age of the oldest record on disk.",
             prom(f'time() - min({value("postern_log_oldest_timestamp_seconds")} > 0)'), "s", 3),
        stat("Removed, cut off", "In the time shown: records removed for space that an exporter had not delivered, and bytes of torn lines cut "
             "off at a start.",
             prom(f'{grown("postern_log_removed_unacknowledged_total")} + {grown("postern_log_repaired_bytes_total")}'), width=3,
             steps=ZERO_IS_GOOD, defaults={"decimals": 0}),
    ])
    export = ("Exporters", 9, [
        states("Exporters", "Whether the last delivery worked.",
               prom(f'min by (exporter) ({value("postern_export_up")})', "{{exporter}}"), 6, {0: ("failing", RED), 1: ("up", GREEN)}),
        series("Lag", "Records written that are not delivered.",
               [prom(f'sum by (exporter) ({value("postern_export_lag_records")})', "{{exporter}}")], width=9,
               calcs=("lastNotNull", "max")),
        series("Lag in time", "Age of the oldest record that is not delivered.",
               [prom(f'max by (exporter) ({value("postern_export_lag_seconds")})', "{{exporter}}")], "s", 9,
               calcs=("lastNotNull", "max"), steps=[(None, GREEN), (300, RED)]),
        series("Delivered", "Records acknowledged per second.",
               [prom(rate("postern_export_acknowledged_total", by="exporter"), "{{exporter}}")], LINES, 8),
        series("Retries", "Deliveries that had to be repeated.",
               [prom(rate("postern_export_retries_total", by="exporter"), "{{exporter}}")], PER_SECOND, 8),
        series("Parked and missed", "Since the start. Parked: records that a server refused for ever; they are in parked-NAME.jsonl. Missed: "
               "records that were removed for space before they could be delivered.",
               [prom(f'sum by (exporter) ({value(f"postern_export_{what}_total")})', f"{{{{exporter}}}} {what}")
                for what in ("parked", "missed")], width=8, calcs=("lastNotNull", "max"), many=True, expected=1),
    ])
    resources = ("Resources", 9, [
        series("Queues and tables", "How full each bounded one is.",
               [prom(f'max by (queue) ({value("postern_queue_depth")} / {value("postern_queue_capacity")})', "{{queue}}")],
               "percentunit", 12, calcs=("lastNotNull", "max"), defaults={"max": 1, "decimals": 1}, many=True,
               steps=[(None, GREEN), (0.8, RED)]),
        series("Hints displaced", "Flows whose record says nothing of their first bytes: too many began at once.",
               [prom(rate("postern_hints_displaced_total"), "displaced")], PER_SECOND, 4, calcs=(), expected=1),
        states("Offloads", "Whether packets go together in each half. Off by itself is the kernel's refusal.",
               prom(f'min by (half) ({value("postern_offload")})', "{{half}}"), 4, {0: ("off", ORANGE), 1: ("on", GREEN)}),
        series("Offload fallbacks", "Refusals by the kernel of packets together, which then went one by one.",
               [prom(rate("postern_offload_fallbacks_total", by="half"), "{{half}}")], PER_SECOND, 4, calcs=(), expected=1),
        series("Memory", "Resident memory of the process.",
               [prom(f'process_resident_memory_bytes{{job="postern", {OF}}}', "{{instance}}")], "bytes", 6,
               calcs=()),
        series("Processor", "Cores in use.", [prom(f'rate(process_cpu_seconds_total{{job="postern", {OF}}}[$__rate_interval])',
                                                   "{{instance}}")], "short", 6, calcs=()),
        series("Packets by worker", "One line far above the others is a device that outgrows its worker.",
               [prom(rate("postern_worker_packets_total", by="worker"), "worker {{worker}}")], PACKETS, 4, calcs=()),
        series("Turns by worker", "How often each worker looked for work; many turns with few packets each is the cost of small loads.",
               [prom(rate("postern_worker_turns_total", by="worker"), "worker {{worker}}")], PER_SECOND, 4, calcs=()),
        series("Devices by worker", "Devices that may connect, by the worker that serves them.",
               [prom(f'sum by (worker) ({value("postern_worker_devices")})', "worker {{worker}}")], width=4,
               calcs=()),
    ])
    identity = ("Identity", 9, [
        series("Logins and sessions", "Sessions that live, and logins by outcome.",
               [prom(total("postern_sessions"), "sessions"),
                prom(f'sum by (outcome) (increase({value("postern_logins_total")}[$__rate_interval]))', "{{outcome}}")], width=8,
               calcs=("lastNotNull", "max"), many=True),
        series("Control API", "Requests by answer, and posture reports.",
               [prom(rate("postern_control_requests_total", by="code"), "{{code}}"),
                prom(rate("postern_posture_reports_total"), "reports")], PER_SECOND, 8, many=True),
        series("Control API, at this moment", "Connections, requests under way, and answers that wait for a worker.",
               [prom(f'sum by (state) ({value("postern_control_connections")})', "{{state}}"),
                prom(total("postern_control_requests"), "requests"), prom(total("postern_control_answers"), "answers")], width=8,
               calcs=("lastNotNull", "max")),
        series("Control API, refused", "What went no further, by reason, and what a throw-away key tried beyond what is recorded one by "
               "one; beside them, connections.",
               [prom(rate("postern_control_dropped_total", by="reason"), "{{reason}}"),
                prom(rate("postern_control_forbidden_unrecorded_total"), "forbidden, unrecorded"),
                prom(rate("postern_control_connections_total"), "connections")], PER_SECOND, 12, many=True),
        series("Audit", "Events by what was done and what came of it; lines written and lost. Any lost is an alert.",
               [prom(f'{rate("postern_audit_events_total", by="action, outcome")} > 0', "{{action}} {{outcome}}"),
                prom(rate("postern_audit_written_total"), "written"), prom(rate("postern_audit_lost_total"), "lost")], PER_SECOND, 12,
               many=True),
    ])
    return dashboard(
        "postern-gateway", "Postern: gateway", "Is the gateway well: devices, traffic, verdicts, identity, flow log, exporters, resources.",
        [data_source("prometheus", "Prometheus", "prometheus"),
         all_of("gateway", "Gateway", PROMETHEUS, {"query": "label_values(postern_build_info, gateway)", "qryType": 1, "refId": "gateway"},
                "label_values(postern_build_info, gateway)")],
        [health, traffic, verdicts, identity, log, export, resources])
