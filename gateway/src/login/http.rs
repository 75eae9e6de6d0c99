//! How an OpenID provider is asked: no redirects, no proxy, bounded in bytes and in time.

use crate::config::ProviderConfig;
use crate::https::{self, Connector};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{HeaderValue, USER_AGENT};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use openidconnect::{AsyncHttpClient, HttpRequest, HttpResponse};
use std::io;
use std::pin::Pin;
use std::time::Duration;

/// Bytes of an answer that are read, at most. A longer one is an error.
const LONGEST_ANSWER: usize = 256 << 10;

/// How long one request may take, with its answer.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Why there is no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum HttpError {
    /// The server cannot be reached, or speaks no HTTP.
    #[error("{0}")]
    Unreachable(String),
    /// It took too long.
    #[error("no answer within {TIMEOUT:?}")]
    TooSlow,
    /// It sends us elsewhere.
    #[error("it answers with a redirect ({0}), and none is followed: set the issuer's own address")]
    Redirect(u16),
    /// The answer is too long, or breaks off.
    #[error("the answer cannot be read: {0}")]
    Unreadable(String),
}

/// Asks one provider.
#[derive(Debug)]
pub(super) struct Http {
    client: Client<Connector, Full<Bytes>>,
}

impl Http {
    /// # Errors
    /// The certificates cannot be had.
    pub(super) fn new(config: &ProviderConfig) -> io::Result<Http> {
        let secure = config.issuer.starts_with("https://");
        let connector = https::connector(secure, config.ca_file.as_deref(), TIMEOUT)?;
        Ok(Http {
            client: Client::builder(TokioExecutor::new()).build(connector),
        })
    }

    /// # Errors
    /// See [`HttpError`]. Every status but a redirect is an answer.
    pub(super) async fn ask(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        let (mut head, body) = request.into_parts();
        let agent = concat!("postern-gateway/", env!("CARGO_PKG_VERSION"));
        head.headers
            .insert(USER_AGENT, HeaderValue::from_static(agent));
        let request = hyper::Request::from_parts(head, Full::new(Bytes::from(body)));
        let exchange = async {
            let answer = self.client.request(request).await;
            let answer = answer.map_err(|error| HttpError::Unreachable(https::chain(&error)))?;
            let (head, body) = answer.into_parts();
            if head.status.is_redirection() {
                return Err(HttpError::Redirect(head.status.as_u16()));
            }
            let body = Limited::new(body, LONGEST_ANSWER).collect().await;
            let body = body.map_err(|error| HttpError::Unreadable(error.to_string()))?;
            Ok(HttpResponse::from_parts(head, body.to_bytes().to_vec()))
        };
        match tokio::time::timeout(TIMEOUT, exchange).await {
            Ok(answer) => answer,
            Err(_) => Err(HttpError::TooSlow),
        }
    }
}

impl<'c> AsyncHttpClient<'c> for Http {
    type Error = HttpError;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(self.ask(request))
    }
}
