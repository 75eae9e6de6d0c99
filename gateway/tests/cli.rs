//! The command line as an operator meets it: what it prints, what it leaves on disk, and which
//! exit code it ends with. No gateway runs here; everything works on a fresh folder.

use serde_json::Value;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder made by `init`, gone when the test is.
struct Fresh(PathBuf);

impl Fresh {
    fn new(test: &str) -> Fresh {
        let folder =
            std::env::temp_dir().join(format!("postern-cli-{}-{test}", std::process::id()));
        let fresh = Fresh(folder);
        let made = fresh.run(&[
            "init",
            fresh.0.to_str().expect("UTF-8"),
            "--endpoint",
            "gw.example.com:51820",
        ]);
        assert!(made.status.success(), "{}", err(&made));
        fresh
    }

    fn run(&self, words: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_postern-gateway"))
            .args(words)
            .env("POSTERN_CONFIG", self.path("gateway.yaml"))
            .output()
            .expect("starts")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    fn append(&self, name: &str, text: &str) {
        let path = self.path(name);
        let before = std::fs::read_to_string(&path).expect("there");
        std::fs::write(path, before + text).expect("written");
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn out(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn err(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn code(output: &Output) -> Option<i32> {
    output.status.code()
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).expect("there").permissions().mode() & 0o7777
}

#[test]
fn a_device_is_enrolled_before_the_first_start_and_its_key_is_not_kept() {
    let fresh = Fresh::new("enrol");
    let file = fresh.path("ana.yaml");
    let file_name = file.to_str().expect("UTF-8");
    let add = [
        "device",
        "add",
        "ana",
        "--user",
        "ana@example.com",
        "--group",
        "sre",
        "--out",
        file_name,
    ];
    let added = fresh.run(&add);
    assert_eq!(code(&added), Some(0), "{}", err(&added));
    assert_eq!(out(&added), "", "the key went to the file only");
    assert_eq!(mode(&file), 0o600);

    let profile = std::fs::read_to_string(&file).expect("there");
    let secret = profile
        .lines()
        .find_map(|line| line.strip_prefix("private_key: "))
        .expect("a private key")
        .trim_matches('"');
    let database = std::fs::read(fresh.path("data/postern.db")).expect("there");
    assert!(
        !database
            .windows(secret.len())
            .any(|window| window == secret.as_bytes())
    );

    let again = fresh.run(&add);
    assert_eq!(code(&again), Some(1));
    assert_eq!(
        std::fs::read_to_string(&file).expect("there"),
        profile,
        "nothing is overwritten"
    );

    let listed: Value =
        serde_json::from_str(&out(&fresh.run(&["device", "list", "-o", "json"]))).expect("JSON");
    assert_eq!(listed[0]["name"], "ana");
    assert_eq!(listed[0]["groups"][0], "sre");
}

#[test]
fn a_refused_enrolment_leaves_no_file() {
    let fresh = Fresh::new("refused");
    let file = fresh.path("odd.yaml");
    let odd = fresh.run(&[
        "device",
        "add",
        "two words",
        "--out",
        file.to_str().expect("UTF-8"),
    ]);
    assert_eq!(code(&odd), Some(1));
    assert!(err(&odd).contains("is no device name"), "{}", err(&odd));
    assert!(!file.exists());
}

#[test]
fn a_revoked_device_stays_in_history_and_its_name_is_spent() {
    let fresh = Fresh::new("revoke");
    assert_eq!(code(&fresh.run(&["device", "add", "ana"])), Some(0));
    assert_eq!(code(&fresh.run(&["device", "revoke", "ana"])), Some(0));
    assert!(!out(&fresh.run(&["device", "list"])).contains("ana"));
    assert!(out(&fresh.run(&["device", "list", "--all"])).contains("revoked"));
    assert_eq!(code(&fresh.run(&["device", "add", "ana"])), Some(1));
    assert_eq!(code(&fresh.run(&["device", "revoke", "nobody"])), Some(1));
}

#[test]
fn a_wrong_name_spares_no_other() {
    let fresh = Fresh::new("spare");
    assert_eq!(code(&fresh.run(&["device", "add", "ana"])), Some(0));
    let revoked = fresh.run(&["device", "revoke", "nobody", "ana", "noone"]);
    assert_eq!(code(&revoked), Some(1));
    assert!(out(&revoked).contains("ana is revoked"));
    let told = err(&revoked);
    assert!(told.contains("nobody") && told.contains("noone"), "{told}");
}

#[test]
fn explain_answers_with_its_exit_code() {
    let fresh = Fresh::new("explain");
    let ask = |group: &str, to: &str| {
        fresh.run(&[
            "policy",
            "explain",
            "--user",
            "ana@example.com",
            "--group",
            group,
            "--to",
            to,
        ])
    };
    assert_eq!(code(&ask("sre", "192.0.2.10:22/tcp")), Some(0));
    let denied = ask("platform", "192.0.2.10:22/tcp");
    assert_eq!(code(&denied), Some(1));
    assert!(
        out(&denied).contains("group sre is required"),
        "{}",
        out(&denied)
    );
    assert_eq!(code(&ask("sre", "nowhere")), Some(1));
}

#[test]
fn a_bad_policy_or_configuration_is_exit_code_two_with_all_that_is_wrong() {
    let fresh = Fresh::new("bad");
    assert_eq!(code(&fresh.run(&["policy", "check"])), Some(0));
    fresh.append("policy.yaml", "\nruels: []\n");
    let policy = fresh.run(&["policy", "check"]);
    assert_eq!(code(&policy), Some(2));
    assert!(
        err(&policy).contains("did you mean `rules`?"),
        "{}",
        err(&policy)
    );

    fresh.append("gateway.yaml", "\nmtu: 100\negress: nat\n");
    let run = fresh.run(&["run"]);
    assert_eq!(code(&run), Some(2));
    for word in ["mtu", "egress", "help:"] {
        assert!(err(&run).contains(word), "{}", err(&run));
    }
    assert_eq!(code(&fresh.run(&["check"])), Some(2));
}

#[test]
fn names_that_nobody_has_are_warned_of_and_strict_refuses_them() {
    let fresh = Fresh::new("warned");
    let check = |more: &[&str]| fresh.run(&[&["policy", "check"], more].concat());
    // Nobody is there yet, so nothing is known.
    let said = check(&["--strict"]);
    assert_eq!(code(&said), Some(0), "{}", err(&said));

    let add = |name: &str, group: &str| {
        let words = ["device", "add", name, "--user", "ana@example.com"];
        let added = fresh.run(&[&words[..], &["--group", group]].concat());
        assert!(added.status.success(), "{}", err(&added));
    };
    add("ana-laptop", "platfrom");
    let said = check(&[]);
    assert_eq!(code(&said), Some(0), "a warning refuses nothing");
    assert!(out(&said).contains("is good"), "{}", out(&said));
    let told = err(&said);
    for words in [
        "warning: nobody is in the group `platform`",
        "help: did you mean `platfrom`?",
        "warning: nobody is in the group `sre`",
    ] {
        assert!(told.contains(words), "{told}");
    }
    assert_eq!(code(&check(&["--strict"])), Some(1));

    add("bo-laptop", "platform");
    add("cy-laptop", "sre");
    let said = check(&["--strict"]);
    assert_eq!(code(&said), Some(0), "{}", err(&said));
}

#[test]
fn a_policy_is_checked_where_no_gateway_is() {
    let fresh = Fresh::new("alone");
    let policy = fresh.path("wide.yaml");
    let text = "version: 1\nrules:\n  - { name: all, action: allow, from: anyone, to: anything }\n";
    std::fs::write(&policy, text).expect("written");
    std::fs::remove_file(fresh.path("gateway.yaml")).expect("there");
    let path = policy.to_str().expect("UTF-8");
    let said = fresh.run(&["policy", "check", path]);
    assert_eq!(code(&said), Some(0), "{}", err(&said));
    assert!(
        err(&said).contains("allows every address of IPv4"),
        "{}",
        err(&said)
    );
    assert_eq!(
        code(&fresh.run(&["policy", "check", "--strict", path])),
        Some(1)
    );
}

#[test]
fn the_schema_that_is_printed_is_the_one_in_the_repository() {
    let fresh = Fresh::new("schema");
    let printed = fresh.run(&["policy", "schema"]);
    assert_eq!(code(&printed), Some(0));
    assert_eq!(
        out(&printed),
        include_str!("../../policy-examples/policy.schema.json")
    );
}

#[test]
fn a_failing_policy_test_is_exit_code_one() {
    let fresh = Fresh::new("tests");
    assert_eq!(code(&fresh.run(&["policy", "test"])), Some(0));
    fresh.append(
        "policy.yaml",
        "  - { user: x, to: \"192.0.2.99:1/tcp\", expect: allow }\n",
    );
    let failed = fresh.run(&["policy", "test"]);
    assert_eq!(code(&failed), Some(1));
    assert!(out(&failed).contains("FAILED"), "{}", out(&failed));
}

#[test]
fn a_key_that_others_can_read_is_found() {
    let fresh = Fresh::new("key");
    let key = fresh.path("gateway.key");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).expect("chmod");
    let check = fresh.run(&["check"]);
    assert_ne!(code(&check), Some(0));
    assert!(out(&check).contains("chmod 600"), "{}", out(&check));
}

#[test]
fn without_a_gateway_the_live_verbs_say_so() {
    let fresh = Fresh::new("absent");
    for words in [
        &["status"][..],
        &["flows", "list"],
        &["flows", "kill", "1"],
        &["policy", "reload"],
    ] {
        let said = fresh.run(words);
        assert_eq!(code(&said), Some(1), "{words:?}");
        assert!(
            err(&said).contains("no gateway is running"),
            "{words:?}: {}",
            err(&said)
        );
    }
}
