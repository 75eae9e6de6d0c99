//! Codes by e-mail: what somebody sees who has no mailbox. That the mail arrives is shown with a
//! real server, in `tests/login_email.rs`.

use super::*;

/// No server listens there: what is sent goes nowhere.
const SECTION: &str = "  email:\n    server: 127.0.0.1:9\n    tls: none\n    from: postern@example.com\n    allow: ['*@example.com']\n";

fn ask(address: &str) -> LoginStart {
    LoginStart::Email {
        address: address.to_owned(),
    }
}

fn answer(id: &str, code: &str) -> LoginFinish {
    LoginFinish {
        id: id.to_owned(),
        code: Some(code.to_owned()),
        state: None,
        iss: None,
    }
}

#[tokio::test]
async fn the_answer_does_not_say_who_may_log_in() {
    let logins = logins(SECTION);
    let mut said = Vec::new();
    for address in ["ana@example.com", "eve@example.org"] {
        let started = logins.start(by("laptop"), &ask(address), NOW).await;
        let mut started = started.expect("begun");
        let mut errors = Vec::new();
        for attempt in 0..4 {
            let ended = logins
                .finish(
                    by("laptop"),
                    &answer(&started.id, "nonsense"),
                    later(attempt),
                )
                .await;
            errors.push(ended.expect_err("wrong"));
        }
        assert_eq!(started.id.len(), 43);
        started.id.clear();
        said.push((started, errors));
    }
    assert_eq!(said[0], said[1]);
    let codes: Vec<_> = said[0].1.iter().map(|error| error.code).collect();
    let wrong = ErrorCode::WrongCode;
    assert_eq!(codes, [wrong, wrong, wrong, ErrorCode::LoginExpired]);
}

#[tokio::test]
async fn an_address_that_may_not_log_in_has_no_right_code() {
    let logins = logins(SECTION);
    for (address, fits) in [("ana@example.com", true), ("eve@example.org", false)] {
        let address = Address::parse(address).expect("address");
        let allowed = is_allowed(
            &logins.0.trusted().config.email.clone().expect("there"),
            &address,
        );
        let begun = logins.0.begin_email(by("laptop"), address, allowed, NOW);
        let (started, letter) = begun.expect("begun");
        let ended = logins
            .finish(by("laptop"), &answer(&started.id, &letter.code), NOW)
            .await;
        assert_eq!(ended.is_ok(), fits);
        if let Ok(proven) = ended {
            assert_eq!(proven.user, "ana@example.com");
            assert_eq!((proven.issuer.as_str(), proven.method), ("email", "email"));
            assert_eq!((proven.groups.len(), proven.amr.len()), (0, 0));
        }
    }
}

#[tokio::test]
async fn one_device_gets_five_codes_an_hour_and_no_address_shows_that_it_got_some() {
    let logins = logins(SECTION);
    for _ in 0..5 {
        let started = logins
            .start(by("laptop"), &ask("ana@example.com"), NOW)
            .await;
        started.expect("begun");
    }
    let error = logins
        .start(by("laptop"), &ask("ana@example.com"), NOW)
        .await;
    assert_eq!(error.expect_err("sixth").code, ErrorCode::TooMany);
    // Another device sees the same as for any address.
    let used = logins
        .start(by("other"), &ask("ana@example.com"), NOW)
        .await;
    let fresh = logins
        .start(by("other"), &ask("bob@example.com"), NOW)
        .await;
    let shape = |started: Result<LoginStarted, _>| LoginStarted {
        id: String::new(),
        ..started.expect("begun")
    };
    assert_eq!(shape(used), shape(fresh));
    let again = ask("ana@example.com");
    let again = logins.start(by("laptop"), &again, later(3600)).await;
    again.expect("an hour later");
}

#[tokio::test]
async fn what_is_no_address_is_refused_before_anything_is_begun() {
    let logins = logins(SECTION);
    for bad in ["ana", "ana@example.com\r\nRCPT TO:<eve@example.org>", ""] {
        let error = logins.start(by("laptop"), &ask(bad), NOW).await;
        assert_eq!(error.expect_err(bad).code, ErrorCode::BadRequest);
    }
    let none = super::logins("  {}\n");
    let error = none.start(by("laptop"), &ask("ana@example.com"), NOW).await;
    assert_eq!(error.expect_err("none").code, ErrorCode::BadRequest);
    assert_eq!(none.methods(), []);
}

#[tokio::test]
async fn who_may_log_in_is_asked_again_at_the_end() {
    let folder = crate::scratch::Scratch::new();
    let path = folder.path("gateway.yaml");
    let write = |allow: &str| {
        let section = SECTION.replace("*@example.com", allow);
        let text = format!("pool_v6: fd6a:3c1e:9d20:1::/64\nlogin:\n{section}");
        std::fs::write(&path, text).expect("written");
    };
    write("*@example.com");
    let live = LiveConfig::new(Config::load(&path).expect("good"));
    let logins = Logins::new(live.clone(), Audit::default());
    let ana = Address::parse("ana@example.com").expect("address");
    let begun = logins.0.begin_email(by("laptop"), ana, true, NOW);
    let (started, letter) = begun.expect("begun");
    write("bob@example.com");
    live.reload();
    let ended = logins
        .finish(by("laptop"), &answer(&started.id, &letter.code), NOW)
        .await;
    assert_eq!(ended.expect_err("not any more").code, ErrorCode::WrongCode);
}
