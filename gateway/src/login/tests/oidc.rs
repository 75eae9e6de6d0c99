//! What an issuer, and whoever stands between, may say without being believed.

use super::*;

const PORT: u16 = 40_001;

fn corp(issuer: &Issuer, more: &str) -> Logins {
    logins(&format!(
        "  providers:\n    - name: corp\n      issuer: {}\n      client_id: postern\n      groups_claim: groups\n{more}",
        issuer.url
    ))
}

/// What the browser would bring to the provider.
struct Begun {
    id: String,
    asks: HashMap<String, String>,
}

async fn begin(logins: &Logins, device: &str, now: Wall) -> Begun {
    let start = LoginStart::Browser {
        provider: None,
        port: PORT,
    };
    let started = logins.start(by(device), &start, now).await.expect("begun");
    let url: Url = started.url.expect("a url").parse().expect("url");
    let pairs = url.query_pairs();
    Begun {
        id: started.id,
        asks: pairs.map(|(k, v)| (k.into(), v.into())).collect(),
    }
}

impl Begun {
    fn finish(&self) -> LoginFinish {
        LoginFinish {
            id: self.id.clone(),
            code: Some("a-code".into()),
            state: Some(self.asks["state"].clone()),
            iss: None,
        }
    }
}

/// A whole login with claims that the test has changed.
async fn log_in(
    issuer: &Issuer,
    logins: &Logins,
    change: impl FnOnce(&mut Value),
) -> Result<Proven, DeviceProblem> {
    let begun = begin(logins, "laptop", NOW).await;
    let mut claims = issuer.claims(&begun.asks["nonce"]);
    change(&mut claims);
    let token = issuer.sign(&claims);
    issuer.says().token = Some(token);
    logins.finish(by("laptop"), &begun.finish(), NOW).await
}

#[tokio::test]
async fn a_browser_login_proves_a_user() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let begun = begin(&logins, "laptop", NOW).await;
    let asks = &begun.asks;
    assert_eq!(asks["response_type"], "code");
    assert_eq!(asks["client_id"], "postern");
    assert_eq!(asks["scope"], "openid email profile");
    assert_eq!(asks["redirect_uri"], "http://127.0.0.1:40001/callback");
    assert_eq!(asks["code_challenge_method"], "S256");
    assert_eq!(asks["prompt"], "login");

    let mut claims = issuer.claims(&asks["nonce"]);
    claims["amr"] = json!(["pwd", "mfa"]);
    claims["acr"] = json!("gold");
    claims["auth_time"] = json!(NOW_S - 30);
    let token = issuer.sign(&claims);
    issuer.says().token = Some(token);
    let proven = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    let expected = Proven {
        user: "ana@example.com".into(),
        issuer: issuer.url.clone(),
        subject: "248289761001".into(),
        method: "oidc",
        groups: vec!["dev".into(), "sre".into()],
        amr: vec!["mfa".into(), "pwd".into()],
        acr: Some("gold".into()),
        at: Wall(NOW.0 - 30_000_000_000),
    };
    assert_eq!(proven, Ok(expected));

    let asked = issuer.says().asked.remove(0);
    assert_eq!(asked["grant_type"], "authorization_code");
    assert_eq!(asked["code"], "a-code");
    assert_eq!(asked["redirect_uri"], "http://127.0.0.1:40001/callback");
    // RFC 7636, section 4.6.
    let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&asked["code_verifier"]));
    assert_eq!(challenge, asks["code_challenge"]);
    assert!(asked["code_verifier"].len() >= 43);
}

