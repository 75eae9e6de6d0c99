use super::super::batch::batch;
use super::*;

fn line(time: &str, verdict: &str) -> String {
    format!(r#"{{"kind":"flow","gateway":"gw","time":"{time}","verdict":"{verdict}","rule":"r"}}"#)
}

#[test]
fn streams_have_few_labels_and_keep_their_order() {
    let lines = [
        line("2026-11-22T05:00:43.120Z", "deny"),
        line("2026-11-22T05:00:44.000Z", "allow"),
        r#"{"kind":"log","gateway":"gw","time":"2026-11-22T05:00:45.000Z","event":"lost"}"#.into(),
        line("2026-11-22T05:00:42.000Z", "deny"),
    ];
    let lines: Vec<_> = (1..).zip(lines.iter().map(String::as_str)).collect();
    let batch = batch(&lines);
    let body = protobuf(batch.head(9)).expect("encoded");
    let plain = snap::raw::Decoder::new()
        .decompress_vec(&body)
        .expect("Snappy");
    let push = wire::Push::decode(&plain[..]).expect("the message");
    let shown: Vec<_> = push
        .streams
        .iter()
        .map(|stream| {
            let entries = stream.entries.iter();
            let numbers = entries.map(|entry| entry.metadata.last().expect("n").value.clone());
            (stream.labels.as_str(), numbers.collect::<Vec<_>>())
        })
        .collect();
    assert_eq!(
        shown,
        [
            (
                r#"{gateway="gw", job="postern", kind="flow", verdict="allow"}"#,
                vec!["2".into()]
            ),
            (
                r#"{gateway="gw", job="postern", kind="flow", verdict="deny"}"#,
                vec!["1".into(), "4".into()]
            ),
            (
                r#"{gateway="gw", job="postern", kind="log"}"#,
                vec!["3".into()]
            ),
        ] as [(&str, Vec<String>); 3]
    );
    let entry = &push.streams[1].entries[0];
    assert_eq!(entry.line, lines[0].1, "byte for byte");
    let time = entry.timestamp.expect("set");
    assert_eq!((time.seconds, time.nanos), (1_795_323_643, 120_000_000));
}

#[test]
fn labels_are_quoted() {
    let labels = Labels::from([("gateway", "a\"b\\c\n".to_owned())]);
    assert_eq!(selector(&labels), r#"{gateway="a\"b\\c\u000a"}"#);
}
