//! The control API as the client uses it: which calls there are, and what can come of one.

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_TYPE, HOST};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use postern_proto::device_api::{
    self, ApiError, ConfirmRequest, DecideGrant, JoinRequest, LoginFinish, LoginStart, PORT,
    PostureReport, RequestGrant, RotateRequest, WhyRequest,
};
use postern_stack::driver::Connector;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

/// A call is answered within this time, or failed.
pub const PATIENCE: Duration = Duration::from_secs(10);
/// The longest answer that is read, in bytes: an include list of ten thousand entries fits.
const MAX_ANSWER: usize = 1 << 20;

/// One call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "call", content = "with", rename_all = "kebab-case")]
pub enum Call {
    /// Redeems an invitation.
    Join(JoinRequest),
    /// How the device stands.
    Device,
    /// What to apply.
    Config,
    /// What the device found about itself.
    Report(PostureReport),
    /// How one can log in.
    LoginMethods,
    /// Begins a login.
    LogIn(LoginStart),
    /// Ends it.
    FinishLogin(LoginFinish),
    /// Ends the session.
    LogOut,
    /// A change of the policy stays.
    Confirm(ConfirmRequest),
    /// Would this pass, and why.
    Why(WhyRequest),
    /// Another key for the device.
    Rotate(RotateRequest),
    /// Own requests, and those to decide about.
    Grants,
    /// One of them.
    Grant(String),
    /// Access for a while.
    RequestGrant(RequestGrant),
    /// Yes to somebody else's request.
    ApproveGrant(String, DecideGrant),
    /// No to it.
    DenyGrant(String, DecideGrant),
    /// Takes a request back, or ends a grant.
    EndGrant(String),
}

/// Why a call brought nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[serde(tag = "failure", content = "with", rename_all = "kebab-case")]
pub enum CallError {
    /// The gateway says no.
    #[error("{}; {}", .0.error, .0.help)]
    Refused(ApiError),
    /// It did not answer.
    #[error("the gateway does not answer inside the tunnel: {0}")]
    Silent(String),
    /// What it answered makes no sense: another version, perhaps.
    #[error("the gateway's answer is not understood: {0}; is one of the two ends much older?")]
    Nonsense(String),
}

/// The gateway's control API, through one tunnel. Cheap to clone.
#[derive(Clone)]
pub struct Api {
    connector: Connector,
    at: SocketAddr,
}

impl Call {
    fn request(
        &self,
    ) -> (
        Method,
        Cow<'static, str>,
        Option<serde_json::Result<Vec<u8>>>,
    ) {
        fn body<T: Serialize>(body: &T) -> Option<serde_json::Result<Vec<u8>>> {
            Some(serde_json::to_vec(body))
        }
        let (method, path, body) = match self {
            Call::Join(with) => (Method::POST, "/v1/join", body(with)),
            Call::Device => (Method::GET, "/v1/device", None),
            Call::Config => (Method::GET, "/v1/config", None),
            Call::Report(with) => (Method::POST, "/v1/posture", body(with)),
            Call::LoginMethods => (Method::GET, "/v1/login", None),
            Call::LogIn(with) => (Method::POST, "/v1/login", body(with)),
            Call::FinishLogin(with) => (Method::POST, "/v1/login/finish", body(with)),
            Call::LogOut => (Method::POST, device_api::LOGOUT, None),
            Call::Confirm(with) => (Method::POST, "/v1/policy/confirm", body(with)),
            Call::Why(with) => (Method::POST, "/v1/why", body(with)),
            Call::Rotate(with) => (Method::POST, "/v1/keys", body(with)),
            Call::Grants => (Method::GET, "/v1/grants", None),
            Call::RequestGrant(with) => (Method::POST, "/v1/grants", body(with)),
            Call::Grant(id) => return (Method::GET, of_grant(id, ""), None),
            Call::EndGrant(id) => return (Method::DELETE, of_grant(id, ""), None),
            Call::ApproveGrant(id, with) => {
                return (Method::POST, of_grant(id, "/approve"), body(with));
            }
            Call::DenyGrant(id, with) => {
                return (Method::POST, of_grant(id, "/deny"), body(with));
            }
        };
        (method, path.into(), body)
    }
}