#[tokio::test]
async fn tokens_that_do_not_hold_prove_nobody() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    type Change = (&'static str, &'static str, Value);
    let changes: [Change; 16] = [
        ("issuer", "iss", json!("https://idp.example.org")),
        ("audience", "aud", json!("other")),
        ("audience", "aud", json!(["other"])),
        ("not a trusted audience", "aud", json!(["postern", "other"])),
        ("audience", "aud", json!([])),
        ("azp", "azp", json!("other")),
        ("nonce", "nonce", json!("other")),
        ("nonce", "nonce", Value::Null),
        ("expired", "exp", json!(NOW_S - 61)),
        ("iat", "iat", json!(NOW_S + 61)),
        ("nbf", "nbf", json!(NOW_S + 61)),
        ("auth_time", "auth_time", json!(NOW_S + 61)),
        ("sub", "sub", json!("")),
        ("verified", "email_verified", json!(false)),
        ("groups", "groups", json!({"sre": true})),
        ("groups", "groups", json!(["a\nb"])),
    ];
    for (word, claim, value) in changes {
        let error = log_in(&issuer, &logins, |claims| claims[claim] = value.clone()).await;
        let error = error.expect_err(claim);
        assert_eq!(error.code, ErrorCode::LoginRefused, "{claim}: {error}");
        let said = error.error.to_lowercase();
        assert!(said.contains(&word.to_lowercase()), "{claim}: {error}");
    }
    let many: Vec<_> = (0..257).map(|n| format!("g{n}")).collect();
    let error = log_in(&issuer, &logins, |claims| claims["groups"] = json!(many)).await;
    assert!(error.expect_err("many").error.contains("257"));
    // As far as the clocks may differ, it holds.
    let edge = log_in(&issuer, &logins, |claims| {
        claims["exp"] = json!(NOW_S - 59);
        claims["iat"] = json!(NOW_S + 60);
    });
    edge.await.expect("within the skew");
}

#[tokio::test]
async fn nobody_signs_with_what_everybody_knows() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let public = json!(issuer.says().keys[0].as_verification_key());
    let x = public["x"].as_str().expect("public key").to_owned();
    let x = URL_SAFE_NO_PAD.decode(x).expect("base64");
    let stranger = key("one");
    for (what, alg) in [
        ("none", "none"),
        ("HMAC with the public key", "HS256"),
        ("another key of the same name", "EdDSA"),
        ("a broken signature", "EdDSA"),
    ] {
        let begun = begin(&logins, "laptop", NOW).await;
        let claims = issuer.claims(&begun.asks["nonce"]);
        let head = json!({"alg": alg, "kid": "one"});
        let token = jwt(&head, &claims, |message| match what {
            "none" => Vec::new(),
            "HMAC with the public key" => CoreHmacKey::new(x.clone())
                .sign(&Alg::HmacSha256, message)
                .expect("signed"),
            "another key of the same name" => stranger.sign(&Alg::EdDsa, message).expect("signed"),
            _ => vec![7; 64],
        });
        issuer.says().token = Some(token);
        let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
        let error = error.expect_err(what);
        assert_eq!(error.code, ErrorCode::LoginRefused, "{what}: {error}");
    }
}

#[tokio::test]
async fn hmac_is_refused_even_from_a_client_with_a_secret() {
    let folder = crate::scratch::Scratch::new();
    let secret = folder.path("secret");
    key_file::create(&secret, "hunter2\n").expect("written");
    let issuer = Issuer::start().await;
    let more = format!("      client_secret_file: {}\n", secret.display());
    let logins = corp(&issuer, &more);
    let begun = begin(&logins, "laptop", NOW).await;
    let claims = issuer.claims(&begun.asks["nonce"]);
    let token = jwt(&json!({"alg": "HS256"}), &claims, |message| {
        let key = CoreHmacKey::new("hunter2");
        key.sign(&Alg::HmacSha256, message).expect("signed")
    });
    issuer.says().token = Some(token);
    let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    let error = error.expect_err("HMAC");
    assert_eq!(error.code, ErrorCode::LoginRefused);
    assert!(!format!("{error}{logins:?}").contains("hunter2"));
}

