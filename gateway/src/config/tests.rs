use super::*;
use postern_io::offload::Half;

mod flow_log;
mod identity;
mod login;

const LEAST: &str = "pool_v6: fd6a:3c1e:9d20:1::/64\n";

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, Path::new("/etc/postern/gateway.yaml"))
}

fn good(text: &str) -> Config {
    parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn wrong(text: &str) -> Vec<Problem> {
    match parse(text) {
        Err(ConfigError::Wrong { problems, .. }) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

#[test]
fn defaults_are_good() {
    let config = good(LEAST);
    assert_eq!(config.listen_port, 51820);
    assert_eq!(config.interface, "postern0");
    assert_eq!(config.mtu, 1420);
    assert_eq!(config.pool.v4.to_string(), "100.96.0.0/16");
    assert_eq!(config.egress, Egress::Masquerade);
    assert_eq!(config.policy, Path::new("/etc/postern/policy.yaml"));
    assert_eq!(
        config.admin_socket,
        Path::new("/etc/postern/data/admin.sock")
    );
    assert_eq!(
        config.flow_log,
        FlowLogConfig::at("/etc/postern/data/flows".into())
    );
    assert_eq!(config.on_log_failure, OnLogFailure::DenyNew);
    assert_eq!(config.metrics, "127.0.0.1:9478".parse().ok());
    assert_eq!(config.workers, Workers::Auto);
}

#[test]
fn absolute_paths_stay() {
    let config = good(&format!(
        "{LEAST}data_dir: /var/lib/postern\npolicy: /srv/policy.yaml\n"
    ));
    assert_eq!(
        config.store_path(),
        Path::new("/var/lib/postern/postern.db")
    );
    assert_eq!(config.policy, Path::new("/srv/policy.yaml"));
}

#[test]
fn one_endpoint_or_many() {
    let one = good(&format!("{LEAST}endpoint: vpn.example.com:51820\n"));
    assert_eq!(one.endpoints.len(), 1);
    let many = good(&format!(
        "{LEAST}endpoint: [vpn.example.com:51820, '[2001:db8::1]:443']\n"
    ));
    assert_eq!(many.endpoints[1].to_string(), "[2001:db8::1]:443");
}

#[test]
fn everything_wrong_is_said_at_once_with_its_line() {
    let problems = wrong(
        "endpoint: vpn.example.com\n\
         listen_port: 70000\n\
         interface: a/b\n\
         mtu: 500\n\
         pool_v4: 100.96.0.1/16\n\
         pool_v6: fd00::/120\n\
         egress: nat\n\
         metrics: localhost\n\
         on_log_failure: ignore\n\
         include: [0.0.0.0/0, 10.0.0.1/8, bogus]\n\
         keepalive: often\n\
         flow_log:\n  file: data/f\n  max_size: 64\n  max_files: 0\n\
         limits:\n  flows: 100\n  flows_per_device: 200\n\
         log:\n  level: loud\n",
    );
    let found: Vec<_> = problems
        .iter()
        .map(|problem| (problem.line, problem.field.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (1, "endpoint"),
            (2, "listen_port"),
            (3, "interface"),
            (4, "mtu"),
            (5, "pool_v4"),
            (6, "pool_v6"),
            (7, "egress"),
            (8, "metrics"),
            (9, "on_log_failure"),
            (10, "include[0]"),
            (10, "include[1]"),
            (10, "include[2]"),
            (11, "keepalive"),
            (14, "flow_log.max_size"),
            (15, "flow_log.max_files"),
            (18, "limits.flows_per_device"),
            (20, "log.level"),
        ]
    );
    assert!(problems.iter().all(|problem| !problem.help.is_empty()));
    assert_eq!(problems[4].help, "write 100.96.0.0/16");
}

#[test]
fn servers_for_dns_are_addresses_with_a_port_or_without() {
    assert!(good(LEAST).resolver.servers.is_empty(), "the system's");
    let given = "resolver: { servers: [10.0.0.53, '10.0.0.54:5353', '2001:db8::53', '[::1]:54'] }";
    let servers = good(&format!("{LEAST}{given}\n")).resolver.servers;
    let shown: Vec<_> = servers.iter().map(ToString::to_string).collect();
    assert_eq!(
        shown,
        [
            "10.0.0.53:53",
            "10.0.0.54:5353",
            "[2001:db8::53]:53",
            "[::1]:54"
        ]
    );
    for (bad, fields) in [
        ("[]", &["resolver.servers"] as &[&str]),
        (
            "[dns.example.com, '10.0.0.53:0', 0.0.0.0]",
            &[
                "resolver.servers[0]",
                "resolver.servers[1]",
                "resolver.servers[2]",
            ],
        ),
    ] {
        let problems = wrong(&format!("{LEAST}resolver: {{ servers: {bad} }}\n"));
        let found: Vec<_> = problems.iter().map(|one| one.field.as_str()).collect();
        assert_eq!(found, fields);
    }
}

#[test]
fn a_missing_pool_says_what_to_write() {
    let problems = wrong("mtu: 1420\n");
    assert_eq!(problems[0].field, "pool_v6");
    assert!(problems[0].help.contains("/64"));
}

#[test]
fn unknown_and_doubled_fields_are_refused_with_their_place() {
    for text in [
        "mtuu: 1420\n",
        "mtu: 1420\nmtu: 1280\n",
        "flow_log: { files: x }\n",
        "mtu: big\n",
    ] {
        let error = parse(&format!("{LEAST}{text}")).expect_err(text);
        let shown = error.to_string();
        assert!(matches!(error, ConfigError::Malformed { .. }), "{shown}");
        assert!(
            shown.contains("line 2") || shown.contains("line 3") || shown.contains("2:"),
            "{shown}"
        );
    }
}

#[test]
fn the_include_list_takes_no_part_of_the_pool() {
    let problems = wrong(&format!("{LEAST}include: [100.96.3.0/24]\n"));
    assert!(problems[0].problem.contains("overlaps"), "{problems:?}");
}

#[test]
fn changes_say_what_needs_a_restart() {
    let old = good(LEAST);
    let new = good(&format!(
        "{LEAST}endpoint: gw:1\nkeepalive: 30s\nlisten_port: 1000\nmtu: 1300\n"
    ));
    let changes = old.changes(&new);
    assert_eq!(changes.live, ["endpoint", "keepalive"]);
    assert_eq!(changes.restart, ["mtu", "listen_port"]);
    let merged = old.with_live_fields(&new);
    assert_eq!((merged.keepalive, merged.listen_port), (Some(30), 51820));
    assert_eq!(old.changes(&old), Changes::default());
}

#[test]
fn a_missing_file_says_how_to_make_one() {
    let error = Config::load(Path::new("/nonexistent/gateway.yaml")).expect_err("no such file");
    assert!(
        error
            .to_string()
            .contains("postern-gateway init /nonexistent"),
        "{error}"
    );
}

#[test]
fn offloads_are_switched_together_or_each_by_itself() {
    let off = |value: &str| -> Vec<&str> {
        let switches = good(&format!("{LEAST}offload: {value}\n")).offload;
        let off = |half: &Half| !switches.allow(*half);
        Half::ALL
            .into_iter()
            .filter(off)
            .map(Half::as_str)
            .collect()
    };
    assert_eq!(good(LEAST).offload, Switches::AUTO);
    assert!(off("auto").is_empty());
    assert_eq!(off("off").len(), 4);
    assert_eq!(off("{ tun: off }"), ["tun-read", "tun-write"]);
    assert_eq!(
        off("{ udp-send: off, tun-write: off }"),
        ["tun-write", "udp-send"]
    );
    assert_eq!(off("\n  udp: off\n  udp-receive: auto"), ["udp-send"]);
}

#[test]
fn wrong_switches_are_said_with_their_line() {
    for (value, line, field, help) in [
        ("on", 2, "offload", "write auto or off"),
        ("\n  tun: sometimes", 3, "offload.tun", "write auto or off"),
        ("\n  tun: off\n  tcp: off", 4, "offload.tcp", "tun-read"),
    ] {
        let problems = wrong(&format!("{LEAST}offload: {value}\n"));
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(
            (problems[0].line, problems[0].field.as_str()),
            (line, field)
        );
        assert!(problems[0].help.contains(help), "{problems:?}");
    }
    for value in ["[off]", "{ tun: off, tun: auto }", "{ tun: [off] }"] {
        let error = parse(&format!("{LEAST}offload: {value}\n")).expect_err(value);
        assert!(matches!(error, ConfigError::Malformed { .. }), "{error}");
    }
}

#[test]
fn workers_are_a_power_of_two() {
    let workers = |value: &str| format!("{LEAST}workers: {value}\n");
    assert_eq!(good(&workers("auto")).workers, Workers::Auto);
    assert_eq!(good(&workers("4")).workers, Workers::Exactly(4));
    for bad in ["0", "3", "16", "many"] {
        let problems = wrong(&workers(bad));
        let found = (problems[0].line, problems[0].field.as_str());
        assert_eq!(found, (2, "workers"), "{bad}");
        assert_eq!(problems[0].help, "write auto or 1 or 2 or 4 or 8");
    }
}
