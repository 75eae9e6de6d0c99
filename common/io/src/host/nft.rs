//! The one nftables table that Postern owns, `inet postern`, and other firewalls that would drop
//! what it forwards. By the `nft` program: one transaction, all or nothing.

use super::HostError;
use super::gateway::{Egress, GatewayHostConfig};
use super::privileges::share_net_admin;
use serde_json::Value;
use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::process::{Command, Stdio};

/// Creates or replaces the table in one transaction.
///
/// # Errors
/// `nft` is missing, may not, or refuses.
pub fn apply(config: &GatewayHostConfig) -> Result<(), HostError> {
    nft(
        "create the table `inet postern`",
        &["-f", "-"],
        &ruleset(config),
    )
    .map(drop)
}

/// Removes the table; one that is not there is no error.
///
/// # Errors
/// `nft` is missing, may not, or refuses.
pub fn destroy() -> Result<(), HostError> {
    let text = "add table inet postern\ndelete table inet postern\n";
    nft("remove the table `inet postern`", &["-f", "-"], text).map(drop)
}

/// Whether `nft` can be run at all.
#[must_use]
pub fn installed() -> bool {
    Command::new("nft")
        .arg("--version")
        .env("PATH", search_path())
        .output()
        .is_ok()
}

/// A chain of somebody else that drops forwarded packets unless a rule of its own accepts them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForwardDrop {
    /// As nft writes it: `ip filter FORWARD`.
    pub chain: String,
    /// Who is likely behind it, and what to tell them.
    pub remedy: String,
}

/// Looks through the whole ruleset for chains at the forward hook that would drop what `interface`
/// forwards. A rule anywhere in the same table that accepts by this interface's name counts as a
/// remedy that was applied.
///
/// # Errors
/// `nft` is missing, may not, or refuses.
pub fn forward_drops(interface: &str) -> Result<Vec<ForwardDrop>, HostError> {
    let listing = nft("list the ruleset", &["-j", "list", "ruleset"], "")?;
    let listing: Value = serde_json::from_str(&listing).map_err(|error| HostError::Nft {
        what: "list the ruleset",
        message: format!("its JSON cannot be read: {error}"),
    })?;
    Ok(find_forward_drops(&listing, interface))
}

/// One statement a line: nft 1.0.6 (Debian 12) takes no two closing braces on one.
fn ruleset(config: &GatewayHostConfig) -> String {
    let tun = &config.interface;
    let mut text = String::from("add table inet postern\ndelete table inet postern\n");
    let pools: Vec<(&str, String)> = config
        .pool_v4
        .iter()
        .map(|pool| ("ip", pool.trunc().to_string()))
        .chain(
            config
                .pool_v6
                .iter()
                .map(|pool| ("ip6", pool.trunc().to_string())),
        )
        .collect();
    let mut line = |indent: usize, statement: &str| {
        let _ = writeln!(text, "{:indent$}{statement}", "");
    };

    line(0, "table inet postern {");
    line(2, "chain forward {");
    line(
        4,
        "type filter hook forward priority filter; policy accept;",
    );
    line(
        4,
        &format!("iifname \"{tun}\" oifname \"{tun}\" counter drop"),
    );
    for (family, pool) in &pools {
        line(
            4,
            &format!("iifname \"{tun}\" {family} saddr != {pool} counter drop"),
        );
        line(
            4,
            &format!("iifname != \"{tun}\" {family} saddr {pool} counter drop"),
        );
        // Without this, replies to devices would leave by the default route once the TUN is gone.
        line(
            4,
            &format!("oifname != \"{tun}\" {family} daddr {pool} counter drop"),
        );
    }
    for (family, has_pool) in [
        ("ipv4", config.pool_v4.is_some()),
        ("ipv6", config.pool_v6.is_some()),
    ] {
        if !has_pool {
            line(
                4,
                &format!("iifname \"{tun}\" meta nfproto {family} counter drop"),
            );
        }
    }
    line(2, "}");
    if config.egress == Egress::Masquerade {
        line(2, "chain postrouting {");
        line(
            4,
            "type nat hook postrouting priority srcnat; policy accept;",
        );
        for (family, pool) in &pools {
            line(
                4,
                &format!("{family} saddr {pool} oifname != \"{tun}\" counter masquerade"),
            );
        }
        line(2, "}");
    }
    line(0, "}");
    text
}