#[tokio::test]
async fn a_login_is_ended_once_by_its_device_with_its_state() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let begun = begin(&logins, "laptop", NOW).await;
    let token = issuer.sign(&issuer.claims(&begun.asks["nonce"]));
    issuer.says().token = Some(token);

    let other = logins.finish(by("phone"), &begun.finish(), NOW).await;
    assert_eq!(other.expect_err("not its").code, ErrorCode::LoginExpired);
    assert!(
        logins
            .finish(by("laptop"), &begun.finish(), NOW)
            .await
            .is_ok()
    );
    let again = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    assert_eq!(again.expect_err("replayed").code, ErrorCode::LoginExpired);
    assert_eq!(issuer.says().asked.len(), 1, "the code was shown once");

    for state in [None, Some("other".to_owned())] {
        let begun = begin(&logins, "laptop", NOW).await;
        let finish = LoginFinish {
            state,
            ..begun.finish()
        };
        let error = logins.finish(by("laptop"), &finish, NOW).await;
        assert_eq!(error.expect_err("state").code, ErrorCode::LoginRefused);
        let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
        assert_eq!(error.expect_err("one try").code, ErrorCode::LoginExpired);
    }
    let begun = begin(&logins, "laptop", NOW).await;
    let late = logins
        .finish(by("laptop"), &begun.finish(), later(600))
        .await;
    assert_eq!(late.expect_err("late").code, ErrorCode::LoginExpired);
    assert_eq!(issuer.says().asked.len(), 1, "no other code was shown");
}

#[tokio::test]
async fn a_code_is_shown_to_the_issuer_that_gave_it() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    for (supported, iss, fits) in [
        (false, None, true),
        (false, Some(issuer.url.as_str()), true),
        (false, Some("https://idp.example.org"), false),
        (true, Some(issuer.url.as_str()), true),
    ] {
        issuer.says().more = json!({"authorization_response_iss_parameter_supported": supported});
        let begun = begin(&logins, "laptop", NOW).await;
        let token = issuer.sign(&issuer.claims(&begun.asks["nonce"]));
        issuer.says().token = Some(token);
        let finish = LoginFinish {
            iss: iss.map(str::to_owned),
            ..begun.finish()
        };
        let asked = issuer.says().asked.len();
        let ended = logins.finish(by("laptop"), &finish, NOW).await;
        assert_eq!(ended.is_ok(), fits, "{iss:?}: {ended:?}");
        assert_eq!(issuer.says().asked.len() - asked, usize::from(fits));
    }
    // One that promises `iss` must keep it.
    issuer.says().more = json!({"authorization_response_iss_parameter_supported": true});
    let logins = corp(&issuer, "");
    let begun = begin(&logins, "laptop", NOW).await;
    let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    assert_eq!(error.expect_err("no iss").code, ErrorCode::LoginRefused);
}

#[tokio::test]
async fn keys_rotate_and_are_not_fetched_at_will() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    log_in(&issuer, &logins, |_| {}).await.expect("first");
    assert_eq!(issuer.says().key_fetches, 1);
    issuer.says().keys = vec![key("two")];
    // The pause counts from the last fetch.
    let error = log_in(&issuer, &logins, |_| {}).await;
    assert_eq!(error.expect_err("soon").code, ErrorCode::LoginRefused);
    assert_eq!(issuer.says().key_fetches, 1);

    let now = later(11);
    let begun = begin(&logins, "laptop", now).await;
    let token = issuer.sign(&issuer.claims(&begun.asks["nonce"]));
    issuer.says().token = Some(token);
    let ended = logins.finish(by("laptop"), &begun.finish(), now).await;
    ended.expect("the new key");
    assert_eq!(issuer.says().key_fetches, 2);
    assert_eq!(issuer.says().discoveries, 1);
    // What is published is believed for an hour.
    begin(&logins, "laptop", later(3601)).await;
    assert_eq!(issuer.says().discoveries, 2);
}

