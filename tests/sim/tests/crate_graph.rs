//! Who may import whom, and what the pure crates may name: the rules of the architecture, as tests.

use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// For each crate of ours, those of ours that it may import, and why no others.
const IMPORTS: [(&str, &[&str], &str); 12] = [
    (
        "postern-proto",
        &[],
        "both ends share it, so it knows neither",
    ),
    (
        "postern-io",
        &["postern-proto"],
        "it moves bytes and decides nothing",
    ),
    (
        "postern-stack",
        &["postern-proto"],
        "packets in, packets out: both ends have one, and it opens no socket",
    ),
    (
        "postern-engine",
        &["postern-proto"],
        "what decides is pure: no socket, no clock, no file",
    ),
    (
        "postern-spool",
        &[],
        "it keeps lines, whatever they say; so a copy can be read without a gateway",
    ),
    (
        "postern-history",
        &["postern-engine", "postern-proto"],
        "the past is judged by the same function as the present, and is just as pure",
    ),
    (
        "postern-gateway",
        &[
            "postern-engine",
            "postern-history",
            "postern-io",
            "postern-proto",
            "postern-spool",
            "postern-stack",
        ],
        "the shell of the engine",
    ),
    (
        "postern",
        &["postern-io", "postern-proto", "postern-stack"],
        "a laptop knows no policy",
    ),
    (
        "postern-sim",
        &[
            "postern",
            "postern-engine",
            "postern-history",
            "postern-proto",
        ],
        "the simulated world has no real one in it",
    ),
    (
        "postern-fuzz",
        &[
            "postern",
            "postern-engine",
            "postern-proto",
            "postern-sim",
            "postern-spool",
        ],
        "what reads foreign bytes, and the simulated world",
    ),
    (
        "postern-load",
        &["postern-proto"],
        "load comes from outside: it speaks WireGuard and knows no gateway",
    ),
    (
        "postern-speed",
        &[
            "postern",
            "postern-engine",
            "postern-gateway",
            "postern-history",
            "postern-io",
            "postern-proto",
        ],
        "it measures the whole road, from the TUN of one end to that of the other, and to the log",
    ),
];

/// Crates that `postern-proto`, `postern-engine` and `postern-history` must not reach, however far down.
const WORLDLY: [&str; 8] = [
    "tokio",
    "postern-io",
    "socket2",
    "rustix",
    "mio",
    "sqlx",
    "tun-rs",
    "quinn-udp",
];

/// What the sources of pure code must not name, and why.
const IMPURE: [(&str, &str); 13] = [
    ("std::time::Instant", TIME),
    ("time::SystemTime", TIME),
    ("Instant::now", TIME),
    ("SystemTime::now", TIME),
    ("std::fs", WORLD),
    ("std::env", WORLD),
    ("UdpSocket", WORLD),
    ("TcpStream", WORLD),
    ("TcpListener", WORLD),
    ("std::thread", WORLD),
    ("thread_rng", CHANCE),
    ("OsRng", CHANCE),
    ("getrandom", CHANCE),
];
const TIME: &str = "time is an argument, `Now`, so that the same steps give the same records";
const WORLD: &str = "files, sockets and threads belong to the shells, so that the simulated world can drive this code";
const CHANCE: &str = "chance is an argument, a seed, so that a failure can be played again";