fn nft(what: &'static str, arguments: &[&str], input: &str) -> Result<String, HostError> {
    share_net_admin();
    let spoken = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => HostError::NftMissing,
        _ => HostError::Nft {
            what,
            message: format!("it could not be run: {error}"),
        },
    };
    let mut child = Command::new("nft")
        .args(arguments)
        .env("PATH", search_path())
        .env("LC_ALL", "C")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(spoken)?;
    if let Some(mut stdin) = child.stdin.take() {
        // A child that ended early says why on its standard error.
        let _ = stdin.write_all(input.as_bytes());
    }
    let output = child.wait_with_output().map_err(spoken)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    if said.contains("Operation not permitted") || said.contains("must be root") {
        return Err(HostError::NotPermitted {
            what: format!("nft: {what}"),
        });
    }
    let remedy = if said.contains("Operation not supported")
        || said.contains("Protocol not supported")
        || said.contains("No such file or directory")
    {
        "; the kernel lacks nf_tables or its NAT: `modprobe -a nf_tables nft_masq nft_chain_nat`, or `egress: routed`"
    } else {
        ""
    };
    Err(HostError::Nft {
        what,
        message: format!("{said}{remedy}"),
    })
}

/// The folders of system programs are not on every service's PATH.
fn search_path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}

fn find_forward_drops(listing: &Value, interface: &str) -> Vec<ForwardDrop> {
    let objects = listing["nftables"]
        .as_array()
        .map_or(&[][..], Vec::as_slice);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let place = |of: &Value| (text(&of["family"]), text(&of["table"]));
    let rules: Vec<&Value> = objects
        .iter()
        .filter_map(|object| object.get("rule"))
        .collect();
    let accepts = |rule: &Value| {
        let expressions = rule["expr"].to_string();
        expressions.contains(&format!("\"{interface}\"")) && expressions.contains("\"accept\"")
    };

    let mut found = Vec::new();
    for chain in objects.iter().filter_map(|object| object.get("chain")) {
        let (family, table) = place(chain);
        let name = text(&chain["name"]);
        if text(&chain["hook"]) != "forward" || (family == "inet" && table == "postern") {
            continue;
        }
        let last_refuses = rules
            .iter()
            .rfind(|rule| {
                place(rule) == (family.clone(), table.clone()) && text(&rule["chain"]) == name
            })
            .is_some_and(|rule| refuses_everything(rule));
        let drops = text(&chain["policy"]) == "drop" || last_refuses;
        let remedied = rules
            .iter()
            .any(|rule| place(rule) == (family.clone(), table.clone()) && accepts(rule));
        if drops && !remedied {
            let remedy = remedy(&table, &name, &rules, interface);
            found.push(ForwardDrop {
                chain: format!("{family} {table} {name}"),
                remedy,
            });
        }
    }
    found
}

/// A rule without any match that drops or rejects, as firewalld ends its chains.
fn refuses_everything(rule: &Value) -> bool {
    let expressions = rule["expr"].as_array().map_or(&[][..], Vec::as_slice);
    expressions
        .iter()
        .any(|e| e.get("drop").is_some() || e.get("reject").is_some())
        && !expressions
            .iter()
            .any(|e| e.get("match").is_some() || e.get("xt").is_some())
}

fn remedy(table: &str, chain: &str, rules: &[&Value], tun: &str) -> String {
    let mentions = |word: &str| rules.iter().any(|rule| rule.to_string().contains(word));
    if table == "firewalld" {
        format!(
            "firewalld: `firewall-cmd --permanent --zone=trusted --add-interface={tun} && firewall-cmd --reload`"
        )
    } else if mentions("DOCKER-USER") {
        format!(
            "Docker: `iptables -I DOCKER-USER -i {tun} -j ACCEPT && iptables -I DOCKER-USER -o {tun} -j ACCEPT`"
        )
    } else if mentions("ufw-") {
        format!("ufw: `ufw route allow in on {tun} && ufw route allow out on {tun}`")
    } else if chain == "FORWARD" {
        format!(
            "`iptables -I FORWARD -i {tun} -j ACCEPT && iptables -I FORWARD -o {tun} -j ACCEPT`"
        )
    } else {
        format!("accept in that chain what has iifname or oifname \"{tun}\"")
    }
}

#[cfg(test)]
mod tests;
