use super::*;
use crate::flow_log::FlowLog;
use crate::flow_log::sample::{self, PERSONAL};
use crate::scratch::Scratch;
use std::collections::BTreeSet;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

const KEEP: Privacy = Privacy {
    user: Treatment::Keep,
    device: Treatment::Keep,
    outer_address: Treatment::Keep,
    hints: Hints::Keep,
};

fn all(how: Treatment) -> Privacy {
    Privacy {
        user: how,
        device: how,
        outer_address: how,
        hints: Hints::Drop,
    }
}

fn lines(config: Privacy, folder: &Scratch) -> Vec<String> {
    let mut redactor = Redactor::open(config, &folder.path("")).expect("opens");
    let mut records = sample::records();
    records.iter_mut().for_each(|record| redactor.apply(record));
    let line = |record| serde_json::to_string(record).expect("encodes");
    let mut audit = sample::audit();
    audit
        .iter_mut()
        .for_each(|line| redactor.apply_to_audit(line));
    let events = audit
        .iter()
        .map(|line| serde_json::to_string(line).expect("encodes"));
    records.iter().map(line).chain(events).collect()
}

#[test]
fn nothing_personal_is_in_any_line() {
    let folder = Scratch::new();
    let kept = lines(KEEP, &folder);
    for word in PERSONAL {
        let here = kept.iter().filter(|line| line.contains(word)).count();
        assert!(here > 0, "the sample has {word}, or this test says nothing");
    }
    for how in [Treatment::Hash, Treatment::Drop] {
        let written = lines(all(how), &folder);
        assert_eq!(written.len(), kept.len());
        for line in written {
            for word in PERSONAL {
                assert!(!line.contains(word), "{how:?}: {word} is in {line}");
            }
        }
    }
}

#[test]
fn one_field_is_treated_and_the_others_stay() {
    let folder = Scratch::new();
    let user = lines(
        Privacy {
            user: Treatment::Drop,
            ..KEEP
        },
        &folder,
    );
    let of_ana: Vec<_> = user.iter().filter(|l| l.contains("ana-laptop")).collect();
    assert!(!of_ana.is_empty() && of_ana.iter().all(|l| l.contains("198.51.100.7:51820")));
    assert!(user.iter().all(|line| !line.contains("@example.com")));
    let device = lines(
        Privacy {
            device: Treatment::Drop,
            ..KEEP
        },
        &folder,
    );
    for line in device {
        assert!(
            !line.contains("\"device\":")
                && !line.contains("\"device_key")
                && !line.contains("ana-laptop"),
            "{line}"
        );
    }
}

#[test]
fn the_words_say_that_a_name_is_not_kept() {
    let folder = Scratch::new();
    let dropped = lines(all(Treatment::Drop), &folder).join("\n");
    for words in [
        "user (not kept) is required; the device belongs to (not kept)",
        "device (not kept) is required; this one is (not kept)",
        "group sre is required; (not kept) has platform",
        "group sre is required; (not kept) has robots",
        "kubectl: user (not kept) is required; the device belongs to (not kept)",
    ] {
        assert!(dropped.contains(words), "{words}: {dropped}");
    }
}

