//! Every policy in `policy-examples/` compiles, passes its own tests, and tests both answers.
#![allow(clippy::disallowed_methods)] // The examples are files.
#![allow(clippy::unwrap_used)]

use postern_engine::policy::{Known, Mode, Policy, schema};
use postern_proto::now::Wall;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

fn examples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy-examples");
    let files = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    let mut files: Vec<PathBuf> = files
        .filter(|file| file.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    files
}

fn read(file: &Path) -> (String, Policy) {
    let source = std::fs::read_to_string(file).unwrap();
    let policy =
        Policy::parse(&source).unwrap_or_else(|errors| panic!("{}:\n{errors}", file.display()));
    (source, policy)
}

#[test]
fn every_example_passes_its_own_tests() {
    assert!(examples().len() >= 6);
    for file in examples() {
        let (source, policy) = read(&file);
        assert!(
            source.starts_with("# "),
            "{} does not say what it is for",
            file.display()
        );
        let outcomes = policy.run_tests();
        for outcome in &outcomes {
            assert!(outcome.passed, "{}: {outcome:?}", file.display());
        }
        for answer in ["allow", "deny"] {
            let tested = outcomes
                .iter()
                .any(|outcome| outcome.got.starts_with(answer));
            assert!(
                tested,
                "{} has no test that expects {answer}",
                file.display()
            );
        }
    }
}

/// With `POSTERN_BLESS=1` it writes the file.
#[test]
fn the_schema_is_what_the_types_say() {
    let file =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy-examples/policy.schema.json");
    let schema = serde_json::to_string_pretty(&schema()).unwrap() + "\n";
    if std::env::var_os("POSTERN_BLESS").is_some() {
        std::fs::write(&file, &schema).unwrap();
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == schema,
        "run this test with POSTERN_BLESS=1 and look at the difference"
    );
}

#[test]
fn every_example_names_its_schema() {
    for file in examples() {
        let (source, _) = read(&file);
        let line = "# yaml-language-server: $schema=policy.schema.json\n";
        assert!(source.contains(line), "{}", file.display());
    }
}

#[test]
fn no_example_is_warned_of_anything() {
    // 2026-11-22.
    let now = Wall(1_795_305_600_000_000_000);
    for file in examples() {
        let (source, _) = read(&file);
        let warnings = Policy::lints(&source, &Known::default(), now);
        assert!(warnings.is_empty(), "{}: {}", file.display(), warnings[0]);
    }
}

#[test]
fn every_rule_of_an_example_is_exercised() {
    for file in examples() {
        let (_, policy) = read(&file);
        let hit: BTreeSet<String> = policy
            .run_tests()
            .into_iter()
            .filter_map(|outcome| outcome.got.split('"').nth(1).map(str::to_owned))
            .collect();
        // Rules in shadow decide nothing.
        for rule in policy.rules().filter(|rule| rule.mode() == Mode::Enforce) {
            assert!(
                hit.contains(rule.name()),
                "{}: no test reaches {}",
                file.display(),
                rule.name()
            );
        }
    }
}

#[test]
fn the_first_policy_allows_kubectl_and_ssh_to_four_nodes_and_nothing_else() {
    let file = examples()
        .into_iter()
        .find(|file| file.ends_with("first-policy.yaml"))
        .unwrap();
    let (_, policy) = read(&file);
    let include: Vec<String> = policy.addresses().iter().map(ToString::to_string).collect();
    assert_eq!(
        include,
        [
            "5.75.198.10/32",
            "65.109.212.122/32",
            "91.107.250.5/32",
            "192.0.2.10/32"
        ]
    );
    let names: Vec<&str> = policy.rule_names().map(|(_, name)| name).collect();
    assert_eq!(
        names,
        ["kubectl to the API server", "ssh to the nodes", "default"]
    );
}
