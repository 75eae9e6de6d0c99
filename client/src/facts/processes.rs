//! Which of the processes that were asked for run.

use super::text_of;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The kernel keeps so many bytes of a process's name (proc_pid_comm(5)).
const COMM: usize = 15;

/// By name, as in PID/comm of `proc`.
pub(super) fn running(proc: &Path, watched: &BTreeSet<String>) -> BTreeMap<String, bool> {
    if watched.is_empty() {
        return BTreeMap::new();
    }
    let Ok(entries) = std::fs::read_dir(proc) else {
        return BTreeMap::new();
    };
    let names: BTreeSet<String> = entries
        .flatten()
        .filter(|entry| {
            let name = entry.file_name();
            name.as_encoded_bytes().iter().all(u8::is_ascii_digit)
        })
        .filter_map(|entry| text_of(&entry.path().join("comm")))
        .map(|name| name.trim_end_matches('\n').to_owned())
        .collect();
    let kept = |name: &str| match name.get(..COMM) {
        Some(start) => names.contains(start),
        None => names.contains(name),
    };
    watched
        .iter()
        .map(|name| (name.clone(), kept(name)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_process_is_found_by_its_name_and_long_names_by_what_the_kernel_keeps() {
        let proc = std::env::temp_dir().join(format!("postern-proc-{}", std::process::id()));
        for (pid, name) in [
            ("7", "falcon-sensor"),
            ("8", "a-very-long-pro"),
            ("net", "fake"),
        ] {
            fs::create_dir_all(proc.join(pid)).expect("made");
            fs::write(proc.join(pid).join("comm"), format!("{name}\n")).expect("written");
        }
        let watched = ["falcon-sensor", "falcon", "a-very-long-process", "fake"];
        let watched = watched.map(str::to_owned).into_iter().collect();
        let found = running(&proc, &watched);
        fs::remove_dir_all(&proc).expect("removed");
        let found: Vec<_> = found.iter().filter(|(_, runs)| **runs).collect();
        let names: Vec<_> = found.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["a-very-long-process", "falcon-sensor"]);
        assert_eq!(
            running(&proc, &watched),
            BTreeMap::new(),
            "no /proc: absent"
        );
    }
}
