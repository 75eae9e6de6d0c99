//! The server inside the tunnels: its connections, and what it refused.

use super::{counter, gauge, one};
use crate::inside::Facts;
use prometheus::proto::MetricFamily;

pub(super) fn of(inside: &Facts) -> Vec<MetricFamily> {
    let stack = inside.stack;
    let answers = inside.answers.iter().enumerate();
    let answers: Vec<_> = answers
        .map(|(worker, waiting)| (worker.to_string(), *waiting))
        .collect();
    vec![
        gauge(
            "postern_control_connections",
            "Connections of devices to the control API, by whether their handshake is over.",
            vec![
                (
                    vec![("state", "open")],
                    stack.connections.saturating_sub(stack.half_open) as u64,
                ),
                (vec![("state", "half-open")], stack.half_open as u64),
            ],
        ),
        counter(
            "postern_control_connections_total",
            "Connections to the control API whose handshake was completed.",
            one(stack.opened),
        ),
        counter(
            "postern_control_dropped_total",
            "Packets, connections and requests of the control API that went no further, by reason.",
            vec![
                (vec![("reason", "crowded")], stack.crowded),
                (vec![("reason", "nobody")], stack.nobody),
                (vec![("reason", "strange")], stack.strange),
                (vec![("reason", "timed-out")], stack.timed_out),
                (vec![("reason", "unanswered")], stack.unanswered),
                (vec![("reason", "queue-in")], inside.lost_in),
                (vec![("reason", "queue-out")], inside.lost_out),
                (vec![("reason", "busy")], inside.busy),
                (vec![("reason", "too-slow")], inside.too_slow),
            ],
        ),
        gauge(
            "postern_control_requests",
            "Requests to the control API at this moment.",
            one(inside.in_flight),
        ),
        gauge(
            "postern_control_answers",
            "Packets of the control API that wait for a worker to send them.",
            answers
                .iter()
                .map(|(worker, waiting)| (vec![("worker", worker.as_str())], *waiting))
                .collect(),
        ),
    ]
}
