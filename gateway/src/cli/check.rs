//! `check`: everything that would stop the gateway or let somebody in, found by the code that
//! runs it.

use super::output::{self, Output};
use super::{Failure, Where};
use crate::admin::client::Client;
use crate::config::Config;
use crate::plane::{host_config, steering};
use crate::{export, key_file, login, policy_watch};
use clap::Args;
use ipnet::IpNet;
use postern_engine::policy::Policy;
use postern_io::host::{self, Severity};
use serde::Serialize;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

#[derive(Debug, Args)]
pub(super) struct Check {
    #[command(flatten)]
    place: Where,
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

/// One thing to know.
#[derive(Debug, Serialize)]
struct Finding {
    severity: Severity,
    /// `config`, `key`, `policy`, `files`, `exporters`, `host`.
    area: &'static str,
    what: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    help: String,
}

impl Check {
    /// Exit code 0: nothing worse than a warning; 1: keys, files or host; 2: configuration or
    /// policy.
    pub(super) async fn obey(self) -> Result<u8, Failure> {
        let mut findings = Vec::new();
        match Config::load(&self.place.config) {
            Ok(config) => {
                let running = Client::new(&config.admin_socket).is_running().await;
                findings.extend(config_findings(&config));
                findings.extend(key_findings(&config));
                findings.extend(policy_findings(&config));
                findings.extend(file_findings(&config));
                findings.extend(exporter_findings(&config));
                findings.extend(login_findings(&config));
                findings.extend(host_findings(&config, running));
                findings.extend(worker_findings(&config));
            }
            Err(error) => findings.extend(
                error
                    .lines()
                    .into_iter()
                    .map(|line| found(Severity::Error, "config", line, "")),
            ),
        }
        match self.output {
            Output::Json => output::json(&findings)?,
            Output::Table => show(&findings)?,
        }
        Ok(code(&findings))
    }
}

fn config_findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    if config.endpoints.is_empty() {
        findings.push(found(
            Severity::Warning,
            "config",
            "`endpoint` is not set, so no device can be added".into(),
            "write `endpoint: HOST:PORT`",
        ));
    }
    if let Some(metrics) = config.metrics.filter(|metrics| !metrics.ip().is_loopback()) {
        findings.push(found(
            Severity::Warning,
            "config",
            format!("metrics on {metrics} can be read by everybody who reaches it"),
            "use 127.0.0.1, or a firewall",
        ));
    }
    findings
}

fn key_findings(config: &Config) -> Vec<Finding> {
    let bad = key_file::read(&config.key_file).err();
    bad.map(|error| found(Severity::Error, "key", error.to_string(), ""))
        .into_iter()
        .collect()
}

fn policy_findings(config: &Config) -> Vec<Finding> {
    match policy_watch::load(&config.policy) {
        Ok(policy) => overlaps(config, &policy),
        Err(bad) => bad
            .problems
            .into_iter()
            .map(|problem| {
                let what = format!("{}: {problem}", config.policy.display());
                found(Severity::Error, "policy", what, "")
            })
            .collect(),
    }
}

/// Targets inside the pool are devices, and device to device is always denied.
fn overlaps(config: &Config, policy: &Policy) -> Vec<Finding> {
    let own: [IpNet; 2] = [config.pool.v4.into(), config.pool.v6.into()];
    policy
        .addresses()
        .into_iter()
        .filter(|net| own.iter().any(|own| own.contains(net) || net.contains(own)))
        .map(|net| {
            let what = format!("the policy names {net}, which overlaps the tunnel's own pool");
            found(
                Severity::Warning,
                "policy",
                what,
                "move the pool, or name other targets",
            )
        })
        .collect()
}

fn exporter_findings(config: &Config) -> Vec<Finding> {
    export::problems(&config.flow_log)
        .into_iter()
        .map(|problem| found(Severity::Warning, "exporters", problem, ""))
        .collect()
}

fn login_findings(config: &Config) -> Vec<Finding> {
    login::problems(&config.login)
        .into_iter()
        .map(|problem| found(Severity::Warning, "login", problem, ""))
        .collect()
}

fn file_findings(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let folder = &config.data_dir;
    match std::fs::metadata(folder) {
        Err(error) => {
            let help = format!("mkdir -m 700 {}", folder.display());
            let what = format!("data_dir {}: {error}", folder.display());
            findings.push(found(Severity::Error, "files", what, &help));
        }
        Ok(facts) if facts.mode() & 0o077 != 0 => {
            findings.push(open_to_others(folder, facts.mode(), "700"));
        }
        Ok(_) => {}
    }
    let store = config.store_path();
    if let Ok(facts) = std::fs::metadata(&store)
        && facts.mode() & 0o077 != 0
    {
        findings.push(open_to_others(&store, facts.mode(), "600"));
    }
    if let Ok(facts) = std::fs::metadata(&config.policy)
        && facts.mode() & 0o022 != 0
    {
        findings.push(open_to_others(&config.policy, facts.mode(), "go-w"));
    }
    findings
}

fn open_to_others(path: &Path, mode: u32, wanted: &str) -> Finding {
    let what = format!(
        "{} has mode {:04o} and lets others in",
        path.display(),
        mode & 0o7777
    );
    found(
        Severity::Warning,
        "files",
        what,
        &format!("chmod {wanted} {}", path.display()),
    )
}

/// What the host will make of it. A running gateway holds its own port.
fn host_findings(config: &Config, running: bool) -> Vec<Finding> {
    let port = if running {
        None
    } else {
        Some(config.listen_port)
    };
    host::check(&host_config(config), port)
        .into_iter()
        .map(|finding| found(finding.severity, "host", finding.what, &finding.remedy))
        .collect()
}

fn worker_findings(config: &Config) -> Option<Finding> {
    let (severity, what) = match steering(config.workers) {
        Ok(steered) => (Severity::Note, format!("one worker: {}", steered.fewer?)),
        Err(error) => (Severity::Error, format!("{error:#}")),
    };
    Some(found(severity, "host", what, ""))
}

fn found(severity: Severity, area: &'static str, what: String, help: &str) -> Finding {
    Finding {
        severity,
        area,
        what,
        help: help.to_owned(),
    }
}

fn show(findings: &[Finding]) -> Result<(), Failure> {
    for finding in findings {
        let severity = match finding.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        output::say(format_args!(
            "{severity}: {}: {}",
            finding.area, finding.what
        ))?;
        if !finding.help.is_empty() {
            output::say(format_args!("  help: {}", finding.help))?;
        }
    }
    let errors = findings
        .iter()
        .filter(|f| f.severity == Severity::Error)
        .count();
    match errors {
        0 => output::say("good: the gateway can run"),
        1 => output::say("1 error"),
        errors => output::say(format_args!("{errors} errors")),
    }
}

fn code(findings: &[Finding]) -> u8 {
    let errors = || {
        findings
            .iter()
            .filter(|finding| finding.severity == Severity::Error)
    };
    if errors().any(|finding| matches!(finding.area, "config" | "policy")) {
        2
    } else {
        u8::from(errors().next().is_some())
    }
}