#[test]
fn pseudonyms_join_records_and_differ_between_gateways() {
    let folder = Scratch::new();
    let read = || PseudonymKey::read(&folder.path("")).expect("made by the gateway");
    let written = lines(all(Treatment::Hash), &folder);
    let ana = read().pseudonym_of("ana@example.com");
    assert_eq!(ana.len(), "h:0123456789abcdef".len());
    let of_ana = written
        .iter()
        .filter(|line| line.contains(&format!(r#""user":"{ana}""#)));
    assert!(of_ana.count() > 5);
    assert!(
        written
            .iter()
            .any(|line| line.contains(&format!("the device belongs to {ana}")))
    );
    let outer = read().pseudonym_of("198.51.100.7:51820");
    assert_eq!(outer, read().pseudonym_of("::ffff:198.51.100.7"));
    assert!(
        written
            .iter()
            .any(|line| line.contains(&format!(r#""client_outer":"{outer}""#)))
    );
    // Again after a restart: the same.
    assert_eq!(lines(all(Treatment::Hash), &folder), written);
    let other = Scratch::new();
    let theirs = lines(all(Treatment::Hash), &other);
    let names = |lines: &[String]| -> BTreeSet<String> {
        let words = lines.iter().flat_map(|line| line.split(['"', ' ']));
        words
            .filter(|word| word.starts_with("h:"))
            .map(str::to_owned)
            .collect()
    };
    assert!(names(&written).len() >= 8);
    assert!(names(&written).is_disjoint(&names(&theirs)));
}

/// RFC 4231, test case 2.
#[test]
fn a_pseudonym_is_the_head_of_an_hmac() {
    let key = PseudonymKey::new(b"Jefe");
    assert_eq!(
        key.pseudonym("what do ya want for nothing?"),
        "h:5bdcc146bf60754e"
    );
    assert!(!format!("{key:?}").contains("Hmac"));
}

#[test]
fn no_key_is_made_that_is_not_needed() {
    let folder = Scratch::new();
    lines(all(Treatment::Drop), &folder);
    let error = PseudonymKey::read(&folder.path("")).expect_err("never needed");
    assert!(matches!(error, PrivacyError::NoKey(_)), "{error}");
}

#[test]
fn the_key_is_closed_to_others_and_what_is_no_key_is_refused() {
    let folder = Scratch::new();
    let path = folder.path(KEY_FILE);
    // A power cut left half of one.
    std::fs::write(path.with_extension("new"), "half").expect("written");
    let open = || Redactor::open(all(Treatment::Hash), &folder.path(""));
    open().expect("made");
    let mode = std::fs::metadata(&path)
        .expect("there")
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o600);
    assert!(!path.with_extension("new").exists());

    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).expect("chmod");
    let error = open().expect_err("open to the group").to_string();
    assert!(error.contains("chmod 600"), "{error}");

    std::fs::remove_file(&path).expect("removed");
    key_file::create(&path, "secret?").expect("written");
    let error = open().expect_err("no key").to_string();
    assert!(
        error.contains("backup") && !error.contains("secret?"),
        "{error}"
    );
}

#[test]
fn what_is_remembered_is_bounded_and_never_mixed_up() {
    let folder = Scratch::new();
    let config = Privacy {
        user: Treatment::Drop,
        ..KEEP
    };
    let mut redactor = Redactor::open(config, &folder.path("")).expect("opens");
    let mut record = sample::records().remove(0);
    for n in 0..3 * KNOWN {
        record.who = Arc::new(Who {
            user: Some("ana".into()),
            groups: Vec::new(),
            device: Some(format!("d{n}")),
            device_key: None,
            ..Who::default()
        });
        redactor.apply(&mut record);
        assert_eq!(record.who.device, Some(format!("d{n}")));
        assert!(redactor.known.len() <= KNOWN);
    }
}

/// The raw bytes of every file of the log, and every line that a listener gets.
#[test]
fn neither_the_disk_nor_a_listener_gets_a_name() {
    let folder = Scratch::new();
    let mut config = crate::init::init(&folder.path("gw"), None).expect("made");
    config.flow_log.privacy = all(Treatment::Hash);
    let log = FlowLog::start(&config, 4, 1).expect("starts");
    let mut listener = log.handle().subscribe();
    let sender = log.sender(0);
    let records = sample::records();
    let made = records.len();
    assert!(sender.offer(records).is_ok());
    drop(sender);
    let status = log.finish(Duration::from_secs(30));
    assert_eq!(status.written, u64::try_from(made).expect("few"));

    let files = std::fs::read_dir(&config.flow_log.dir).expect("there");
    let mut told: Vec<Vec<u8>> = files
        .map(|file| std::fs::read(file.expect("named").path()).expect("readable"))
        .collect();
    assert!(told.iter().map(Vec::len).sum::<usize>() > 100 * made);
    let mut heard = 0;
    while let Ok(line) = listener.try_recv() {
        told.push(line.as_bytes().to_vec());
        heard += 1;
    }
    assert!(heard >= made, "{heard} of {made}");
    for word in PERSONAL {
        let has = |bytes: &Vec<u8>| {
            bytes
                .windows(word.len())
                .any(|here| here == word.as_bytes())
        };
        assert!(!told.iter().any(has), "{word} is told");
    }
}

#[test]
fn a_record_of_before_is_treated_once() {
    let folder = Scratch::new();
    let hash = Privacy {
        user: Treatment::Hash,
        device: Treatment::Drop,
        outer_address: Treatment::Hash,
        ..Privacy::default()
    };
    let redactor = Redactor::open(hash, &folder.path("")).expect("opens");
    let before = br#"{"user":"ana@example.com","device":"ana-laptop","device_key":"93/0sQeI","client_outer":"198.51.100.7:51820","rule":"ssh"}"#;
    let after = redactor.apply_again(before.to_vec());
    let text = String::from_utf8(after.clone()).expect("UTF-8");
    assert!(
        !text.contains("ana") && !text.contains("198.51") && !text.contains("device"),
        "{text}"
    );
    let key = PseudonymKey::read(&folder.path("")).expect("made");
    for name in ["ana@example.com", "198.51.100.7"] {
        assert!(text.contains(&key.pseudonym(name)), "{name} in {text}");
    }
    assert_eq!(redactor.apply_again(after.clone()), after);
    let keep = Redactor::open(Privacy::default(), &folder.path("")).expect("opens");
    assert_eq!(keep.apply_again(before.to_vec()), before);
}
