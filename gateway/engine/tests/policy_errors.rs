//! Mistakes that people make, each as a file in `bad/`, with what the file's author is told.
//! `POSTERN_BLESS=1` writes the texts anew; read what changed.
#![allow(clippy::disallowed_methods)] // The mistakes are files.
#![allow(clippy::unwrap_used)]

use postern_engine::policy::{Policy, PolicyError};
use std::path::{Path, PathBuf};

fn bad() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bad");
    let files = std::fs::read_dir(folder).unwrap();
    let mut files: Vec<PathBuf> = files.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    files
}

#[test]
fn every_mistake_is_told_with_its_place_and_what_to_write() {
    assert!(bad().len() >= 20);
    let bless = std::env::var_os("POSTERN_BLESS").is_some();
    let mut other = Vec::new();
    for file in bad() {
        let source = std::fs::read_to_string(&file).unwrap();
        let faults = Policy::parse(&source).unwrap_err();
        let whole =
            |fault: &&PolicyError| fault.line > 0 && fault.column > 0 && fault.help.is_some();
        let less = faults.0.iter().filter(|fault| !whole(fault));
        other.extend(
            less.map(|fault| format!("{}: without place or help\n{fault}", file.display())),
        );
        let (told, text) = (format!("{faults}\n"), file.with_extension("txt"));
        if bless {
            std::fs::write(&text, &told).unwrap();
        }
        let expected = std::fs::read_to_string(&text).unwrap_or_default();
        if told != expected {
            other.push(format!("{}\n{told}", file.display()));
        }
    }
    assert!(other.is_empty(), "{}", other.join("\n"));
}
