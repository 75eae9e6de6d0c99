//! Against oidc-provider, through its own pages.

use crate::server::{Server, variable};
use crate::{Folder, after, by, finish, logins, now};
use openidconnect::url::Url;
use postern_gateway::device_api::DeviceProblem;
use postern_gateway::login::{Logins, Proven};
use postern_proto::device_api::{ErrorCode, LoginFinish, LoginStart};
use postern_proto::now::Wall;
use serde_json::json;
use std::collections::HashMap;

const SECRET: &str = "a secret: 100% & more\n";

fn provider() -> Server {
    let module = ("OIDC_PROVIDER", variable("POSTERN_OIDC_PROVIDER"));
    Server::start("node", "provider.mjs", &[], &[module])
}

fn corp(provider: &Server, client: &str, more: &str) -> Logins {
    logins(&format!(
        "  providers:\n    - name: corp\n      issuer: {}\n      client_id: {client}\n      groups_claim: groups\n      scopes: [openid, email, profile, groups]\n{more}",
        provider.at
    ))
}

fn secret(folder: &Folder, text: &str) -> String {
    let path = folder.secret("secret", text);
    format!("      client_secret_file: {}\n", path.display())
}

fn browser() -> LoginStart {
    LoginStart::Browser {
        provider: None,
        port: 40_001,
    }
}

/// Where the browser of somebody ends who was sent by the gateway: what the client passes on.
async fn browse(
    provider: &mut Server,
    logins: &Logins,
    account: &str,
    at: Wall,
) -> (LoginFinish, HashMap<String, String>) {
    let started = logins.start(by("laptop"), &browser(), at).await;
    let started = started.expect("begun");
    let question = json!({"do": "browse", "url": started.url, "account": account});
    let answer = provider.ask(&question).await;
    let url: Url = answer["url"].as_str().expect("a url").parse().expect("url");
    assert_eq!(url.host_str(), Some("127.0.0.1"), "{url}");
    assert_eq!((url.port(), url.path()), (Some(40_001), "/callback"));
    let said: HashMap<String, String> = url.query_pairs().into_owned().collect();
    let finish = LoginFinish {
        id: started.id,
        code: said.get("code").cloned(),
        state: said.get("state").cloned(),
        iss: said.get("iss").cloned(),
    };
    (finish, said)
}

