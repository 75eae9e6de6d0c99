use super::super::batch::{Lines, batch};
use super::super::driver::{Sink, Taken};
use super::super::loki::Loki;
use super::*;
use crate::config::{LokiConfig, LokiFormat};
use crate::scratch::Scratch;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;

/// What a server was asked.
struct Asked {
    head: String,
    body: Vec<u8>,
}

/// Answers one request with each of `answers`, each on a connection of its own.
fn server(answers: Vec<&'static str>) -> (SocketAddr, JoinHandle<Vec<Asked>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("bound");
    let thread = std::thread::spawn(move || {
        let mut asked = Vec::new();
        for answer in answers {
            let (stream, _) = listener.accept().expect("a client");
            let mut reader = BufReader::new(&stream);
            let mut head = String::new();
            while !head.ends_with("\r\n\r\n") {
                assert!(reader.read_line(&mut head).expect("read") > 0, "{head}");
            }
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "))
                .and_then(|length| length.parse().ok())
                .expect("a length");
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("a body");
            asked.push(Asked { head, body });
            (&stream).write_all(answer.as_bytes()).expect("answered");
        }
        asked
    });
    (address, thread)
}

fn answer(status: &str, more: &str, body: &str) -> &'static str {
    let length = body.len();
    let text = format!(
        "HTTP/1.1 {status}\r\n{more}connection: close\r\ncontent-length: {length}\r\n\r\n{body}"
    );
    Box::leak(text.into_boxed_str())
}

fn loki(address: SocketAddr) -> LokiConfig {
    let url = format!("http://{address}/loki/api/v1/push");
    LokiConfig {
        push: PushConfig::at(url.parse().expect("a URL")),
        tenant: Some("team-a".into()),
        format: LokiFormat::Json,
    }
}

fn send(config: &LokiConfig, lines: Lines<'_>) -> Result<Taken, Failure> {
    Loki::new(config).expect("starts").send(lines)
}

const LINE: &str = r#"{"kind":"flow","gateway":"gw","time":"2026-11-22T05:00:43.120Z","verdict":"allow","user":"ann","n":7}"#;

#[test]
fn a_batch_is_posted_with_who_we_are() {
    let folder = Scratch::new();
    let password_file = folder.path("password");
    crate::key_file::create(&password_file, "secret\n").expect("written");
    let (address, server) = server(vec![answer("204 No Content", "", "")]);
    let mut config = loki(address);
    config.push.auth = Auth::Basic {
        username: "me".into(),
        password_file,
    };
    let result = send(&config, batch(&[(7, LINE)]).head(1));
    assert_eq!(result, Ok(Taken::default()));
    let asked = &server.join().expect("no panic")[0];
    assert!(
        asked
            .head
            .starts_with("POST /loki/api/v1/push HTTP/1.1\r\n")
    );
    for header in [
        "x-scope-orgid: team-a",
        "authorization: Basic bWU6c2VjcmV0",
        "content-type: application/json",
        "user-agent: postern-gateway/",
    ] {
        assert!(asked.head.contains(header), "{header} in {}", asked.head);
    }
    let body: serde_json::Value = serde_json::from_slice(&asked.body).expect("JSON");
    let expected = serde_json::json!({ "streams": [{
        "stream": { "job": "postern", "gateway": "gw", "kind": "flow", "verdict": "allow" },
        "values": [["1795323643120000000", LINE, { "user": "ann", "n": "7" }]],
    }]});
    assert_eq!(body, expected);
}

#[test]
fn answers_decide_between_again_and_never() {
    let seconds = |n| Some(Duration::from_secs(n));
    for (status, more, never, after) in [
        ("400 Bad Request", "", true, None),
        ("413 Payload Too Large", "", true, None),
        ("422 Unprocessable Entity", "", true, None),
        ("401 Unauthorized", "", false, None),
        ("403 Forbidden", "", false, None),
        ("404 Not Found", "", false, None),
        ("408 Request Timeout", "", false, None),
        (
            "429 Too Many Requests",
            "retry-after: 7\r\n",
            false,
            seconds(7),
        ),
        ("500 Internal Server Error", "", false, None),
        (
            "503 Service Unavailable",
            "retry-after: soon\r\n",
            false,
            None,
        ),
        ("302 Found", "location: http://192.0.2.1/\r\n", false, None),
    ] {
        let (address, server) = server(vec![answer(status, more, "entry\ntoo far behind")]);
        let failure = send(&loki(address), batch(&[(7, LINE)]).head(1)).expect_err(status);
        server.join().expect("no panic");
        let (is_never, is_after, error) = match failure {
            Failure::Refused { error } => (true, None, error),
            Failure::Retry { after, error } => (false, after, error),
        };
        assert_eq!((is_never, is_after), (never, after), "{status}");
        assert!(
            error.contains(status) && error.contains(r"entry\ntoo far"),
            "{error}"
        );
    }
}

#[test]
fn a_token_that_expired_is_read_again() {
    let folder = Scratch::new();
    let token_file = folder.path("token");
    crate::key_file::create(&token_file, "old").expect("written");
    let (address, server) = server(vec![
        answer("401 Unauthorized", "", ""),
        answer("204 No Content", "", ""),
    ]);
    let mut config = loki(address);
    config.push.auth = Auth::Bearer {
        token_file: token_file.clone(),
    };
    let mut sink = Loki::new(&config).expect("starts");
    std::fs::write(&token_file, "new").expect("written");
    let lines = batch(&[(7, LINE)]);
    assert!(sink.send(lines.head(1)).is_err());
    assert!(sink.send(lines.head(1)).is_ok());
    let asked = server.join().expect("no panic");
    assert!(asked[0].head.contains("authorization: Bearer old"));
    assert!(asked[1].head.contains("authorization: Bearer new"));
}

#[test]
fn a_silent_server_and_an_absent_one_are_failures() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut config = loki(listener.local_addr().expect("bound"));
    config.push.timeout = Duration::from_millis(50);
    let lines = batch(&[(7, LINE)]);
    let silent = send(&config, lines.head(1)).expect_err("no answer");
    assert!(
        format!("{silent:?}").contains("no answer within 50ms"),
        "{silent:?}"
    );
    drop(listener);
    config.push.timeout = Duration::from_secs(10);
    let absent = send(&config, lines.head(1)).expect_err("nobody there");
    assert!(
        format!("{absent:?}").contains("Connection refused"),
        "{absent:?}"
    );
}

#[test]
fn an_answer_without_end_is_not_read_to_the_end() {
    let long = "x".repeat(LONGEST_ANSWER + 1);
    let (address, server) = server(vec![answer("200 OK", "", &long)]);
    let failure = send(&loki(address), batch(&[(7, LINE)]).head(1)).expect_err("too long");
    assert!(matches!(failure, Failure::Retry { .. }), "{failure:?}");
    server.join().expect("no panic");
}

#[test]
fn a_date_says_when_to_come_back() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
    let date = "Sun, 06 Nov 1994 08:50:37 GMT";
    assert_eq!(retry_after(date, now), Some(Duration::from_secs(60)));
    assert_eq!(retry_after(" 5 ", now), Some(Duration::from_secs(5)));
    assert_eq!(retry_after("-1", now), None);
}

#[test]
fn a_file_without_certificates_is_refused() {
    let folder = Scratch::new();
    let path = folder.path("ca.pem");
    std::fs::write(&path, "no certificate").expect("written");
    let mut config = PushConfig::at("https://loki.example.com/".parse().expect("a URL"));
    config.ca_file = Some(path);
    let error = check(&config).expect_err("none in it").to_string();
    assert!(error.contains("ca.pem"), "{error}");
}
