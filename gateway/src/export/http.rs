//! One server that takes batches over HTTP/1.1, with or without TLS. Follows no redirect, and uses
//! no proxy: records go where the configuration says.

use super::driver::Failure;
use super::secret;
use crate::config::{Auth, PushConfig};
use crate::https::{self, Connector};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::header::{
    AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, USER_AGENT,
};
use hyper::{Method, Request, Response, StatusCode, Uri};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use std::io;
use std::time::{Duration, SystemTime};
use tokio::runtime::Runtime;

/// Bytes of an answer that are read, at most. A longer one is an error.
const LONGEST_ANSWER: usize = 64 << 10;

/// Characters of an answer that are shown, at most.
const LONGEST_QUOTE: usize = 200;

/// Posts batches to one address, one at a time, over a connection that stays open.
pub(super) struct Poster {
    url: Uri,
    timeout: Duration,
    headers: HeaderMap,
    auth: Auth,
    /// The connection lives in the runtime and goes before it.
    client: Client<Connector, Full<Bytes>>,
    runtime: Runtime,
}

impl Poster {
    /// # Errors
    /// A secret or a certificate cannot be read.
    pub(super) fn new(
        config: &PushConfig,
        content_type: &'static str,
        more: impl IntoIterator<Item = (HeaderName, HeaderValue)>,
    ) -> io::Result<Poster> {
        let mut headers: HeaderMap = more.into_iter().collect();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
        let agent = concat!("postern-gateway/", env!("CARGO_PKG_VERSION"));
        headers.insert(USER_AGENT, HeaderValue::from_static(agent));
        if let Some(value) = secret::authorization(&config.auth)? {
            headers.insert(AUTHORIZATION, value);
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(Poster {
            url: config.url.clone(),
            timeout: config.timeout,
            headers,
            auth: config.auth.clone(),
            client: Client::builder(TokioExecutor::new()).build(connector(config)?),
            runtime,
        })
    }

    /// Posts a body and returns the answer's.
    pub(super) fn post(&mut self, body: Vec<u8>) -> Result<Bytes, Failure> {
        let mut request = Request::new(Full::new(Bytes::from(body)));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.url.clone();
        *request.headers_mut() = self.headers.clone();
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|e| https::chain(&e))?;
            read(answer).await
        };
        let result = self
            .runtime
            .block_on(async { tokio::time::timeout(self.timeout, exchange).await });
        let error = match result {
            Ok(Ok((status, _, body))) if status.is_success() => return Ok(body),
            Ok(Ok((status, headers, body))) => return Err(self.judge(status, &headers, &body)),
            Ok(Err(error)) => error,
            Err(_) => format!("no answer within {:?}", self.timeout),
        };
        Err(Failure::Retry {
            after: None,
            error: format!("{}: {error}", self.url),
        })
    }

    fn judge(&mut self, status: StatusCode, headers: &HeaderMap, body: &[u8]) -> Failure {
        let error = format!("{} answers {status}{}", self.url, quote(body));
        if says_no_to_content(status) {
            return Failure::Refused { error };
        }
        if status == StatusCode::UNAUTHORIZED {
            self.read_secret_again();
        }
        Failure::Retry {
            after: headers
                .get(RETRY_AFTER)
                .and_then(|value| retry_after(value.to_str().ok()?, SystemTime::now())),
            error,
        }
    }

    /// It may have been replaced since: tokens expire.
    fn read_secret_again(&mut self) {
        match secret::authorization(&self.auth) {
            Ok(Some(value)) => {
                self.headers.insert(AUTHORIZATION, value);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(%error, "the secret for a server cannot be read again"),
        }
    }
}

/// These are about the lines: sending them again would not help. Every other refusal is about this
/// gateway, its credentials or the address, and setting that right would help: parking lines
/// because of a wrong password would empty the log into a file.
fn says_no_to_content(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNPROCESSABLE_ENTITY
    )
}

async fn read(answer: Response<Incoming>) -> Result<(StatusCode, HeaderMap, Bytes), String> {
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, LONGEST_ANSWER).collect().await;
    match body {
        Ok(body) => Ok((head.status, head.headers, body.to_bytes())),
        // The status says enough.
        Err(_) if !head.status.is_success() => Ok((head.status, head.headers, Bytes::new())),
        Err(error) => Err(format!("the answer cannot be read: {error}")),
    }
}

/// Seconds or a date (RFC 9110, section 10.2.3).
fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    date.duration_since(now).ok()
}

/// What a server says, as far as it fits a line of a log.
fn quote(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(body);
    let text: String = text.trim().chars().take(LONGEST_QUOTE).collect();
    if text.is_empty() {
        text
    } else {
        format!(": {}", text.escape_debug())
    }
}

fn connector(config: &PushConfig) -> io::Result<Connector> {
    let secure = config.url.scheme_str() == Some("https");
    https::connector(secure, config.ca_file.as_deref(), config.timeout)
}

/// Whether the certificates can be had.
pub(super) fn check(config: &PushConfig) -> io::Result<()> {
    connector(config).map(|_| ())
}

#[cfg(test)]
mod tests;