#[test]
fn every_crate_imports_only_what_it_may() {
    let graph = Graph::read();
    let ours: BTreeSet<&str> = IMPORTS.iter().map(|(name, _, _)| *name).collect();
    let known: BTreeSet<&str> = graph
        .normal
        .keys()
        .map(String::as_str)
        .filter(|name| name.starts_with("postern"))
        .collect();
    assert_eq!(
        known, ours,
        "a crate of ours has no rule here: add it to IMPORTS, with the reason"
    );
    let mut broken = Vec::new();
    for (name, may, why) in IMPORTS {
        for import in graph.normal[name]
            .iter()
            .filter(|import| ours.contains(import.as_str()))
        {
            if !may.contains(&import.as_str()) {
                broken.push(format!(
                    "{name} imports {import}, and may import only {may:?}: {why}"
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_pure_crates_reach_nothing_of_the_world() {
    let graph = Graph::read();
    let mut broken = Vec::new();
    for start in ["postern-proto", "postern-engine", "postern-history"] {
        for (reached, way) in graph.reached_from(start) {
            if WORLDLY.contains(&reached.as_str()) {
                broken.push(format!(
                    "{start} reaches {reached} ({}): {WORLD}",
                    way.join(" > ")
                ));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn pure_sources_name_no_clock_no_file_and_no_chance() {
    let mut broken = Vec::new();
    for file in pure_sources() {
        let code = code_of(&file);
        for (word, why) in IMPURE.iter().filter(|(word, _)| code.contains(word)) {
            broken.push(format!("{} names {word}: {why}", file.display()));
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn only_io_is_unsafe() {
    let mut broken = Vec::new();
    for krate in [
        "common/proto",
        "common/stack",
        "gateway/engine",
        "gateway",
        "client",
        "tests/sim",
        "tests/fuzz",
        "tests/load",
        "tests/speed",
    ] {
        let sources = root().join(krate).join("src");
        for top in ["lib.rs", "main.rs"].map(|name| sources.join(name)) {
            if top.exists() && !code_of(&top).contains("#![forbid(unsafe_code)]") {
                broken.push(format!(
                    "{} does not forbid unsafe code: only common/io has any",
                    top.display()
                ));
            }
        }
        for file in sources_in(&sources) {
            let code = code_of(&file).replace("unsafe_code", "");
            if code
                .split(|c: char| !c.is_alphanumeric() && c != '_')
                .any(|word| word == "unsafe")
            {
                broken.push(format!("{} has unsafe code: it belongs to common/io, in a small function with a SAFETY line", file.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn etherparse_and_boringtun_have_one_door_each() {
    let mut broken = Vec::new();
    for folder in ["common", "gateway", "client", "tests"] {
        for file in sources_in(&root().join(folder)) {
            let Ok(path) = file.strip_prefix(root()) else {
                continue;
            };
            let path = path.to_string_lossy();
            let code = code_of(&file);
            // Tests may ask another parser.
            let packet = path.starts_with("common/proto/src/packet") || path.ends_with("tests.rs");
            let tunnel = path.starts_with("common/proto/src/tunnel")
                || path.starts_with("common/proto/src/gate");
            if code.contains("etherparse::") && !packet {
                broken.push(format!(
                    "{path} names etherparse: bytes are proved in proto::packet and nowhere else"
                ));
            }
            if code.contains("boringtun::") && !tunnel {
                broken.push(format!("{path} names boringtun: its clock and its limiter are tamed in proto::tunnel and proto::gate"));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_rules_here_can_fail() {
    let text = "use std::time::Instant; // std::fs\n/* OsRng */ let a = 1;\n#[cfg(test)]\nmod tests {\n use std::env;\n}\n";
    let code = stripped(text);
    assert!(
        code.contains("std::time::Instant")
            && !code.contains("std::fs")
            && !code.contains("std::env")
    );
    assert!(pure_sources().len() > 30, "the pure sources were found");
    let engine = Graph::read().reached_from("postern-engine");
    assert!(
        engine.contains_key("boringtun"),
        "the graph is followed all the way down"
    );
}

/// Normal dependencies of every package: what tests and build scripts need is not shipped.
struct Graph {
    normal: BTreeMap<String, BTreeSet<String>>,
}

impl Graph {
    fn read() -> Graph {
        let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".into());
        let output = Command::new(cargo)
            .args(["metadata", "--format-version", "1", "--locked"])
            .current_dir(root())
            .output()
            .expect("cargo runs");
        assert!(
            output.status.success(),
            "cargo metadata: {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let metadata: Value = serde_json::from_slice(&output.stdout).expect("cargo writes JSON");
        let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let names: BTreeMap<String, String> = list(&metadata["packages"])
            .iter()
            .map(|package| (text(&package["id"]), text(&package["name"])))
            .collect();
        let mut normal: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
        for node in list(&metadata["resolve"]["nodes"]) {
            let imports = list(&node["deps"]).into_iter().filter(|dep| {
                list(&dep["dep_kinds"])
                    .iter()
                    .any(|kind| kind["kind"].is_null())
            });
            let imports = imports.filter_map(|dep| names.get(&text(&dep["pkg"])).cloned());
            normal
                .entry(names[&text(&node["id"])].clone())
                .or_default()
                .extend(imports);
        }
        Graph { normal }
    }

    /// Everything below `start`, each with the way to it.
    fn reached_from(&self, start: &str) -> BTreeMap<String, Vec<String>> {
        let mut reached = BTreeMap::from([(start.to_owned(), vec![start.to_owned()])]);
        let mut next = vec![start.to_owned()];
        while let Some(name) = next.pop() {
            for import in self.normal.get(&name).into_iter().flatten() {
                if !reached.contains_key(import) {
                    let mut way = reached[&name].clone();
                    way.push(import.clone());
                    reached.insert(import.clone(), way);
                    next.push(import.clone());
                }
            }
        }
        reached
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../..")
        .canonicalize()
        .expect("the workspace is there")
}

/// Sources that must be pure, without their tests.
fn pure_sources() -> Vec<PathBuf> {
    let root = root();
    let mut files: Vec<PathBuf> = [
        "common/proto/src",
        "gateway/engine/src",
        "gateway/history/src",
        "client/src/state",
    ]
    .iter()
    .flat_map(|folder| sources_in(&root.join(folder)))
    .collect();
    let single = [
        "client/src/state.rs",
        "client/src/prefixes.rs",
        "common/stack/src/connection.rs",
        "common/stack/src/device.rs",
        "common/stack/src/stack.rs",
    ];
    files.extend(single.map(|file| root.join(file)));
    files.retain(|file| {
        !file
            .iter()
            .any(|part| part == "tests" || part == "tests.rs")
    });
    files
}

fn sources_in(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() && !path.ends_with("target") {
            files.extend(sources_in(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn code_of(file: &Path) -> String {
    stripped(
        &fs::read_to_string(file).unwrap_or_else(|error| panic!("{}: {error}", file.display())),
    )
}

/// Without comments, without strings, and without the tests at the end.
fn stripped(text: &str) -> String {
    let text = text
        .split("#[cfg(test)]\nmod tests {")
        .next()
        .unwrap_or_default();
    let mut code = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            rest.find("*/").map_or(rest.len(), |end| end + 2)
        } else if rest.starts_with("'\"'") {
            3
        } else if first == '"' {
            end_of_string(rest)
        } else {
            code.push(first);
            first.len_utf8()
        };
        rest = &rest[skip..];
    }
    code
}

/// Where a string that starts here ends. A raw string with quotes in it ends early, and what
/// follows is looked at as code: a false alarm at worst.
fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, character) in text.char_indices().skip(1) {
        match character {
            '"' if !escaped => return at + 1,
            '\\' => escaped = !escaped,
            _ => escaped = false,
        }
    }
    text.len()
}