impl Api {
    /// At one of the gateway's tunnel addresses.
    #[must_use]
    pub fn new(connector: Connector, gateway: IpAddr) -> Api {
        Api {
            connector,
            at: SocketAddr::new(gateway, PORT),
        }
    }

    /// Makes a call. It must be possible to repeat it: the answer may get lost.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call<T: DeserializeOwned>(&self, call: &Call) -> Result<T, CallError> {
        let answer = tokio::time::timeout(PATIENCE, self.exchange(call)).await;
        let late = |_| CallError::Silent(format!("nothing within {} s", PATIENCE.as_secs()));
        read(answer.map_err(late)??)
    }

    async fn exchange(&self, call: &Call) -> Result<Value, CallError> {
        fn silent(error: impl std::fmt::Display) -> CallError {
            CallError::Silent(error.to_string())
        }
        let nonsense = |error: serde_json::Error| CallError::Nonsense(error.to_string());
        let (method, path, body) = call.request();
        let body = body.transpose().map_err(nonsense)?.unwrap_or_default();
        let request = Request::builder()
            .method(method)
            .uri(path.as_ref())
            .header(HOST, self.at.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from(body)))
            .map_err(|error| CallError::Nonsense(error.to_string()))?;

        let stream = self.connector.connect(self.at).await.map_err(silent)?;
        let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
            .await
            .map_err(silent)?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(silent)?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER)
                .collect()
                .await
                .map_err(silent)?
                .to_bytes();
            Ok((status, body))
        };
        // The connection does its part of the work for as long as it is asked.
        let (status, body) = tokio::select! {
            biased;
            answer = exchange => answer?,
            Err(error) = connection => return Err(silent(error)),
        };
        understand(status, &body)
    }
}

/// An id has no character that a path would need to escape; of any other the gateway says so.
fn of_grant(id: &str, rest: &str) -> Cow<'static, str> {
    let plain: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    format!("/v1/grants/{plain}{rest}").into()
}

/// What a call's answer holds.
///
/// # Errors
/// It is something else.
pub fn read<T: DeserializeOwned>(answer: Value) -> Result<T, CallError> {
    serde_json::from_value(answer).map_err(|error| CallError::Nonsense(error.to_string()))
}

fn understand(status: StatusCode, body: &[u8]) -> Result<Value, CallError> {
    if status.is_success() {
        let body = if body.is_empty() { b"null" } else { body };
        return serde_json::from_slice(body)
            .map_err(|error| CallError::Nonsense(error.to_string()));
    }
    match serde_json::from_slice(body) {
        Ok(error) => Err(CallError::Refused(error)),
        Err(_) => Err(CallError::Nonsense(format!("HTTP status {status}"))),
    }
}

impl std::fmt::Debug for Api {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Api({})", self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use postern_proto::device_api::ErrorCode;

    #[test]
    fn an_answer_is_what_was_asked_for_a_refusal_in_words_or_nonsense() {
        let ok = understand(StatusCode::OK, b"[]").expect("a list");
        assert_eq!(read::<Vec<String>>(ok), Ok(Vec::new()));
        assert_eq!(understand(StatusCode::NO_CONTENT, b""), Ok(Value::Null));
        let body = br#"{"code":"invitation-used","error":"used","help":"ask for another"}"#;
        let Err(CallError::Refused(error)) = understand(StatusCode::CONFLICT, body) else {
            panic!("a refusal");
        };
        assert_eq!(error.code, ErrorCode::InvitationUsed);
        for (status, body) in [
            (StatusCode::OK, "<html>"),
            (StatusCode::BAD_GATEWAY, "<html>"),
        ] {
            let error = understand(status, body.as_bytes()).expect_err("no answer");
            assert!(matches!(error, CallError::Nonsense(_)), "{error}");
        }
    }

    #[test]
    fn a_call_survives_its_text_form() {
        for call in [
            Call::Device,
            Call::LogIn(LoginStart::DeviceCode { provider: None }),
            Call::Why(WhyRequest {
                to: "192.0.2.10:22/tcp".to_owned(),
            }),
        ] {
            let text = serde_json::to_string(&call).expect("serialises");
            assert_eq!(serde_json::from_str::<Call>(&text).expect("own form"), call);
        }
    }
}
