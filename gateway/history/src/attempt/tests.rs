use super::*;
use proptest::prelude::*;

/// As `docs/records.example.jsonl` has it: every line that the program can write.
const EXAMPLES: &str = include_str!("../../../../docs/records.example.jsonl");

const OPEN: &str = r#"{"schema":4,"kind":"flow","gateway":"gw","boot":"4","worker":2,"seq":5,"time":"2026-11-22T05:00:47.621Z","state":"open","verdict":"allow","rule":"kubectl","policy":"a393","user":"ana@example.com","groups":["platform"],"device":"ana-laptop","device_key":"93/0sQeI","facts":"00112233445566ff","issuer":"https://login.example.net","session":"k7r2q9xw","session_age_s":1804,"client_outer":"198.51.100.7:51820","protocol":"tcp","src_address":"100.96.0.2","src_port":40313,"dst_address":"192.0.2.33","dst_port":22,"target":"nodes","flow":7,"start":"2026-11-22T05:00:47.620Z","later":{"a":[1,"x"]},"n":70027,"prev":"88","crc":"73"}"#;

#[test]
fn an_attempt_is_what_its_line_says() {
    let read = Attempt::read(OPEN.as_bytes()).expect("an attempt");
    let expected = Attempt {
        start: Wall(1_795_323_647_620_000_000),
        state: State::Open,
        allow: true,
        rule: "kubectl".to_owned(),
        policy: "a393".to_owned(),
        user: Some("ana@example.com".to_owned()),
        groups: vec!["platform".to_owned()],
        device: Some("ana-laptop".to_owned()),
        facts: Some("00112233445566ff".to_owned()),
        issuer: Some("https://login.example.net".to_owned()),
        session_age: Some(Duration::from_secs(1804)),
        outer: "198.51.100.7".parse().ok(),
        to: "192.0.2.33:22/tcp".parse().ok(),
        ports: Vec::new(),
        count: 1,
        deny_reason: None,
        flow: Some(7),
        resumed: false,
        boot: "4".to_owned(),
        seq: (2, 5),
    };
    assert_eq!(read, expected);
}

#[test]
fn a_flow_that_was_taken_up_says_so() {
    let line = OPEN.replace(r#""flow":7"#, r#""flow":7,"resumed":true"#);
    assert!(Attempt::read(line.as_bytes()).is_some_and(|read| read.resumed));
}

#[test]
fn every_example_of_an_attempt_is_read_and_nothing_else() {
    let mut attempts = 0;
    for line in EXAMPLES.lines() {
        let kind = |kind: &str| line.contains(&format!(r#""kind":"{kind}""#));
        assert_eq!(
            Attempt::read(line.as_bytes()).is_some(),
            kind("flow"),
            "{line}"
        );
        attempts += usize::from(kind("flow"));
    }
    assert!(attempts > 10);
}

#[test]
fn older_lines_are_read() {
    // Schema 1: no kind, no worker, no facts; here of a machine.
    let line = r#"{"schema":1,"gateway":"gw","boot":"1","seq":9,"time":"2026-01-01T00:00:01.000Z","state":"denied","verdict":"deny","rule":"default","policy":"ab","groups":[],"device":"ci","device_key":"x","protocol":"udp","src_address":"100.96.0.2","src_port":5,"dst_address":"2001:db8::1","dst_port":53,"deny_reason":"policy","count":12,"start":"2026-01-01T00:00:00.000Z","end":"2026-01-01T00:00:01.000Z","dst_ports":[53,54]}"#;
    let read = Attempt::read(line.as_bytes()).expect("an attempt");
    assert_eq!(
        (read.count, read.seq, read.facts.is_none()),
        (12, (0, 9), true)
    );
    let asked: Vec<String> = read.tuples().map(|to| to.to_string()).collect();
    assert_eq!(asked, ["[2001:db8::1]:53/udp", "[2001:db8::1]:54/udp"]);
}

#[test]
fn a_scan_and_a_pseudonym_lead_nowhere() {
    let scan = OPEN
        .replace(r#""dst_address":"192.0.2.33","#, r#""scan":true,"#)
        .replace("198.51.100.7:51820", "h:0011");
    let read = Attempt::read(scan.as_bytes()).expect("an attempt");
    assert_eq!((read.to, read.outer), (None, None));
    assert_eq!(read.tuples().count(), 0);
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes: Vec<u8>, from in 0..OPEN.len(), len in 0usize..12) {
        let _ = Attempt::read(&bytes);
        // A line in which something else stands somewhere.
        let mut line = OPEN.as_bytes().to_vec();
        let to = (from + len).min(line.len());
        line.splice(from..to, bytes);
        let _ = Attempt::read(&line);
    }
}
