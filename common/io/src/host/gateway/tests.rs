use super::*;
use crate::host::testing::in_namespace;
use std::process::Command;

fn config(name: &str) -> GatewayHostConfig {
    let folder = std::env::temp_dir().join(format!("postern-host-{}-{name}", std::process::id()));
    std::fs::create_dir_all(&folder).expect("temporary folder");
    GatewayHostConfig {
        interface: "postern0".to_owned(),
        pool_v4: Some("100.64.0.0/24".parse().expect("a pool")),
        pool_v6: Some("fd7a::/64".parse().expect("a pool")),
        egress: Egress::Masquerade,
        state_file: folder.join("host.json"),
    }
}

/// Everything that set-up could touch, as a person would look at it.
fn host() -> String {
    let shell = "sysctl -a --pattern 'forward|accept_ra|accept_redirects' 2>/dev/null; nft list ruleset; ip route; ip -6 route; ip rule";
    let output = Command::new("sh")
        .args(["-c", shell])
        .output()
        .expect("a shell");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.contains("ip_forward"), "sysctl is installed: {text}");
    text
}

/// A namespace where one interface forwards already and another setting is unusual.
fn unusual() {
    let shell = "ip link set lo up; ip link add left0 type veth peer name right0; ip link set left0 up; ip link set right0 up";
    assert!(
        Command::new("sh")
            .args(["-c", shell])
            .status()
            .expect("a shell")
            .success()
    );
    sysctl::set("net/ipv4/ip_forward", "0").expect("set");
    sysctl::set("net/ipv4/conf/left0/forwarding", "1").expect("set");
    sysctl::set("net/ipv4/conf/all/accept_redirects", "0").expect("set");
    sysctl::set("net/ipv6/conf/right0/forwarding", "1").expect("set");
}

fn forwards() -> (String, String) {
    let get = |key| sysctl::get(key).expect("readable");
    (
        get("net/ipv4/ip_forward"),
        get("net/ipv6/conf/all/forwarding"),
    )
}

fn on() -> (String, String) {
    ("1".to_owned(), "1".to_owned())
}

#[test]
fn after_tear_down_the_host_is_as_before() {
    in_namespace(|| {
        unusual();
        let before = host();
        let config = config("tear-down");
        let set_up = GatewayHost::set_up(&config).expect("set up");
        assert_eq!(forwards(), on());
        assert!(host().contains("table inet postern"));
        assert!(config.state_file.exists());
        set_up.tear_down().expect("torn down");
        assert_eq!(host(), before);
        assert!(!config.state_file.exists());
    });
}

#[test]
fn a_crash_is_put_back_by_the_next_start_and_stop() {
    in_namespace(|| {
        unusual();
        let before = host();
        let config = config("crash");
        std::mem::forget(GatewayHost::set_up(&config).expect("set up")); // kill -9
        assert_ne!(host(), before);
        let next = GatewayHost::set_up(&config).expect("takes over");
        assert_eq!(forwards(), on());
        drop(next);
        assert_eq!(host(), before);

        std::mem::forget(GatewayHost::set_up(&config).expect("set up"));
        assert!(GatewayHost::clean_up(&config.state_file).expect("cleaned"));
        assert_eq!(host(), before);
        assert!(!GatewayHost::clean_up(&config.state_file).expect("nothing to do"));
    });
}

#[test]
fn a_successor_that_needs_less_puts_the_rest_back() {
    in_namespace(|| {
        unusual();
        let before = host();
        let mut config = config("less");
        GatewayHost::set_up(&config).expect("set up").leave();
        assert_eq!(forwards(), on());
        config.pool_v6 = None;
        let next = GatewayHost::set_up(&config).expect("takes over");
        assert_eq!(forwards(), ("1".to_owned(), "0".to_owned()));
        next.tear_down().expect("torn down");
        assert_eq!(host(), before);
    });
}

#[test]
fn what_somebody_changed_since_is_theirs() {
    in_namespace(|| {
        let config = config("theirs");
        sysctl::set("net/ipv4/ip_forward", "0").expect("set");
        let set_up = GatewayHost::set_up(&config).expect("set up");
        sysctl::set("net/ipv6/conf/all/forwarding", "0").expect("somebody");
        sysctl::set("net/ipv6/conf/lo/forwarding", "1").expect("somebody");
        set_up.tear_down().expect("torn down");
        assert_eq!(
            sysctl::get("net/ipv6/conf/lo/forwarding").expect("readable"),
            "1"
        );
        assert_eq!(sysctl::get("net/ipv4/ip_forward").expect("readable"), "0");
    });
}

#[test]
fn forwarding_that_was_on_stays_on() {
    in_namespace(|| {
        sysctl::set("net/ipv4/ip_forward", "1").expect("set");
        let config = config("on");
        GatewayHost::set_up(&config)
            .expect("set up")
            .tear_down()
            .expect("torn down");
        assert_eq!(sysctl::get("net/ipv4/ip_forward").expect("readable"), "1");
    });
}

#[test]
fn a_damaged_state_file_stops_the_start_before_any_change() {
    in_namespace(|| {
        let config = config("damaged");
        let before = host();
        std::fs::write(&config.state_file, "{").expect("written");
        let error = GatewayHost::set_up(&config)
            .expect_err("refused")
            .to_string();
        assert!(error.contains("host.json"), "{error}");
        assert_eq!(host(), before);
    });
}

#[test]
fn a_failed_set_up_leaves_nothing() {
    in_namespace(|| {
        let before = host();
        let mut config = config("failed");
        config.state_file = "/nonexistent/host.json".into();
        assert!(GatewayHost::set_up(&config).is_err());
        assert_eq!(host(), before);
    });
}
