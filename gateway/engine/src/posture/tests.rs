use super::*;
use crate::standing::Attribute;
use std::sync::Arc;

const MINUTE: u64 = 60_000_000_000;

fn at(minute: u64) -> Wall {
    Wall(minute * MINUTE)
}

/// Reported in minute 100, stale from minute 103 on.
fn reported(facts: Facts) -> Standing {
    Standing {
        reported: Some(Reported {
            facts: Arc::new(facts),
            at: at(100),
            fresh_until: at(103),
        }),
        ..Standing::default()
    }
}

fn debian() -> Facts {
    Facts {
        os: Some("debian".to_owned()),
        os_version: Some("12".to_owned()),
        kernel: Some("6.1.0-18-amd64".to_owned()),
        client_version: Some("0.1.0".to_owned()),
        disk_encryption: Some(true),
        firewall: Some(false),
        processes: [("edr".to_owned(), true), ("miner".to_owned(), false)].into(),
        files: [
            ("/etc/corp.pem".to_owned(), Some("AB".repeat(32))),
            ("/etc/none".to_owned(), None),
        ]
        .into(),
        ..Facts::default()
    }
}

fn file(path: &str, sha256: Option<&str>) -> Expected {
    Expected::File {
        path: path.to_owned(),
        sha256: sha256.map(|byte| byte.repeat(32)),
    }
}

fn system(id: &str, version: Option<&str>) -> Expected {
    Expected::System {
        id: id.to_owned(),
        version: version.map(|text| Comparison::parse(text).unwrap()),
    }
}

/// `expected / received`, and whether it holds, in minute 101.
fn judged(expected: &Expected, standing: &Standing) -> (String, bool) {
    let words = format!("{expected} / {}", expected.received(standing, at(101)));
    (words, at(101) < expected.holds_until(standing))
}

#[test]
fn a_report_is_held_against_what_is_expected() {
    let version = |text| Comparison::parse(text).unwrap();
    for (expected, words, holds) in [
        (system("debian", None), "debian / debian", true),
        (
            system("debian", Some(">= 12")),
            "debian >= 12 / debian 12",
            true,
        ),
        (
            system("debian", Some(">= 13")),
            "debian >= 13 / debian 12",
            false,
        ),
        (system("Debian", None), "Debian / debian", false),
        (
            Expected::Kernel(version("> 6.0")),
            "kernel > 6.0 / 6.1.0-18-amd64",
            true,
        ),
        (
            Expected::ClientVersion(version(">= 0.2")),
            "postern >= 0.2 / 0.1.0",
            false,
        ),
        (Expected::DiskEncryption, "disk encryption on / on", true),
        (Expected::Firewall, "firewall on / off", false),
        (
            Expected::Process("edr".to_owned()),
            "process edr running / running",
            true,
        ),
        (
            Expected::Process("miner".to_owned()),
            "process miner running / not running",
            false,
        ),
        (
            Expected::Process("new".to_owned()),
            "process new running / not reported",
            false,
        ),
        (
            file("/etc/corp.pem", None),
            "file /etc/corp.pem present / present",
            true,
        ),
        (
            file("/etc/corp.pem", Some("ab")),
            "file /etc/corp.pem with SHA-256 abababababab… / SHA-256 ABABABABABAB…",
            true,
        ),
        (
            file("/etc/corp.pem", Some("cd")),
            "file /etc/corp.pem with SHA-256 cdcdcdcdcdcd… / SHA-256 ABABABABABAB…",
            false,
        ),
        (
            file("/etc/none", None),
            "file /etc/none present / no such file",
            false,
        ),
        (
            file("/etc/new", None),
            "file /etc/new present / not reported",
            false,
        ),
    ] {
        let got = judged(&expected, &reported(debian()));
        assert_eq!(got, (words.to_owned(), holds));
    }
}

#[test]
fn what_is_not_reported_fails() {
    let all = [
        system("debian", None),
        system("debian", Some(">= 1")),
        Expected::Kernel(Comparison::parse(">= 0").unwrap()),
        Expected::ClientVersion(Comparison::parse(">= 0").unwrap()),
        Expected::DiskEncryption,
        Expected::Firewall,
        Expected::Process("edr".to_owned()),
        file("/etc/corp.pem", None),
    ];
    for standing in [Standing::default(), reported(Facts::default())] {
        for expected in &all {
            let (words, holds) = judged(expected, &standing);
            assert!(words.ends_with("/ not reported") && !holds, "{words}");
        }
    }
    let no_version = Facts {
        os_version: None,
        ..debian()
    };
    assert_eq!(
        judged(&system("debian", Some(">= 0")), &reported(no_version)),
        (
            "debian >= 0 / debian, version not reported".to_owned(),
            false
        )
    );
}

#[test]
fn a_stale_report_fails_and_says_so() {
    let standing = reported(debian());
    let check = Expected::DiskEncryption;
    assert_eq!(check.holds_until(&standing), at(103));
    assert_eq!(check.received(&standing, Wall(at(103).0 - 1)), "on");
    assert_eq!(
        check.received(&standing, at(103)),
        "reported 3 min ago, too old"
    );
    assert_eq!(
        check.received(&standing, at(112)),
        "reported 12 min ago, too old"
    );
}

#[test]
fn an_attribute_holds_until_its_end() {
    let check = Expected::Attribute {
        name: "managed".to_owned(),
        value: "yes".to_owned(),
    };
    let with = |value: &str, until| Standing {
        attributes: [(
            "managed".to_owned(),
            Attribute {
                value: value.to_owned(),
                until,
            },
        )]
        .into(),
        ..Standing::default()
    };
    let words = "attribute managed set to yes";
    for (standing, received, holds) in [
        (Standing::default(), "not set", false),
        (with("yes", None), "yes", true),
        (with("no", None), "no", false),
        (with("yes", Some(at(102))), "yes", true),
        (with("yes", Some(at(101))), "ended 0 s ago", false),
        (with("yes", Some(at(90))), "ended 11 min ago", false),
    ] {
        assert_eq!(
            judged(&check, &standing),
            (format!("{words} / {received}"), holds)
        );
    }
}

#[test]
fn a_device_cannot_break_the_line_or_fill_the_screen() {
    let facts = Facts {
        os: Some(format!("de\nbi\u{1b}[2J{}", "x".repeat(10_000))),
        ..Facts::default()
    };
    let received = system("debian", None).received(&reported(facts), at(101));
    assert!(received.starts_with("de?bi?[2Jxx"), "{received}");
    assert_eq!(received.chars().count(), SHOWN + 1);
}
