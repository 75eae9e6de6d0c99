use super::*;
use std::time::Duration;

fn section(text: &str) -> String {
    format!("{LEAST}flow_log:\n{text}")
}

fn log(text: &str) -> FlowLogConfig {
    good(&section(text)).flow_log
}

fn places(text: &str) -> Vec<(u64, String)> {
    let problems = wrong(&section(text));
    assert!(problems.iter().all(|problem| !problem.help.is_empty()));
    problems
        .into_iter()
        .map(|problem| (problem.line, problem.field))
        .collect()
}

#[test]
fn the_spool_is_the_log_and_copies_are_extra() {
    let config = log(
        "  dir: /srv/flows\n  sync: always\n  segment_size: 1MiB\n  \
         keep_size: 5MiB\n  keep_age: 7d\n  stdout: true\n  file: none\n",
    );
    assert_eq!(
        config,
        FlowLogConfig {
            sync: Sync::Always,
            segment_size: 1 << 20,
            keep_size: 5 << 20,
            keep_age: Duration::from_secs(7 * 86_400),
            stdout: true,
            ..FlowLogConfig::at("/srv/flows".into())
        }
    );
    let file = log("  file: flows.jsonl\n  max_files: 3\n").file;
    let expected = FileConfig {
        max_files: 3,
        ..FileConfig::at("/etc/postern/flows.jsonl".into())
    };
    assert_eq!(file, Some(expected));
}

#[test]
fn privacy_is_per_field() {
    let privacy = log("  privacy: { user: hash, outer_address: drop, hints: drop }\n").privacy;
    let expected = Privacy {
        user: Treatment::Hash,
        device: Treatment::Keep,
        outer_address: Treatment::Drop,
        hints: Hints::Drop,
    };
    assert_eq!(privacy, expected);
}

#[test]
fn servers_have_a_path_of_their_own_unless_told() {
    let config = log("  loki: { url: 'http://localhost:3100' }\n  \
         otlp: { url: 'https://collector.example.com/otlp/logs' }\n");
    let loki = config.loki.expect("set");
    assert_eq!(
        loki.push.url.to_string(),
        "http://localhost:3100/loki/api/v1/push"
    );
    assert_eq!(loki.push.auth, Auth::None);
    assert_eq!(loki.format, LokiFormat::Protobuf);
    let otlp = config.otlp.expect("set");
    assert_eq!(
        otlp.push.url.to_string(),
        "https://collector.example.com/otlp/logs"
    );
}

#[test]
fn secrets_are_named_by_file() {
    let loki = log(
        "  loki:\n    url: https://loki.example.com\n    tenant: team-a\n    \
         username: postern\n    password_file: loki.password\n    ca_file: ca.pem\n    \
         format: json\n    timeout: 3s\n    batch_bytes: 256KiB\n    batch_age: 200ms\n",
    )
    .loki
    .expect("set");
    let expected = PushConfig {
        auth: Auth::Basic {
            username: "postern".into(),
            password_file: "/etc/postern/loki.password".into(),
        },
        ca_file: Some("/etc/postern/ca.pem".into()),
        timeout: Duration::from_secs(3),
        batch_bytes: 256 << 10,
        batch_age: Duration::from_millis(200),
        ..PushConfig::at(
            "https://loki.example.com/loki/api/v1/push"
                .parse()
                .expect("a URL"),
        )
    };
    assert_eq!(loki.push, expected);
    assert_eq!(
        (loki.tenant.as_deref(), loki.format),
        (Some("team-a"), LokiFormat::Json)
    );

    for inline in [
        "password: 'hunter2'",
        "bearer_token: hunter2",
        "password: [hunter2]",
    ] {
        let problems = wrong(&section(&format!(
            "  loki:\n    url: https://l.example.com\n    {inline}\n"
        )));
        assert_eq!(problems[0].line, 5, "{problems:?}");
        assert!(problems[0].help.contains("_file: PATH"), "{problems:?}");
        assert!(!format!("{problems:?}").contains("hunter2"));
    }
    let problems = wrong(&section(
        "  loki:\n    url: https://me:hunter2@loki.example.com\n",
    ));
    assert_eq!(problems[0].field, "flow_log.loki.url");
    assert!(!format!("{problems:?}").contains("hunter2"));
}