async fn log_in(
    provider: &mut Server,
    logins: &Logins,
    account: &str,
    at: Wall,
) -> Result<Proven, DeviceProblem> {
    let (finish, _) = browse(provider, logins, account, at).await;
    logins.finish(by("laptop"), &finish, at).await
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn a_person_logs_in_with_a_browser_once() {
    let (mut provider, folder) = (provider(), Folder::new());
    let logins = corp(&provider, "postern", &secret(&folder, SECRET));
    let begun = now();
    let (finish, said) = browse(&mut provider, &logins, "ana", begun).await;
    assert_eq!(said["iss"], provider.at, "RFC 9207");
    let proven = logins.finish(by("laptop"), &finish, now()).await;
    let proven = proven.expect("proven");
    assert_eq!(proven.user, "ana@example.com");
    assert_eq!(
        (proven.issuer.as_str(), proven.subject.as_str()),
        (provider.at.as_str(), "ana")
    );
    assert_eq!(proven.groups, ["dev", "sre"]);
    assert_eq!(proven.method, "oidc");
    assert!(proven.at.seconds() >= begun.seconds() && proven.at <= now());

    let again = logins.finish(by("laptop"), &finish, now()).await;
    assert_eq!(again.expect_err("once").code, ErrorCode::LoginExpired);
    // A code that was used, and one that belongs to another login.
    for used in [true, false] {
        let (other, _) = browse(&mut provider, &logins, "ana", now()).await;
        let (own, _) = browse(&mut provider, &logins, "eve", now()).await;
        let code = if used {
            finish.code.clone()
        } else {
            other.code
        };
        let replayed = LoginFinish { code, ..own };
        let error = logins.finish(by("laptop"), &replayed, now()).await;
        let error = error.expect_err("replayed");
        assert_eq!(error.code, ErrorCode::LoginRefused);
        assert!(error.error.contains("invalid_grant"), "{error}");
    }
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn a_person_who_goes_back_is_not_logged_in() {
    let (mut provider, folder) = (provider(), Folder::new());
    let logins = corp(&provider, "postern", &secret(&folder, SECRET));
    let started = logins.start(by("laptop"), &browser(), now()).await;
    let started = started.expect("begun");
    let answer = provider
        .ask(&json!({"do": "refuse", "url": started.url}))
        .await;
    let url = answer["url"].as_str().expect("a url");
    assert!(url.contains("error=access_denied"), "{url}");
    let url: Url = url.parse().expect("url");
    let state = url.query_pairs().find(|(name, _)| name == "state");
    let back = LoginFinish {
        state: state.map(|(_, value)| value.into_owned()),
        ..finish(&started.id, None)
    };
    let error = logins.finish(by("laptop"), &back, now()).await;
    assert_eq!(error.expect_err("no code").code, ErrorCode::LoginRefused);
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn clients_of_all_kinds_and_keys_of_all_kinds_that_rotate() {
    let (mut provider, folder) = (provider(), Folder::new());
    let right = secret(&folder, SECRET);
    let post = format!(
        "      client_secret_file: {}\n",
        folder.secret("post", "secret").display()
    );
    for (client, more) in [
        ("postern", right.as_str()),
        ("postern-post", post.as_str()),
        ("postern-ec", ""),
        ("postern-ed", ""),
    ] {
        for thick in [false, true] {
            provider.ask(&json!({"do": "thick", "is": thick})).await;
            let logins = corp(&provider, client, more);
            let proven = log_in(&mut provider, &logins, "ana", now()).await;
            let proven = proven.unwrap_or_else(|error| panic!("{client}: {error}"));
            assert_eq!(proven.groups, ["dev", "sre"], "{client}");
            provider.ask(&json!({"do": "rotate"})).await;
            // New keys are looked for ten seconds after the last time.
            let proven = log_in(&mut provider, &logins, "ana", after(now(), 11)).await;
            proven.unwrap_or_else(|error| panic!("{client}, other keys: {error}"));
        }
    }
    let wrong = format!(
        "      client_secret_file: {}\n",
        folder.secret("wrong", "guessed").display()
    );
    let logins = corp(&provider, "postern", &wrong);
    let error = log_in(&mut provider, &logins, "ana", now()).await;
    let error = error.expect_err("a wrong secret");
    assert!(error.error.contains("invalid_client"), "{error}");
    assert!(!error.to_string().contains("guessed"), "{error}");
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn a_machine_without_a_browser_shows_a_code() {
    let mut provider = provider();
    let logins = corp(&provider, "postern-ec", "");
    let start = LoginStart::DeviceCode { provider: None };
    let begun = now();
    let started = logins.start(by("box"), &start, begun).await.expect("begun");
    assert_eq!(started.interval, Some(5), "RFC 8628, section 3.2");
    let finish = finish(&started.id, None);
    let early = logins.finish(by("box"), &finish, begun).await;
    assert_eq!(early.expect_err("early").code, ErrorCode::LoginPending);
    let person = json!({
        "do": "activate", "url": started.url, "code": started.user_code, "account": "ana",
    });
    let page = provider.ask(&person).await;
    assert!(
        page["page"]
            .as_str()
            .is_some_and(|page| page.contains("Success")),
        "{page}"
    );
    let proven = logins.finish(by("box"), &finish, after(begun, 5)).await;
    let proven = proven.expect("proven");
    assert_eq!(proven.user, "ana@example.com");
    assert_eq!(proven.groups, ["dev", "sre"]);
    let again = logins.finish(by("box"), &finish, after(begun, 10)).await;
    assert_eq!(again.expect_err("once").code, ErrorCode::LoginExpired);
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn who_has_no_verified_address_has_another_name_or_none() {
    let mut provider = provider();
    let logins = corp(&provider, "postern-ec", "");
    let error = log_in(&mut provider, &logins, "bob-unverified", now()).await;
    let error = error.expect_err("not verified");
    assert_eq!(error.code, ErrorCode::LoginRefused);
    assert!(error.error.contains("not verified"), "{error}");
    let logins = corp(
        &provider,
        "postern-ec",
        "      user_claim: preferred_username\n",
    );
    let proven = log_in(&mut provider, &logins, "bob-unverified", now()).await;
    assert_eq!(proven.expect("proven").user, "bob-unverified");
}

#[tokio::test]
#[ignore = "scripts/test login"]
async fn a_provider_that_dies_is_said_to_be_down() {
    let mut provider = provider();
    let logins = corp(&provider, "postern-ec", "");
    let (finish, _) = browse(&mut provider, &logins, "ana", now()).await;
    provider.stop();
    let error = logins.finish(by("laptop"), &finish, now()).await;
    assert_eq!(error.expect_err("down").code, ErrorCode::Unavailable);
    assert_eq!(logins.problems().len(), 1, "{:?}", logins.problems());
}
