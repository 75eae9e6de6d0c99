//! Whether a firewall filters what comes in: nftables (which iptables, ufw and firewalld use
//! today), or ufw by its own word.

use super::ask;
use serde_json::Value;

/// `None` where it cannot be told.
pub(super) fn on() -> Option<bool> {
    let nft = ask("nft", &["-j", "list", "ruleset"]).and_then(|rules| nft_filters(&rules));
    if nft == Some(true) {
        return nft;
    }
    ask("ufw", &["status"])
        .and_then(|status| ufw_filters(&status))
        .or(nft)
}

/// A chain at the input hook that refuses by its policy or by a rule (libnftables-json(5)).
fn nft_filters(ruleset: &str) -> Option<bool> {
    let ruleset: Value = serde_json::from_str(ruleset).ok()?;
    let objects = ruleset.get("nftables")?.as_array()?;
    let chains = objects.iter().filter_map(|object| object.get("chain"));
    let rules = || objects.iter().filter_map(|object| object.get("rule"));
    let mut input = chains.filter(|chain| {
        text(chain, "hook") == Some("input") && text(chain, "type") == Some("filter")
    });
    Some(input.any(|chain| {
        let belongs = |rule: &&Value| {
            ["family", "table"].map(|key| text(rule, key))
                == ["family", "table"].map(|key| text(chain, key))
                && text(rule, "chain") == text(chain, "name")
        };
        text(chain, "policy") == Some("drop") || rules().filter(belongs).any(refuses)
    }))
}

/// The rule refuses, or hands over to a chain that may.
fn refuses(rule: &Value) -> bool {
    let statements = rule.get("expr").and_then(Value::as_array);
    statements.into_iter().flatten().any(|statement| {
        ["drop", "reject", "jump", "goto"]
            .iter()
            .any(|word| statement.get(word).is_some())
    })
}

fn text<'a>(object: &'a Value, key: &str) -> Option<&'a str> {
    object.get(key)?.as_str()
}

fn ufw_filters(status: &str) -> Option<bool> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))?;
    Some(line.trim() == "active")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ruleset(chain: &str, rules: &str) -> String {
        format!(
            r#"{{"nftables":[{{"metainfo":{{"json_schema_version":1}}}},{{"table":{{"family":"inet","name":"filter"}}}},
            {{"chain":{{"family":"inet","table":"filter","name":"in","type":"filter",{chain}}}}}{rules}]}}"#
        )
    }

    #[test]
    fn an_input_chain_that_drops_or_has_a_rule_that_does_is_a_firewall() {
        let drop = ruleset(r#""hook":"input","policy":"drop""#, "");
        assert_eq!(nft_filters(&drop), Some(true));
        let open = r#""hook":"input","policy":"accept""#;
        let rule = |chain: &str, verdict: &str| {
            format!(
                r#",{{"rule":{{"family":"inet","table":"filter","chain":"{chain}","expr":[{{"counter":null}},{{"{verdict}":null}}]}}}}"#
            )
        };
        let of = |rules: &str| nft_filters(&ruleset(open, rules));
        assert_eq!(of(""), Some(false));
        assert_eq!(of(&rule("in", "reject")), Some(true));
        assert_eq!(of(&rule("in", "accept")), Some(false), "it lets in only");
        assert_eq!(of(&rule("other", "drop")), Some(false));
        let output = ruleset(r#""hook":"output","policy":"drop""#, "");
        assert_eq!(
            nft_filters(&output),
            Some(false),
            "it filters what goes out"
        );
    }

    #[test]
    fn what_cannot_be_read_is_absent() {
        assert_eq!(nft_filters("Error: not permitted"), None);
        assert_eq!(nft_filters("{}"), None);
        assert_eq!(
            ufw_filters("Status: active\n\nTo  Action  From\n"),
            Some(true)
        );
        assert_eq!(ufw_filters("Status: inactive\n"), Some(false));
        assert_eq!(ufw_filters("ERROR: You need to be root"), None);
    }
}
