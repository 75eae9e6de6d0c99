//! Against aiosmtpd: what arrives, what it is good for, and what never arrives.

use crate::server::{Server, variable};
use crate::{Folder, after, by, finish, logins, now};
use postern_gateway::login::Logins;
use postern_proto::device_api::{ErrorCode, LoginStart, LoginStarted};
use serde_json::Value;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

fn server(arguments: &[&OsStr]) -> Server {
    Server::start(variable("POSTERN_PYTHON"), "mail.py", arguments, &[])
}

fn by_mail(server: &Server, more: &str) -> Logins {
    logins(&format!(
        "  email:\n    server: 127.0.0.1:{}\n    from: postern@example.com\n    allow: ['*@example.com']\n{more}",
        server.at
    ))
}

async fn ask(logins: &Logins, address: &str) -> LoginStarted {
    let address = address.to_owned();
    let start = LoginStart::Email { address };
    let started = logins.start(by("laptop"), &start, now()).await;
    started.expect("begun")
}

async fn mail(server: &mut Server) -> Value {
    serde_json::from_str(&server.line().await).expect("JSON")
}

/// The line that is a code and nothing else.
fn code(mail: &Value) -> String {
    let text = mail["data"].as_str().expect("text");
    let mut lines = text.lines().map(str::trim);
    let line = lines.find(|line| {
        let digits = line.bytes().filter(u8::is_ascii_digit).count();
        line.len() == 9 && digits == 8 && line.contains('-')
    });
    line.unwrap_or_else(|| panic!("no code in {text}"))
        .to_owned()
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn a_code_arrives_and_works_once() {
    let mut server = server(&[]);
    let logins = by_mail(&server, "    tls: none\n");
    let started = ask(&logins, "Ana@Example.com").await;
    let mail = mail(&mut server).await;
    assert_eq!(mail["from"], "postern@example.com");
    assert_eq!(mail["to"], serde_json::json!(["ana@example.com"]));
    assert_eq!(mail["hello"], "example.com");
    let text = mail["data"].as_str().expect("text");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    assert!(!head.contains(&code(&mail)), "{head}");
    for said in ["\"laptop\"", "\"gw-1\"", "ana@example.com", "not you"] {
        assert!(body.contains(said), "{said} in {body}");
    }
    let right = finish(&started.id, Some(&code(&mail)));
    let other = logins.finish(by("phone"), &right, now()).await;
    assert_eq!(other.expect_err("not its").code, ErrorCode::LoginExpired);
    let proven = logins.finish(by("laptop"), &right, now()).await;
    assert_eq!(proven.expect("proven").user, "ana@example.com");
    let again = logins.finish(by("laptop"), &right, now()).await;
    assert_eq!(again.expect_err("once").code, ErrorCode::LoginExpired);
    assert_eq!(logins.problems(), Vec::<String>::new());
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn a_code_is_worth_nothing_after_three_wrong_ones_or_ten_minutes() {
    let mut server = server(&[]);
    let logins = by_mail(&server, "    tls: none\n");
    let started = ask(&logins, "ana@example.com").await;
    let right = code(&mail(&mut server).await);
    let last = if right.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &right[..8]);
    let (right, wrong) = (
        finish(&started.id, Some(&right)),
        finish(&started.id, Some(&wrong)),
    );
    for _ in 0..3 {
        let ended = logins.finish(by("laptop"), &wrong, now()).await;
        assert_eq!(ended.expect_err("wrong").code, ErrorCode::WrongCode);
    }
    let ended = logins.finish(by("laptop"), &right, now()).await;
    assert_eq!(ended.expect_err("too often").code, ErrorCode::LoginExpired);

    for (seconds, fits) in [(599, true), (601, false)] {
        let begun = now();
        let started = ask(&logins, "ana@example.com").await;
        let right = code(&mail(&mut server).await);
        let right = finish(&started.id, Some(&right));
        let ended = logins
            .finish(by("laptop"), &right, after(begun, seconds))
            .await;
        assert_eq!(ended.is_ok(), fits, "after {seconds} s");
    }
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn who_may_not_log_in_gets_no_mail_and_the_same_answer() {
    let mut server = server(&[]);
    let logins = by_mail(&server, "    tls: none\n");
    let no = ask(&logins, "eve@example.org").await;
    let yes = ask(&logins, "ana@example.com").await;
    assert_eq!(no.expires_in, yes.expires_in);
    assert_eq!(
        (no.id.len(), no.url, no.user_code),
        (yes.id.len(), yes.url, yes.user_code)
    );
    let first = mail(&mut server).await;
    assert_eq!(first["to"], serde_json::json!(["ana@example.com"]));
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn mail_goes_by_tls_with_a_password_or_not_at_all() {
    let folder = Folder::new();
    let [ca, certificate, key] = certificates(&folder.0, "ca");
    let [other_ca, ..] = certificates(&folder.0, "other");
    let password = folder.secret("password", "correct horse\n");
    let wrong = folder.secret("wrong", "battery staple\n");
    for (tls, arguments) in [("starttls", &[][..]), ("tls", &[OsStr::new("--tls")][..])] {
        let mut all = vec![certificate.as_os_str(), key.as_os_str()];
        all.extend(arguments);
        let mut server = server(&all);
        let with = |ca: &Path, password: &Path| {
            by_mail(
                &server,
                &format!(
                    "    tls: {tls}\n    ca_file: {}\n    username: postern\n    password_file: {}\n",
                    ca.display(),
                    password.display()
                ),
            )
        };
        let good = with(&ca, &password);
        for bad in [with(&other_ca, &password), with(&ca, &wrong)] {
            ask(&bad, "ana@example.com").await;
            let problem = until_failing(&bad).await;
            assert!(problem.starts_with("mail: "), "{problem}");
            assert!(
                !problem.contains("battery") && !problem.contains("horse"),
                "{problem}"
            );
        }
        let started = ask(&good, "ana@example.com").await;
        let mail = mail(&mut server).await;
        assert_eq!(
            (&mail["tls"], &mail["name"]),
            (&true.into(), &"postern".into())
        );
        let right = finish(&started.id, Some(&code(&mail)));
        good.finish(by("laptop"), &right, now())
            .await
            .expect("proven");
    }
    // A server without TLS gets nothing.
    let plain = server(&[]);
    let logins = by_mail(&plain, "    tls: starttls\n");
    ask(&logins, "ana@example.com").await;
    until_failing(&logins).await;
}

/// What became of a mail is known after the answer. Ten seconds at most.
async fn until_failing(logins: &Logins) -> String {
    for _ in 0..500 {
        if let Some(problem) = logins.problems().pop() {
            return problem;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    panic!("nothing failed");
}

/// An authority, and a certificate for 127.0.0.1 with its key.
fn certificates(folder: &Path, name: &str) -> [PathBuf; 3] {
    let file = |end: &str| folder.join(format!("{name}.{end}"));
    let (ca, ca_key) = (file("ca.pem"), file("ca.key"));
    let (certificate, key) = (file("pem"), file("key"));
    let new = [
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ];
    let run = |arguments: &[&OsStr]| {
        let mut command = Command::new("openssl");
        let output = command.args(new).args(arguments).output().expect("openssl");
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
    };
    let text = OsStr::new;
    run(&[
        text("-subj"),
        text("/CN=test authority"),
        text("-keyout"),
        ca_key.as_os_str(),
        text("-out"),
        ca.as_os_str(),
    ]);
    run(&[
        text("-subj"),
        text("/CN=mail"),
        text("-addext"),
        text("subjectAltName=IP:127.0.0.1"),
        text("-addext"),
        text("basicConstraints=critical,CA:FALSE"),
        text("-CA"),
        ca.as_os_str(),
        text("-CAkey"),
        ca_key.as_os_str(),
        text("-keyout"),
        key.as_os_str(),
        text("-out"),
        certificate.as_os_str(),
    ]);
    [ca, certificate, key]
}
