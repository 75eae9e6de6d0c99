//! Plays the committed corpus: whatever a fuzzer once found, and seeds that show it the way.

use std::fs;
use std::path::Path;

#[test]
fn packets() {
    play("packet", postern_fuzz::packet);
}

#[test]
fn wireguard_datagrams() {
    play("wireguard", postern_fuzz::wireguard);
}

#[test]
fn policies() {
    play("policy", postern_fuzz::policy);
    let examples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../policy-examples");
    for file in fs::read_dir(examples)
        .expect("the examples are there")
        .flatten()
    {
        postern_fuzz::policy(&fs::read(file.path()).expect("readable"));
    }
}

#[test]
fn control_messages() {
    play("control", postern_fuzz::control);
}

#[test]
fn control_api_bodies() {
    play("control_api", postern_fuzz::control_api);
}

#[test]
fn spool_lines() {
    play("spool_line", postern_fuzz::spool_line);
}

#[test]
fn first_bytes() {
    play("hints", postern_fuzz::hints);
}

#[test]
fn worlds() {
    play("world", postern_fuzz::world);
}

#[allow(clippy::print_stdout)]
fn play(target: &str, run: fn(&[u8])) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&corpus)
        .expect("the corpus is there")
        .flatten()
        .map(|file| file.path())
        .collect();
    files.sort();
    assert!(files.len() > 3, "the corpus of {target} is nearly empty");
    for file in files {
        let bytes = fs::read(&file).expect("readable");
        // Named before it runs, so that a panic is understood.
        println!("{}", file.display());
        run(&bytes);
    }
}
