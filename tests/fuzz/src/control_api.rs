//! Bodies of requests to the control API.

use postern_proto::device_api::{
    JoinRequest, LoginFinish, LoginStart, MAX_BODY, PostureReport, RotateRequest, WhyRequest, read,
    write,
};
use postern_proto::facts::{Facts, MAX_PATH, MAX_WATCHED, MAX_WORD, Watched};
use postern_proto::kem;

/// Read twice, the same; refused, in words that are no longer than they need to be.
macro_rules! again {
    ($kind:ty, $data:expr) => {
        match read::<$kind>($data) {
            Ok(value) => {
                assert_eq!(read::<$kind>(&write(&value)).as_ref(), Ok(&value));
                Some(value)
            }
            Err(error) => {
                let words = error.to_string();
                assert!((10..1000).contains(&words.len()), "{words}");
                None
            }
        }
    };
}

/// The body of a request to the control API.
pub fn control_api(data: &[u8]) {
    let data = data.get(..MAX_BODY).unwrap_or(data);
    if let Some(join) = again!(JoinRequest, data) {
        facts(join.facts);
        kem_key(join.kem_key.as_deref());
    }
    if let Some(report) = again!(PostureReport, data) {
        facts(report.facts);
    }
    if let Some(rotate) = again!(RotateRequest, data) {
        kem_key(rotate.kem_key.as_deref());
    }
    let _ = again!(LoginStart, data);
    let _ = again!(LoginFinish, data);
    let _ = again!(WhyRequest, data);
}

/// What is accepted is bounded, and holds nothing that was not asked for.
fn facts(facts: Facts) {
    let watched = Watched {
        processes: facts.processes.keys().take(2).cloned().collect(),
        files: facts.files.keys().take(2).cloned().collect(),
    };
    let (processes, files) = (facts.processes.len(), facts.files.len());
    let Ok(accepted) = facts.accept(&watched) else {
        return;
    };
    assert!(processes <= MAX_WATCHED && files <= MAX_WATCHED);
    assert_eq!(accepted.processes.len(), watched.processes.len());
    assert_eq!(accepted.files.len(), watched.files.len());
    for name in accepted.processes.keys().chain(&accepted.hostname) {
        assert!(name.chars().count() <= MAX_WORD && !name.contains(char::is_control));
    }
    for (path, hash) in &accepted.files {
        assert!(path.chars().count() <= MAX_PATH);
        assert!(hash.as_ref().is_none_or(|hash| hash.len() == 64));
    }
}

/// A key is refused, or gives a ciphertext of the one length that there is.
fn kem_key(key: Option<&str>) {
    if let Some(Ok((ciphertext, _))) = key.map(|key| kem::seal(key, [7; 32])) {
        assert_eq!(ciphertext.len(), kem::CIPHERTEXT.div_ceil(3) * 4);
    }
}
