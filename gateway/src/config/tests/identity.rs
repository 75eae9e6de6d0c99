use super::*;
use std::time::Duration;

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn logins_reports_and_keys_last_as_long_as_documented() {
    let config = good(LEAST);
    let (session, posture) = (config.session, config.posture);
    assert!(!session.required);
    assert_eq!(session.max_age, Some(12 * HOUR));
    assert_eq!(session.warn_before, HOUR / 6);
    assert_eq!(posture.report_every, HOUR / 60);
    assert_eq!(posture.stale_after, HOUR / 20);
    assert_eq!(config.keys.rotate_after, Some(30 * 24 * HOUR));
}

#[test]
fn never_is_a_word_and_a_short_age_warns_early_enough() {
    let config = good(&format!(
        "{LEAST}session: {{ required: true, max_age: never }}\nkeys: {{ rotate_after: never }}\n\
         posture: {{ report_every: 10m }}\n"
    ));
    assert!(config.session.required);
    assert_eq!(config.session.max_age, None);
    assert_eq!(config.keys.rotate_after, None);
    assert_eq!(config.posture.stale_after, HOUR / 2, "three reports");
    let short = good(&format!("{LEAST}session: {{ max_age: 1m }}\n"));
    assert_eq!(short.session.warn_before, Duration::from_secs(30));
}

#[test]
fn what_cannot_be_is_said_with_its_line() {
    let problems = wrong(&format!(
        "{LEAST}session:\n  max_age: 500ms\n  warn_before: 13h\nposture:\n  report_every: 5s\n  \
         stale_after: 30s\nkeys:\n  rotate_after: often\n"
    ));
    let found: Vec<_> = problems
        .iter()
        .map(|p| (p.line, p.field.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (3, "session.max_age"),
            (4, "session.warn_before"),
            (6, "posture.report_every"),
            (7, "posture.stale_after"),
            (9, "keys.rotate_after"),
        ]
    );
    assert!(problems.iter().all(|problem| !problem.help.is_empty()));
    for unknown in [
        "session: { age: 1h }",
        "posture: { every: 1m }",
        "keys: { age: 1d }",
    ] {
        assert!(matches!(
            parse(&format!("{LEAST}{unknown}\n")),
            Err(ConfigError::Malformed { .. })
        ));
    }
}

#[test]
fn all_of_it_is_live() {
    let running = good(LEAST);
    let newer = good(&format!(
        "{LEAST}session: {{ required: true }}\nposture: {{ report_every: 10s }}\n\
         keys: {{ rotate_after: never }}\n"
    ));
    assert_eq!(running.changes(&newer).live, ["session", "posture", "keys"]);
    let merged = running.with_live_fields(&newer);
    assert_eq!(merged, newer);
}
