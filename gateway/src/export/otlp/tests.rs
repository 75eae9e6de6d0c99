use super::super::batch::batch;
use super::*;

const FLOW: &str = r#"{"kind":"flow","gateway":"gw","time":"2026-11-22T05:00:43.120Z","verdict":"deny","user":"ann","deny_reason":"no-rule"}"#;
const LOST: &str =
    r#"{"kind":"log","gateway":"gw2","time":"2026-11-22T05:00:45.000Z","event":"lost"}"#;

#[test]
fn a_record_is_body_time_severity_and_attributes() {
    let request = request(batch(&[(7, FLOW), (8, LOST)]).head(9), 5);
    assert_eq!(request.resources.len(), 2, "one for each gateway");
    let record = &request.resources[0].scopes[0].records[0];
    assert_eq!(
        (record.time, record.observed),
        (1_795_323_643_120_000_000, 5)
    );
    assert_eq!(
        (record.severity, record.severity_text.as_str()),
        (13, "WARN")
    );
    assert_eq!(record.event_name, "postern.flow");
    let body = record.body.clone().and_then(|body| body.value);
    assert_eq!(body, Some(wire::Value::Text(FLOW.into())));
    let expected = vec![
        wire::text("kind", "flow"),
        wire::text("verdict", "deny"),
        wire::text("user", "ann"),
        wire::text("deny_reason", "no-rule"),
        wire::number("n", 7),
    ];
    assert_eq!(record.attributes, expected);
    let lost = &request.resources[1].scopes[0].records[0];
    assert_eq!(lost.severity_text, "ERROR");
    let named = request.resources[1].resource.as_ref().expect("set");
    assert!(
        named
            .attributes
            .contains(&wire::text("service.instance.id", "gw2"))
    );
}

#[test]
fn what_is_no_record_is_still_sent() {
    let request = request(batch(&[(1, "[1,")]).head(1), 5);
    let record = &request.resources[0].scopes[0].records[0];
    assert_eq!((record.time, record.severity_text.as_str()), (0, "INFO"));
    let body = record.body.clone().and_then(|body| body.value);
    assert_eq!(body, Some(wire::Value::Text("[1,".into())));
}
