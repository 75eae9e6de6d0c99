//! `login`.

use super::*;

const PROVIDER: &str = "\
login:
  providers:
    - name: corp
      issuer: https://idp.example.com/realms/a
      client_id: postern
";

const EMAIL: &str = "\
login:
  email:
    server: smtp.example.com:587
    from: postern@example.com
    allow: [\"*@example.com\", Eve@example.org]
";

fn with(text: &str) -> String {
    format!("{LEAST}{text}")
}

#[test]
fn nobody_logs_in_unless_the_file_says_how() {
    assert_eq!(good(LEAST).login, LoginConfig::default());
}

#[test]
fn a_provider_needs_little() {
    let config = good(&with(PROVIDER)).login;
    let provider = &config.providers[0];
    assert_eq!(provider.issuer, "https://idp.example.com/realms/a");
    assert_eq!(provider.user_claim, UserClaim::Email);
    assert_eq!(provider.groups_claim, None);
    assert_eq!(provider.scopes, ["openid", "email", "profile"]);
    assert_eq!(provider.clock_skew.as_secs(), 60);
    assert_eq!(provider.client_secret_file, None);

    let more = good(&with(&format!(
        "{PROVIDER}      client_secret_file: idp-secret\n      user_claim: sub\n      groups_claim: groups\n      clock_skew: 0s\n"
    )));
    let provider = &more.login.providers[0];
    assert_eq!(
        provider.client_secret_file.as_deref(),
        Some(Path::new("/etc/postern/idp-secret"))
    );
    assert_eq!(provider.user_claim, UserClaim::Sub);
    assert!(provider.clock_skew.is_zero());
}

#[test]
fn mail_needs_a_server_and_who_may() {
    let email = good(&with(EMAIL)).login.email.expect("there");
    assert_eq!((email.host.as_str(), email.port), ("smtp.example.com", 587));
    assert_eq!(email.tls, EmailTls::StartTls);
    assert_eq!(email.allow.len(), 2);

    let found = wrong(&with(
        "login:\n  email:\n    server: smtp.example.com\n    tls: none\n    username: postern\n    password: hunter2\n    allow: [\"*\"]\n",
    ));
    let found: Vec<_> = found
        .iter()
        .map(|problem| (problem.line, problem.field.as_str()))
        .collect();
    assert_eq!(
        found,
        [
            (4, "login.email.server"),
            (4, "login.email.from"),
            (6, "login.email.username"),
            (7, "login.email.password"),
            (8, "login.email.allow[0]"),
        ]
    );
}

#[test]
fn clear_text_stays_on_this_machine() {
    for (server, fits) in [
        ("127.0.0.1:25", true),
        ("'[::1]:25'", true),
        ("localhost:25", true),
        ("smtp.example.com:25", false),
        ("192.0.2.1:25", false),
    ] {
        let text = format!(
            "login:\n  email:\n    server: {server}\n    tls: none\n    from: a@example.com\n    allow: [a@example.com]\n"
        );
        assert_eq!(parse(&with(&text)).is_ok(), fits, "{server}");
    }
    for (issuer, fits) in [
        ("http://127.0.0.1:3000", true),
        ("http://[::1]:3000/a", true),
        ("http://idp.example.com", false),
        ("https://idp.example.com", true),
        ("https://idp.example.com?a=b", false),
        ("https://idp.example.com#a", false),
        ("https://user:hunter2@idp.example.com", false),
        ("ftp://idp.example.com", false),
        ("idp.example.com", false),
    ] {
        let text = PROVIDER.replace("https://idp.example.com/realms/a", &format!("\"{issuer}\""));
        let parsed = parse(&with(&text));
        assert_eq!(parsed.is_ok(), fits, "{issuer}");
        if let Err(error) = parsed {
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }
}

#[test]
fn a_provider_is_there_once_and_has_no_secret_in_the_file() {
    let twice = format!("{PROVIDER}{}", &PROVIDER["login:\n  providers:\n".len()..]);
    let found: Vec<_> = wrong(&with(&twice))
        .iter()
        .map(|problem| problem.field.clone())
        .collect();
    assert_eq!(
        found,
        ["login.providers[1].name", "login.providers[1].issuer"]
    );

    for (line, field) in [
        ("client_secret: hunter2", "client_secret"),
        ("user_claim: name", "user_claim"),
        ("scopes: [email]", "scopes"),
        ("scopes: [openid, 'a b']", "scopes"),
        ("clock_skew: 1h", "clock_skew"),
    ] {
        let found = wrong(&with(&format!("{PROVIDER}      {line}\n")));
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].field, format!("login.providers[0].{field}"));
        assert!(!found[0].problem.contains("hunter2"));
    }
    for name in ["email", "Corp", "a b", ""] {
        let found = wrong(&with(&PROVIDER.replace("corp", &format!("'{name}'"))));
        assert_eq!(found[0].field, "login.providers[0].name", "{name}");
    }
}