#[tokio::test]
async fn an_issuer_that_is_down_is_asked_again_when_it_is_needed() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let start = LoginStart::Browser {
        provider: Some("corp".into()),
        port: PORT,
    };
    let endless = || axum::body::Body::from(vec![b' '; 512 << 10]).into_response();
    let elsewhere = || axum::response::Redirect::to("http://192.0.2.1/").into_response();
    let answers: [(&str, Answer); 4] = [
        ("503", || StatusCode::SERVICE_UNAVAILABLE.into_response()),
        ("redirect", elsewhere),
        ("cannot be read", endless),
        ("parse", || Json(json!({"issuer": 7})).into_response()),
    ];
    for (at, (word, answer)) in answers.into_iter().enumerate() {
        issuer.says().instead = Some(answer);
        let now = later(10 * at as u64);
        let error = logins.start(by("laptop"), &start, now).await;
        let error = error.expect_err(word);
        assert_eq!(error.code, ErrorCode::Unavailable);
        assert!(error.error.contains(word), "{word}: {error}");
        assert!(logins.problems()[0].contains("login by corp"), "said");
        let asked = issuer.says().discoveries;
        let again = logins.start(by("laptop"), &start, now).await;
        assert_eq!(again.expect_err("still").code, ErrorCode::Unavailable);
        assert_eq!(issuer.says().discoveries, asked, "and not hammered");
    }
    issuer.says().instead = None;
    assert!(logins.start(by("laptop"), &start, later(60)).await.is_ok());
    assert_eq!(logins.problems(), Vec::<String>::new());
}

#[tokio::test]
async fn an_issuer_says_its_own_name_and_sends_users_to_web_pages() {
    let issuer = Issuer::start().await;
    let start = LoginStart::Browser {
        provider: None,
        port: PORT,
    };
    for (claim, value) in [
        ("issuer", "http://127.0.0.1:1"),
        ("authorization_endpoint", "javascript:alert(1)"),
        ("authorization_endpoint", "file:///etc/passwd"),
    ] {
        issuer.says().more = json!({claim: value});
        let error = corp(&issuer, "").start(by("laptop"), &start, NOW).await;
        let error = error.expect_err(value);
        assert_eq!(error.code, ErrorCode::Unavailable, "{value}: {error}");
    }
}

#[tokio::test]
async fn the_token_endpoint_is_not_followed_and_not_read_without_end() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let endless = || axum::body::Body::from(vec![b' '; 512 << 10]).into_response();
    let elsewhere = || axum::response::Redirect::temporary("/userinfo").into_response();
    let answers: [Answer; 3] = [endless, elsewhere, || "no JSON".into_response()];
    for answer in answers {
        issuer.says().instead = None;
        let begun = begin(&logins, "laptop", NOW).await;
        issuer.says().instead = Some(answer);
        let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
        error.expect_err("no token");
    }
    issuer.says().instead = None;
    issuer.says().error = Some((StatusCode::BAD_REQUEST, "invalid_grant"));
    let begun = begin(&logins, "laptop", NOW).await;
    let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    let error = error.expect_err("replayed code");
    assert_eq!(error.code, ErrorCode::LoginRefused);
    assert!(error.error.contains("invalid_grant"), "{error}");
    issuer.says().error = None;
    issuer.says().token = None;
    let begun = begin(&logins, "laptop", NOW).await;
    let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    assert!(error.expect_err("none").error.contains("no ID token"));
}

#[tokio::test]
async fn what_the_token_leaves_out_the_userinfo_endpoint_says() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let thin = |claims: &mut Value| {
        let claims = claims.as_object_mut().expect("a map");
        claims.remove("email_verified");
        claims.remove("groups");
    };
    let info = json!({
        "sub": "248289761001", "email": "eve@example.com", "email_verified": true,
        "groups": "ops",
    });
    issuer.says().userinfo = Some(info.clone());
    let proven = log_in(&issuer, &logins, thin).await.expect("proven");
    assert_eq!(proven.user, "eve@example.com", "address and proof together");
    assert_eq!(proven.groups, ["ops"]);

    let mut other = info.clone();
    other["sub"] = json!("another");
    issuer.says().userinfo = Some(other);
    let error = log_in(&issuer, &logins, thin).await.expect_err("subject");
    assert!(error.error.contains("another subject"), "{error}");

    // The token's address is not verified by a word about no address.
    issuer.says().userinfo = Some(json!({"sub": "248289761001", "email_verified": true}));
    let error = log_in(&issuer, &logins, thin)
        .await
        .expect_err("no address");
    assert!(error.error.contains("does not say email"), "{error}");

    issuer.says().userinfo = None;
    let error = log_in(&issuer, &logins, thin).await.expect_err("forbidden");
    assert!(error.error.contains("403"), "{error}");
}