#[test]
fn credentials_do_not_travel_in_clear_text_unless_told() {
    let with = |url: &str, more: &str| {
        section(&format!(
            "  loki: {{ url: '{url}', bearer_token_file: t{more} }}\n"
        ))
    };
    for fine in [
        "http://127.0.0.1:3100",
        "http://[::1]:3100",
        "https://192.0.2.1",
    ] {
        good(&with(fine, ""));
    }
    good(&with("http://192.0.2.1", ", insecure: true"));
    for bad in ["http://192.0.2.1", "http://localhost.example.com"] {
        let problems = wrong(&with(bad, ""));
        assert!(problems[0].problem.contains("clear text"), "{problems:?}");
    }
    let headers = section("  otlp: { url: 'http://192.0.2.1:4318', headers_file: h }\n");
    assert!(wrong(&headers)[0].problem.contains("clear text"));
    good(&section("  otlp: { url: 'http://192.0.2.1:4318' }\n"));
}

#[test]
fn everything_wrong_with_the_log_is_said_at_once() {
    let found = places(
        "  dir: ''\n  sync: 90s\n  segment_size: 1KiB\n  keep_size: 64MiB\n  \
         keep_age: 0s\n  privacy:\n    user: mask\n    hints: hash\n  \
         file: flows/copy.jsonl\n  loki:\n    url: ftp://x\n    tenant: a b\n    \
         username: me\n    format: xml\n  otlp:\n    batch_bytes: 1KiB\n    timeout: 1h\n",
    );
    let found: Vec<_> = found
        .iter()
        .map(|(line, field)| (*line, field.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (3, "flow_log.dir"),
            (4, "flow_log.sync"),
            (5, "flow_log.segment_size"),
            (6, "flow_log.keep_size"),
            (7, "flow_log.keep_age"),
            (9, "flow_log.privacy.user"),
            (10, "flow_log.privacy.hints"),
            (11, "flow_log.file"),
            (13, "flow_log.loki.url"),
            (14, "flow_log.loki.tenant"),
            (15, "flow_log.loki.username"),
            (16, "flow_log.loki.format"),
            (18, "flow_log.otlp.url"),
            (18, "flow_log.otlp.batch_bytes"),
            (19, "flow_log.otlp.timeout"),
        ]
    );
}

#[test]
fn a_batch_is_no_larger_than_servers_take_by_default() {
    let with = |server: &str, size: &str| {
        section(&format!(
            "  {server}: {{ url: 'http://localhost', batch_bytes: {size} }}\n"
        ))
    };
    for server in ["loki", "otlp"] {
        good(&with(server, "2MiB"));
        let problems = wrong(&with(server, "8MiB"));
        let field = format!("flow_log.{server}.batch_bytes");
        assert_eq!(problems[0].field, field);
        assert!(
            problems[0].problem.contains("64KiB to 2MiB"),
            "{problems:?}"
        );
        assert!(problems[0].help.contains("4MiB by default"), "{problems:?}");
    }
}

#[test]
fn what_has_no_effect_is_refused() {
    for (text, field) in [
        ("  max_size: 64MiB\n", "flow_log.max_size"),
        ("  file: none\n  max_files: 3\n", "flow_log.max_files"),
        (
            "  loki: { url: 'http://localhost', ca_file: ca.pem }\n",
            "flow_log.loki.ca_file",
        ),
        (
            "  loki: { url: 'https://a.example', username: u, password_file: p, \
             bearer_token_file: t }\n",
            "flow_log.loki.bearer_token_file",
        ),
    ] {
        assert_eq!(places(text)[0].1, field);
    }
}
