use super::*;
use postern_proto::keys::PrivateKey;
use postern_proto::profile::ProfileGateway;

fn net(text: &str) -> IpNet {
    text.parse().expect("a prefix")
}

fn address(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

fn profile(include: &[&str]) -> Profile {
    let key = PrivateKey::from_random([1; 32]);
    Profile {
        version: 1,
        name: "ana-laptop".to_owned(),
        addresses: vec![address("100.96.0.2"), address("fd00::2")],
        mtu: 1420,
        gateway: ProfileGateway {
            public_key: key.public(),
            endpoints: Vec::new(),
            tunnel_addresses: vec![address("100.96.0.1"), address("fd00::1")],
        },
        private_key: Some(key),
        include: include.iter().map(|text| net(text)).collect(),
        keepalive: None,
        preshared_key: None,
        key_since: None,
        next_private_key: None,
        next_preshared_key: None,
    }
}

fn route(prefix: &str, gateway: Option<&str>, interface: &str) -> HostRoute {
    HostRoute {
        prefix: net(prefix),
        gateway: gateway.map(address),
        interface: Some(interface.to_owned()),
        metric: 0,
    }
}

/// A laptop at home: a LAN, a default route, an office route, Docker.
fn home() -> (Vec<HostRoute>, Vec<HostAddress>) {
    let own = |text, interface: &str| HostAddress {
        address: address(text),
        interface: interface.to_owned(),
    };
    (
        vec![
            route("0.0.0.0/0", Some("192.168.1.1"), "wlan0"),
            route("192.168.1.0/24", None, "wlan0"),
            route("172.17.0.0/16", None, "docker0"),
            route("10.20.0.0/16", Some("192.168.1.254"), "wlan0"),
            route("0.0.0.0/1", None, "vpn0"),
        ],
        vec![own("192.168.1.30", "wlan0"), own("198.51.100.99", "dummy0")],
    )
}

fn planned(include: &[&str]) -> Result<Plan, Vec<Clash>> {
    let (routes, addresses) = home();
    let endpoint = "203.0.113.5:51820".parse().expect("an endpoint");
    plan(
        &profile(include),
        "postern0",
        &[endpoint],
        &routes,
        &addresses,
    )
}

fn refused(include: &str) -> String {
    let clashes = planned(&[include]).expect_err("refused");
    assert_eq!(clashes.len(), 1, "{clashes:?}");
    clashes[0].to_string()
}

#[test]
fn the_routes_are_the_include_list_and_the_gateway() {
    let plan = planned(&["192.0.2.10/32", "2001:db8::/64"]).expect("nothing in the way");
    assert_eq!(
        plan.routes,
        [
            net("100.96.0.1/32"),
            net("192.0.2.10/32"),
            net("2001:db8::/64"),
            net("fd00::1/128")
        ]
    );
    assert_eq!(plan.v4, Some(Ipv4Addr::new(100, 96, 0, 2)));
}

#[test]
fn a_default_route_is_refused_in_any_disguise() {
    for include in [
        &["0.0.0.0/0"][..],
        &["128.0.0.0/1"],
        &["::/0"],
        &["128.0.0.0/2", "192.0.0.0/2"],
    ] {
        let clashes = planned(include).expect_err("refused");
        assert!(
            clashes
                .iter()
                .any(|clash| matches!(clash, Clash::DefaultRoute(_))),
            "{include:?}: {clashes:?}"
        );
    }
}

#[test]
fn the_endpoint_is_never_routed_into_the_tunnel() {
    let text = refused("203.0.113.0/24");
    assert!(
        text.contains("203.0.113.0/24") && text.contains("203.0.113.5:51820"),
        "{text}"
    );
}

#[test]
fn a_local_network_is_named_with_its_interface() {
    for (include, network, interface) in [
        ("192.168.1.77/32", "192.168.1.0/24", "wlan0"),
        ("192.168.0.0/16", "192.168.1.0/24", "wlan0"),
        ("172.17.0.0/16", "172.17.0.0/16", "docker0"),
        ("198.51.100.0/24", "198.51.100.99", "dummy0"),
    ] {
        let text = refused(include);
        assert!(
            text.contains(network) && text.contains(interface),
            "{include}: {text}"
        );
    }
}

#[test]
fn a_more_specific_route_is_in_the_way_and_a_wider_one_is_not() {
    let text = refused("10.0.0.0/8");
    assert!(text.contains("10.20.0.0/16"), "{text}");
    assert!(refused("10.20.0.0/16").contains("10.20.0.0/16"));
    planned(&["10.20.30.0/24"]).expect("more specific than the office route");
}

#[test]
fn another_tunnel_with_our_address_is_noticed_and_our_own_is_not() {
    let (mut routes, mut addresses) = home();
    for interface in ["postern0", "postern1"] {
        addresses.push(HostAddress {
            address: address("100.96.0.2"),
            interface: interface.to_owned(),
        });
        routes.push(route("192.0.2.10/32", None, interface));
        let result = plan(
            &profile(&["192.0.2.10/32"]),
            "postern0",
            &[],
            &routes,
            &addresses,
        );
        assert_eq!(result.is_err(), interface == "postern1", "{result:?}");
    }
}

#[test]
fn a_family_without_an_address_gets_no_routes() {
    let mut one = profile(&["192.0.2.10/32", "2001:db8::/64"]);
    one.addresses.pop();
    let plan = plan(&one, "postern0", &[], &[], &[]).expect("nothing in the way");
    assert_eq!(plan.routes, [net("100.96.0.1/32"), net("192.0.2.10/32")]);
}

#[test]
fn all_clashes_are_said_at_once() {
    let clashes = planned(&["192.168.1.0/24", "203.0.113.5/32", "192.0.2.1/32"]).expect_err("two");
    assert_eq!(clashes.len(), 2, "{clashes:?}");
}

#[test]
fn a_change_touches_only_what_changed() {
    let nets = |texts: &[&str]| -> Vec<IpNet> {
        texts
            .iter()
            .map(|text| text.parse().expect("a prefix"))
            .collect()
    };
    let before = nets(&["192.0.2.10/32", "198.51.100.0/24"]);
    let after = nets(&["198.51.100.0/24", "2001:db8::1/128"]);
    let (fresh, gone) = difference(&before, &after);
    assert_eq!(fresh, nets(&["2001:db8::1/128"]));
    assert_eq!(gone, nets(&["192.0.2.10/32"]));
}

#[test]
fn a_change_that_cannot_be_written_down_has_not_happened() {
    let mut tunnel = SplitTunnel {
        file: PathBuf::from("/dev/null/state.json"),
        record: Record {
            interface: "postern0".to_owned(),
            routes: vec![net("192.0.2.10/32")],
        },
    };
    assert!(tunnel.change(&[net("198.51.100.0/24")], false).is_err());
    // Or a second try would find the route there already, and make none.
    assert_eq!(tunnel.record.routes, [net("192.0.2.10/32")]);
}
