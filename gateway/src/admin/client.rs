//! The other end of the admin socket, for the command line.

use crate::api::ApiError;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::io;
use std::path::{Path, PathBuf};
use tokio::net::UnixStream;

/// One admin socket.
#[derive(Clone, Debug)]
pub struct Client {
    socket: PathBuf,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No gateway listens.
    #[error("no gateway is running at {}; help: start it with `postern-gateway run`, or name its gateway.yaml with --config", .0.display())]
    NotRunning(PathBuf),
    /// The system refused.
    #[error("{}: {reason}; help: run as the user that runs the gateway", path.display())]
    Io {
        /// The socket.
        path: PathBuf,
        /// Why.
        reason: io::Error,
    },
    /// The gateway refused.
    #[error("{}\n  help: {}", .0.error, .0.help)]
    Refused(ApiError),
    /// What came back is no answer: another version, or the gateway ended meanwhile.
    #[error("the gateway's answer does not read: {0}; help: use the same version of both")]
    Garbled(String),
}

impl Client {
    /// For the socket at `path`. Connects for each request.
    #[must_use]
    pub fn new(path: &Path) -> Self {
        Client {
            socket: path.to_owned(),
        }
    }

    /// Whether somebody answers on the socket.
    pub async fn is_running(&self) -> bool {
        UnixStream::connect(&self.socket).await.is_ok()
    }

    /// Asks for something.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.ask(Method::GET, path, Vec::new()).await
    }

    /// Asks for a change, or with a question that has a body.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(garbled)?;
        self.ask(Method::POST, path, body).await
    }

    /// Begins to follow a stream of lines. From now on the other end keeps them for us.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn follow(&self, path: &str) -> Result<Follow, ClientError> {
        Ok(Follow {
            body: self.send(Method::GET, path, Vec::new()).await?.into_body(),
            waiting: Vec::new(),
        })
    }

    /// Calls `each` for every line of a stream, until it returns false or the stream ends.
    ///
    /// # Errors
    /// See [`ClientError`].
    pub async fn lines(
        &self,
        path: &str,
        mut each: impl FnMut(&str) -> bool,
    ) -> Result<(), ClientError> {
        let mut follow = self.follow(path).await?;
        while let Some(line) = follow.next().await? {
            if !each(&line) {
                break;
            }
        }
        Ok(())
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<T, ClientError> {
        let body = self.send(method, path, body).await?.into_body();
        let bytes = body.collect().await.map_err(garbled)?.to_bytes();
        serde_json::from_slice(&bytes).map_err(garbled)
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        body: Vec<u8>,
    ) -> Result<Response<Incoming>, ClientError> {
        let stream = UnixStream::connect(&self.socket)
            .await
            .map_err(|error| self.unreachable(error))?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(garbled)?;
        // Ends with the connection; what went wrong shows in the answer.
        tokio::spawn(connection);
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", "postern-gateway")
            .body(Full::new(Bytes::from(body)))
            .map_err(garbled)?;
        let response = sender.send_request(request).await.map_err(garbled)?;
        if response.status().is_success() {
            return Ok(response);
        }
        let bytes = response
            .into_body()
            .collect()
            .await
            .map_err(garbled)?
            .to_bytes();
        Err(ClientError::Refused(
            serde_json::from_slice(&bytes).map_err(garbled)?,
        ))
    }
}

/// A stream of lines that the gateway sends.
#[derive(Debug)]
pub struct Follow {
    body: Incoming,
    waiting: Vec<u8>,
}

impl Follow {
    /// The next line without its line end; none when the stream is over.
    ///
    /// # Errors
    /// [`ClientError::Garbled`].
    pub async fn next(&mut self) -> Result<Option<String>, ClientError> {
        loop {
            if let Some(end) = self.waiting.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.waiting.drain(..=end).collect();
                return Ok(Some(String::from_utf8_lossy(&line).trim_end().to_owned()));
            }
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Ok(data) = frame.map_err(garbled)?.into_data() {
                self.waiting.extend_from_slice(&data);
            }
        }
    }
}

impl Client {
    fn unreachable(&self, reason: io::Error) -> ClientError {
        let path = self.socket.clone();
        let absent = [io::ErrorKind::NotFound, io::ErrorKind::ConnectionRefused];
        if absent.contains(&reason.kind()) {
            ClientError::NotRunning(path)
        } else {
            ClientError::Io { path, reason }
        }
    }
}

fn garbled(error: impl std::fmt::Display) -> ClientError {
    ClientError::Garbled(error.to_string())
}
