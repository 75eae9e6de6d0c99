//! `status`.

use super::output::{self, Output};
use super::{Failure, Where};
use crate::api::{NameView, Status, WorkerView};
use clap::Args;

#[derive(Debug, Args)]
pub(super) struct Verb {
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Verb {
    /// Exit code 1 when new flows cannot pass.
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let (_, client) = self.place.client()?;
        let status: Status = client.get("/v1/status").await?;
        match self.output {
            Output::Json => output::json(&status)?,
            Output::Table => show(&status)?,
        }
        Ok(u8::from(status.state != "ready"))
    }
}

fn show(status: &Status) -> Result<(), Failure> {
    let (policy, log, traffic) = (&status.policy, &status.flow_log, status.worker.traffic);
    let drops: u64 = status.worker.drops.values().sum();
    let mut facts = vec![
        ("state", status.state.clone()),
        ("version", status.version.clone()),
        (
            "up",
            format!(
                "{} (start number {})",
                output::span(status.uptime_seconds),
                status.boot
            ),
        ),
        ("public key", status.public_key.to_string()),
        (
            "listening",
            format!("{}/udp, tunnel on {}", status.listen_port, status.interface),
        ),
        (
            "devices",
            format!("{}, {} connected", status.devices, status.devices_connected),
        ),
        ("flows", format!("{} open", status.open_flows)),
        ("workers", workers(&status.worker.workers)),
        (
            "traffic",
            format!(
                "{} out, {} in, {drops} packets dropped",
                output::size(traffic.bytes_out),
                output::size(traffic.bytes_in)
            ),
        ),
        (
            "policy",
            format!(
                "{} (generation {}, since {})",
                policy.hash.get(..12).unwrap_or(&policy.hash),
                policy.generation,
                output::moment(Some(policy.loaded))
            ),
        ),
        (
            "records",
            format!(
                "{} written, {} waiting, {} lost; the log ends at {} {}",
                log.written,
                log.lag,
                log.lost,
                log.head,
                log.head_hash.get(..12).unwrap_or(&log.head_hash)
            ),
        ),
    ];
    facts.extend(log.exporters.iter().map(|one| {
        let (name, at, behind) = (&one.name, one.position, one.lag_records);
        let seconds = one.lag_seconds;
        (
            "exporter",
            format!(
                "{name}: at {at}, {behind} lines and {seconds}s behind, {} parked",
                one.parked
            ),
        )
    }));
    facts.extend(status.names.iter().map(|one| ("name", name(one))));
    let offload = &status.worker.offload;
    facts.extend(
        offload
            .iter()
            .map(|(half, state)| (half.as_str(), state.to_string())),
    );
    output::facts(&facts)?;
    if let Some(why) = &log.failing {
        output::say(format_args!("\nRECORDS CANNOT BE WRITTEN: {why}"))?;
    }
    for one in &log.exporters {
        if let Some(why) = &one.failing {
            output::say(format_args!("\nexporter {} fails: {why}", one.name))?;
        }
    }
    if let Some(pending) = &policy.pending {
        output::say(format_args!(
            "\nthe policy waits for its confirmation until {}, and is taken back then\n`postern \
             confirm TOKEN` on a laptop keeps it; `policy rollback` takes it back now",
            output::moment(Some(pending.deadline))
        ))?;
    }
    if let Some(why) = &policy.unwritten {
        output::say(format_args!(
            "\nPOLICY FILE AND POLICY IN FORCE DISAGREE: {why}"
        ))?;
    } else if policy.ok && !policy.file_in_force {
        output::say("\nthe policy file was edited and is not in force: `policy apply`")?;
    }
    if !policy.ok {
        output::say(format_args!(
            "\nTHE POLICY FILE ON DISK IS REFUSED, the old policy stays:"
        ))?;
        for error in &policy.errors {
            output::say(format_args!("{error}"))?;
        }
    }
    if !status.needs_restart.is_empty() {
        output::say(format_args!(
            "\nchanged in gateway.yaml and waiting for a restart: {}",
            status.needs_restart.join(", ")
        ))?;
    }
    for error in &status.config_errors {
        output::say(format_args!("\ngateway.yaml on disk is refused: {error}"))?;
    }
    for one in &status.names {
        if let Some(why) = &one.failing {
            let stays = match one.addresses.len() {
                0 => "it means nothing, and nobody reaches it",
                _ => "its last addresses stay",
            };
            output::say(format_args!(
                "\n{} cannot be resolved, {stays}: {why}",
                one.name
            ))?;
        }
        for refused in &one.refused {
            output::say(format_args!("\n{}: {refused}, and is not used", one.name))?;
        }
    }
    for error in &status.login_errors {
        output::say(format_args!("\n{error}"))?;
    }
    Ok(())
}

/// `api.example.com: 192.0.2.10, 192.0.2.11 (2m ago, good for 5m)`.
fn name(one: &NameView) -> String {
    let addresses: Vec<_> = one.addresses.iter().map(ToString::to_string).collect();
    let (name, addresses) = (&one.name, addresses.join(", "));
    match one.age {
        Some(age) => {
            let (age, ttl) = (output::span(age), output::span(one.ttl));
            format!("{name}: {addresses} ({age} ago, good for {ttl})")
        }
        None => format!("{name}: not resolved yet"),
    }
}

/// `1`, or `2, with 5 and 4 devices`.
fn workers(each: &[WorkerView]) -> String {
    let devices: Vec<String> = each.iter().map(|one| one.devices.to_string()).collect();
    match devices.split_last() {
        Some((last, others)) if !others.is_empty() => {
            let others = others.join(", ");
            format!("{}, with {others} and {last} devices", each.len())
        }
        _ => each.len().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_are_told_apart_when_there_are_several() {
        let of = |devices: &[u64]| {
            let each: Vec<_> = (0..)
                .zip(devices)
                .map(|(worker, devices)| WorkerView {
                    worker,
                    devices: *devices,
                    flows: 0,
                    packets: 0,
                    turns: 0,
                })
                .collect();
            workers(&each)
        };
        assert_eq!(of(&[9]), "1");
        assert_eq!(of(&[5, 4]), "2, with 5 and 4 devices");
        assert_eq!(of(&[3, 2, 2, 1]), "4, with 3, 2, 2 and 1 devices");
    }
}