#[tokio::test]
async fn the_name_comes_from_the_claim_that_the_file_names() {
    let issuer = Issuer::start().await;
    for (claim, name) in [("preferred_username", "ana.l"), ("sub", "248289761001")] {
        let logins = corp(&issuer, &format!("      user_claim: {claim}\n"));
        let proven = log_in(&issuer, &logins, |claims| {
            claims["preferred_username"] = json!("Ana.L");
            claims["groups"] = json!("sre");
            claims["email_verified"] = json!(false);
        });
        let proven = proven.await.expect("proven");
        assert_eq!(proven.user, name);
        assert_eq!(proven.groups, ["sre"]);
    }
    let logins = corp(&issuer, "      user_claim: preferred_username\n");
    for name in ["", "a b", "a\u{7}b"] {
        let error = log_in(&issuer, &logins, |claims| {
            claims["preferred_username"] = json!(name);
        });
        assert!(error.await.is_err(), "{name:?}");
    }
    let error = log_in(&issuer, &logins, |claims| {
        claims["preferred_username"] = json!("ana");
        claims["groups"] = Value::Null;
        claims["_claim_names"] = json!({"groups": "src1"});
    });
    let error = error.await.expect_err("groups are elsewhere");
    assert!(error.error.contains("too long"), "{error}");
}

#[tokio::test]
async fn a_device_code_is_asked_about_at_the_provider_s_pace() {
    let issuer = Issuer::start().await;
    let logins = corp(&issuer, "");
    let start = LoginStart::DeviceCode { provider: None };
    let started = logins.start(by("box"), &start, NOW).await.expect("begun");
    assert_eq!(started.user_code.as_deref(), Some("WDJB-MJHT"));
    assert_eq!(started.url, Some(format!("{}/activate", issuer.url)));
    assert_eq!((started.interval, started.expires_in), (Some(5), 300));
    let finish = LoginFinish {
        id: started.id,
        code: None,
        state: None,
        iss: None,
    };
    let mut asked = 0;
    let steps = [
        (0, Some("authorization_pending"), 1),
        (1, Some("authorization_pending"), 0),
        (5, Some("slow_down"), 1),
        // Ten seconds from now on.
        (10, Some("authorization_pending"), 0),
        (15, Some("authorization_pending"), 1),
        (20, None, 0),
    ];
    for (at, error, asks) in steps {
        issuer.says().error = error.map(|error| (StatusCode::BAD_REQUEST, error));
        let ended = logins.finish(by("box"), &finish, later(at)).await;
        assert_eq!(ended.expect_err("early").code, ErrorCode::LoginPending);
        asked += asks;
        assert_eq!(issuer.says().asked.len(), asked, "at {at} s");
    }
    // No nonce: none was sent.
    let mut claims = issuer.claims("");
    claims.as_object_mut().expect("a map").remove("nonce");
    let token = issuer.sign(&claims);
    issuer.says().token = Some(token);
    let other = logins.finish(by("other"), &finish, later(30)).await;
    assert_eq!(other.expect_err("not its").code, ErrorCode::LoginExpired);
    let proven = logins.finish(by("box"), &finish, later(30)).await;
    assert_eq!(proven.expect("proven").user, "ana@example.com");
    assert_eq!(issuer.says().asked[0]["device_code"], "secret-code");
    let again = logins.finish(by("box"), &finish, later(60)).await;
    assert_eq!(again.expect_err("once").code, ErrorCode::LoginExpired);

    for error in ["access_denied", "expired_token"] {
        let started = logins.start(by("box"), &start, NOW).await.expect("begun");
        let finish = LoginFinish {
            id: started.id,
            ..finish.clone()
        };
        issuer.says().error = Some((StatusCode::BAD_REQUEST, error));
        let ended = logins.finish(by("box"), &finish, NOW).await;
        let ended = ended.expect_err(error);
        assert_eq!(ended.code, ErrorCode::LoginRefused);
        assert!(ended.error.contains(error), "{ended}");
        let ended = logins.finish(by("box"), &finish, later(30)).await;
        assert_eq!(ended.expect_err("over").code, ErrorCode::LoginExpired);
    }
}

