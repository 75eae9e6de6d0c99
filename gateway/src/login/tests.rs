//! Logins against an issuer on loopback that lies on demand, and against no mail server at all.

use super::pending::after;
use super::*;
use crate::config::Config;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use base64::engine::general_purpose::STANDARD;
use openidconnect::core::{
    CoreEdDsaPrivateSigningKey, CoreHmacKey, CoreJwsSigningAlgorithm as Alg,
};
use openidconnect::url::{Url, form_urlencoded};
use openidconnect::{JsonWebKeyId, PrivateSigningKey};
use serde_json::Value;
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::path::Path;
use std::time::Duration;
use tokio::net::TcpListener;

mod email;
mod oidc;

const NOW: Wall = Wall(1_795_323_643_000_000_000);
const NOW_S: u64 = NOW.0 / 1_000_000_000;

/// A device of which nothing more is known.
fn by(device: &str) -> Who<'_> {
    Who {
        device,
        user: None,
        from: None,
    }
}

/// Seconds later.
fn later(seconds: u64) -> Wall {
    after(NOW, Duration::from_secs(seconds))
}

/// Makes an answer.
type Answer = fn() -> Response;

/// An issuer whose every answer a test can change.
struct Issuer {
    url: String,
    state: Mutex<Says>,
}

struct Says {
    keys: Vec<CoreEdDsaPrivateSigningKey>,
    /// Changes to the discovery document.
    more: Value,
    /// The ID token, if it gives one.
    token: Option<String>,
    /// Instead of tokens: status and error.
    error: Option<(StatusCode, &'static str)>,
    userinfo: Option<Value>,
    /// Answers with this instead, wherever it is asked.
    instead: Option<Answer>,
    /// What the token endpoint was asked.
    asked: Vec<HashMap<String, String>>,
    discoveries: u32,
    key_fetches: u32,
}

impl Issuer {
    async fn start() -> Arc<Issuer> {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let issuer = Arc::new(Issuer {
            url: format!("http://{}", listener.local_addr().expect("bound")),
            state: Mutex::new(Says {
                keys: vec![key("one")],
                more: json!({}),
                token: None,
                error: None,
                userinfo: None,
                instead: None,
                asked: Vec::new(),
                discoveries: 0,
                key_fetches: 0,
            }),
        });
        let router = Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(tokens))
            .route("/device", post(device))
            .route("/userinfo", get(userinfo))
            .with_state(issuer.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        issuer
    }

    fn says(&self) -> MutexGuard<'_, Says> {
        lock(&self.state)
    }

    /// Claims that are right for the login that `nonce` belongs to.
    fn claims(&self, nonce: &str) -> Value {
        json!({
            "iss": self.url, "aud": "postern", "sub": "248289761001", "nonce": nonce,
            "iat": NOW_S - 1, "exp": NOW_S + 300,
            "email": "Ana@Example.com", "email_verified": true, "groups": ["sre", "dev"],
        })
    }

    /// Signed with the newest key.
    fn sign(&self, claims: &Value) -> String {
        let says = self.says();
        let key = says.keys.last().expect("a key");
        let kid = json!(key.as_verification_key());
        let head = json!({"alg": "EdDSA", "typ": "JWT", "kid": kid["kid"]});
        jwt(&head, claims, |message| {
            key.sign(&Alg::EdDsa, message).expect("signed")
        })
    }
}

fn key(kid: &str) -> CoreEdDsaPrivateSigningKey {
    // RFC 8410, section 7: what stands before the 32 bytes.
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend(key_file::random::<32>().expect("random"));
    let pem = format!(
        "-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n",
        STANDARD.encode(der)
    );
    let kid = JsonWebKeyId::new(kid.to_owned());
    CoreEdDsaPrivateSigningKey::from_ed25519_pem(&pem, Some(kid)).expect("a key")
}

fn jwt(head: &Value, claims: &Value, sign: impl Fn(&[u8]) -> Vec<u8>) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(head), part(claims));
    let signature = URL_SAFE_NO_PAD.encode(sign(message.as_bytes()));
    format!("{message}.{signature}")
}

async fn discovery(State(issuer): State<Arc<Issuer>>) -> Response {
    let mut says = issuer.says();
    says.discoveries += 1;
    if let Some(instead) = says.instead {
        return instead();
    }
    let url = &issuer.url;
    let mut document = json!({
        "issuer": url,
        "authorization_endpoint": format!("{url}/auth"),
        "token_endpoint": format!("{url}/token"),
        "jwks_uri": format!("{url}/jwks"),
        "userinfo_endpoint": format!("{url}/userinfo"),
        "device_authorization_endpoint": format!("{url}/device"),
        "response_types_supported": ["code"],
        "subject_types_supported": ["public"],
        // It would like to: nobody has to believe it.
        "id_token_signing_alg_values_supported": ["EdDSA", "HS256", "none"],
    });
    for (name, value) in says.more.as_object().expect("a map") {
        document[name] = value.clone();
    }
    Json(document).into_response()
}

async fn jwks(State(issuer): State<Arc<Issuer>>) -> Response {
    let mut says = issuer.says();
    says.key_fetches += 1;
    let keys: Vec<_> = says
        .keys
        .iter()
        .map(|key| json!(key.as_verification_key()))
        .collect();
    Json(json!({ "keys": keys })).into_response()
}

async fn tokens(State(issuer): State<Arc<Issuer>>, body: String) -> Response {
    let mut says = issuer.says();
    let form = form_urlencoded::parse(body.as_bytes());
    says.asked.push(form.into_owned().collect());
    if let Some(instead) = says.instead {
        return instead();
    }
    if let Some((status, error)) = says.error {
        return (status, Json(json!({ "error": error }))).into_response();
    }
    let token = &says.token;
    Json(json!({"access_token": "opaque", "token_type": "Bearer", "id_token": token}))
        .into_response()
}

async fn device(State(issuer): State<Arc<Issuer>>) -> Response {
    Json(json!({
        "device_code": "secret-code", "user_code": "WDJB-MJHT", "expires_in": 300, "interval": 5,
        "verification_uri": format!("{}/activate", issuer.url),
    }))
    .into_response()
}

async fn userinfo(State(issuer): State<Arc<Issuer>>, headers: HeaderMap) -> Response {
    let bearer = headers.get(header::AUTHORIZATION);
    assert_eq!(bearer.and_then(|b| b.to_str().ok()), Some("Bearer opaque"));
    match issuer.says().userinfo.clone() {
        Some(info) => Json(info).into_response(),
        None => StatusCode::FORBIDDEN.into_response(),
    }
}

fn logins(login: &str) -> Logins {
    let config = config(login);
    Logins::new(LiveConfig::new(config), Audit::default())
}

fn config(login: &str) -> Config {
    let text = format!("pool_v6: fd6a:3c1e:9d20:1::/64\nname: gw-1\nlogin:\n{login}");
    Config::parse(&text, Path::new("/nowhere/gateway.yaml"))
        .unwrap_or_else(|error| panic!("{error}"))
}
