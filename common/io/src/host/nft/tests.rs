use super::*;
use crate::host::testing::in_namespace;

fn config(v4: Option<&str>, v6: Option<&str>, egress: Egress) -> GatewayHostConfig {
    GatewayHostConfig {
        interface: "postern0".to_owned(),
        pool_v4: v4.map(|pool| pool.parse().expect("a pool")),
        pool_v6: v6.map(|pool| pool.parse().expect("a pool")),
        egress,
        state_file: "/nonexistent/state.json".into(),
    }
}

fn listed() -> String {
    nft("list", &["list", "ruleset"], "").expect("listing")
}

#[test]
fn the_kernel_takes_the_table_replaces_it_and_lets_it_go() {
    in_namespace(|| {
        if !installed() {
            eprintln!("skipped: nft is not installed");
            return;
        }
        let both = config(Some("100.64.0.0/24"), Some("fd7a::/64"), Egress::Masquerade);
        apply(&both).expect("accepted");
        apply(&both).expect("accepted again");
        let text = listed();
        assert_eq!(text.matches("table inet postern").count(), 1, "{text}");
        assert_eq!(text.matches("masquerade").count(), 2, "{text}");
        assert!(
            text.contains("oifname != \"postern0\" ip daddr 100.64.0.0/24"),
            "{text}"
        );
        assert!(
            text.contains("policy accept"),
            "other traffic is not ours: {text}"
        );

        apply(&config(Some("100.64.0.0/24"), None, Egress::Routed)).expect("accepted");
        let text = listed();
        assert!(!text.contains("masquerade"), "routed has no NAT: {text}");
        assert!(
            text.contains("meta nfproto ipv6"),
            "no pool, no IPv6 from devices: {text}"
        );

        destroy().expect("removed");
        destroy().expect("removing nothing is no error");
        assert_eq!(listed(), "");
    });
}

#[test]
fn a_refused_table_leaves_the_old_one() {
    in_namespace(|| {
        if !installed() {
            return;
        }
        let good = config(Some("100.64.0.0/24"), None, Egress::Masquerade);
        apply(&good).expect("accepted");
        let before = listed();
        let bad = GatewayHostConfig {
            interface: "bad\" name".to_owned(),
            ..good
        };
        assert!(apply(&bad).is_err());
        assert_eq!(listed(), before);
    });
}

#[test]
fn a_forward_policy_of_drop_is_found_until_it_is_remedied() {
    in_namespace(|| {
        if !installed() {
            return;
        }
        assert_eq!(forward_drops("postern0").expect("listing"), []);
        let other = "table ip filter {\n chain FORWARD {\n type filter hook forward priority filter; policy drop;\n }\n}\n";
        nft("add", &["-f", "-"], other).expect("accepted");
        apply(&config(Some("100.64.0.0/24"), None, Egress::Masquerade)).expect("accepted");
        let found = forward_drops("postern0").expect("listing");
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].chain, "ip filter FORWARD");
        assert!(
            found[0].remedy.contains("iptables -I FORWARD -i postern0"),
            "{found:?}"
        );
        nft(
            "add",
            &["-f", "-"],
            "add rule ip filter FORWARD iifname \"postern0\" accept\n",
        )
        .expect("accepted");
        assert_eq!(forward_drops("postern0").expect("listing"), []);
    });
}

#[test]
fn firewalld_docker_and_ufw_are_called_by_name() {
    let ruleset = |table: &str, extra: Value| {
        serde_json::json!({"nftables": [
            {"chain": {"family": "inet", "table": table, "name": "fw", "hook": "forward", "policy": "accept"}},
            {"rule": {"family": "inet", "table": table, "chain": "fw", "expr": [extra]}},
            {"rule": {"family": "inet", "table": table, "chain": "fw",
                      "expr": [{"reject": {"type": "icmpx", "expr": "admin-prohibited"}}]}},
        ]})
    };
    for (table, extra, word) in [
        (
            "firewalld",
            serde_json::json!({"jump": {"target": "x"}}),
            "firewall-cmd",
        ),
        (
            "filter",
            serde_json::json!({"jump": {"target": "DOCKER-USER"}}),
            "DOCKER-USER -i tun9",
        ),
        (
            "filter",
            serde_json::json!({"jump": {"target": "ufw-before-forward"}}),
            "ufw route allow",
        ),
    ] {
        let found = find_forward_drops(&ruleset(table, extra), "tun9");
        assert_eq!(found.len(), 1);
        assert!(found[0].remedy.contains(word), "{found:?}");
    }
}