#[tokio::test]
async fn a_provider_without_device_codes_says_so() {
    let issuer = Issuer::start().await;
    issuer.says().more = json!({"device_authorization_endpoint": null});
    let logins = corp(&issuer, "");
    assert!(logins.methods()[0].device_code, "not known yet");
    let start = LoginStart::DeviceCode { provider: None };
    let error = logins
        .start(by("box"), &start, NOW)
        .await
        .expect_err("none");
    assert_eq!(error.code, ErrorCode::BadRequest);
    assert!(!logins.methods()[0].device_code);
}

#[tokio::test]
async fn a_missing_secret_is_the_admins_to_know() {
    let issuer = Issuer::start().await;
    let more = "      client_secret_file: /nowhere/idp-secret\n";
    let logins = corp(&issuer, more);
    let start = LoginStart::Browser {
        provider: None,
        port: PORT,
    };
    let error = logins.start(by("laptop"), &start, NOW).await;
    let error = error.expect_err("no secret");
    assert_eq!(error.code, ErrorCode::Unavailable);
    assert_eq!(error.error, "corp is not configured");
    assert!(!error.to_string().contains("nowhere"), "{error}");
    assert!(logins.problems()[0].contains("/nowhere/idp-secret"));
}

#[tokio::test]
async fn two_providers_must_be_told_apart() {
    let (one, two) = (Issuer::start().await, Issuer::start().await);
    let logins = logins(&format!(
        "  providers:\n    - {{ name: one, issuer: '{}', client_id: postern }}\n    - {{ name: two, issuer: '{}', client_id: postern }}\n",
        one.url, two.url
    ));
    let start = |provider: Option<&str>| LoginStart::Browser {
        provider: provider.map(str::to_owned),
        port: PORT,
    };
    for name in [None, Some("three"), Some("email")] {
        let error = logins.start(by("laptop"), &start(name), NOW).await;
        let error = error.expect_err("which");
        assert_eq!(error.code, ErrorCode::BadRequest);
        assert!(error.help.contains("one, two"), "{error}");
    }
    let started = logins.start(by("laptop"), &start(Some("two")), NOW).await;
    let url = started.expect("begun").url.expect("a url");
    assert!(url.starts_with(&two.url), "{url}");
    let names: Vec<_> = logins.methods().into_iter().map(|m| m.name).collect();
    assert_eq!(names, ["one", "two"]);
}

#[tokio::test]
async fn a_provider_that_is_taken_out_of_the_file_is_believed_no_more() {
    let issuer = Issuer::start().await;
    let folder = crate::scratch::Scratch::new();
    let path = folder.path("gateway.yaml");
    let write = |login: &str| {
        let text = format!("pool_v6: fd6a:3c1e:9d20:1::/64\n{login}");
        std::fs::write(&path, text).expect("written");
    };
    let section = format!(
        "login:\n  providers:\n    - {{ name: corp, issuer: '{}', client_id: postern }}\n",
        issuer.url
    );
    write(&section);
    let live = LiveConfig::new(Config::load(&path).expect("good"));
    let logins = Logins::new(live.clone(), Audit::default());
    let begun = begin(&logins, "laptop", NOW).await;
    let token = issuer.sign(&issuer.claims(&begun.asks["nonce"]));
    issuer.says().token = Some(token);

    write("");
    live.reload();
    let error = logins.finish(by("laptop"), &begun.finish(), NOW).await;
    assert_eq!(error.expect_err("gone").code, ErrorCode::LoginExpired);
    assert_eq!(issuer.says().asked.len(), 0);
    assert_eq!(logins.methods(), []);
    write(&section);
    live.reload();
    begin(&logins, "laptop", NOW).await;
}
