//! The command line's HTTP client for the admin API of a running proxy.
//!
//! **Invariant:** every request has a deadline, and every answer a limit in bytes.
//!
//! Trade-off: each request dials anew. It is a loopback connection, asked at most fifty times a
//! second, and a kept one would have to be repaired when the proxy restarts.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::{self, HeaderValue};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use crate::config::{Address, Secret};

/// Nothing that is asked here waits for a switchover, so an answer is a matter of milliseconds.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);
const ANSWER_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Where the proxy is asked.
pub struct AdminClient {
    address: String,
    config: PathBuf,
    /// The admin token as it is sent.
    authorization: Option<HeaderValue>,
}

impl AdminClient {
    /// `listen` as in the config; one that stands for every address is reached on loopback.
    pub fn new(listen: &str, config: &Path, token: Option<&Secret>) -> Result<Self, ClientError> {
        let authorization = token.map(|token| {
            let mut value = HeaderValue::try_from(format!("Bearer {}", token.expose()))
                .map_err(|_| ClientError::BadToken)?;
            value.set_sensitive(true);
            Ok(value)
        });
        let address = match Address::parse(listen) {
            Ok(Address { host, port }) if host == "0.0.0.0" => format!("127.0.0.1:{port}"),
            Ok(Address { host, port }) if host == "::" => format!("[::1]:{port}"),
            _ => listen.to_owned(),
        };
        Ok(AdminClient {
            address,
            config: config.to_path_buf(),
            authorization: authorization.transpose()?,
        })
    }

    pub async fn get(&self, path: &str) -> Result<Answer, ClientError> {
        self.ask(Method::GET, path, Bytes::new()).await
    }

    pub async fn post(&self, path: &str, body: &serde_json::Value) -> Result<Answer, ClientError> {
        self.ask(Method::POST, path, Bytes::from(body.to_string()))
            .await
    }

    pub async fn delete(&self, path: &str) -> Result<Answer, ClientError> {
        self.ask(Method::DELETE, path, Bytes::new()).await
    }

    async fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Answer, ClientError> {
        let asked = tokio::time::timeout(ANSWER_TIMEOUT, self.exchange(method, path, body));
        match asked.await {
            Ok(answer) => answer?.successful(),
            Err(_) => Err(ClientError::NoAnswer {
                address: self.address.clone(),
            }),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
    ) -> Result<Answer, ClientError> {
        let stream = TcpStream::connect(&self.address).await.map_err(|cause| {
            let (address, config) = (self.address.clone(), self.config.clone());
            ClientError::NotRunning {
                address,
                config,
                cause,
            }
        })?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream))
            .await
            .map_err(|source| self.broken(source.into()))?;
        let mut request = Request::builder();
        if let Some(authorization) = &self.authorization {
            request = request.header(header::AUTHORIZATION, authorization);
        }
        let request = request
            .method(method)
            .uri(path)
            .header(header::HOST, &self.address)
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::CONNECTION, "close")
            .body(Full::new(body))
            .map_err(|source| self.broken(source.into()))?;
        let answer = async move {
            let response = sender.send_request(request).await?;
            let status = response.status();
            let body = Limited::new(response.into_body(), ANSWER_BYTES_MAX)
                .collect()
                .await?;
            Ok(Answer {
                status,
                body: body.to_bytes(),
                address: self.address.clone(),
            })
        };
        // The connection makes progress only while it is polled, and it may end before the answer
        // is taken out of it, so neither side may cut the other short. It ends at the latest when
        // the sender, which the answer owns, is gone.
        let (_, answer) = tokio::join!(connection, answer);
        answer.map_err(|source| self.broken(source))
    }

    fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> ClientError {
        ClientError::Broken {
            address: self.address.clone(),
            source,
        }
    }
}

/// What the proxy said.
#[derive(Debug)]
pub struct Answer {
    status: StatusCode,
    body: Bytes,
    address: String,
}

impl Answer {
    /// The answer as the type it should have.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, ClientError> {
        serde_json::from_slice(&self.body).map_err(|source| ClientError::Broken {
            address: self.address.clone(),
            source: source.into(),
        })
    }

    fn successful(self) -> Result<Self, ClientError> {
        #[derive(Deserialize)]
        struct Refusal {
            error: String,
        }
        if self.status.is_success() {
            return Ok(self);
        }
        match serde_json::from_slice::<Refusal>(&self.body) {
            Ok(refusal) => Err(ClientError::Declined(refusal.error)),
            Err(_) => Err(ClientError::Stranger {
                address: self.address,
                status: self.status,
            }),
        }
    }
}

/// Why there is no answer to work with.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The token cannot stand in a header. Nobody was asked.
    #[error("POINTSMAN_ADMIN_TOKEN holds a character that no token has: check it")]
    BadToken,
    /// Nobody listens there. Nothing was ordered.
    #[error(
        "no pointsman answers at {address}: is `pointsman serve --config {}` running? ({cause})",
        config.display()
    )]
    NotRunning {
        address: String,
        config: PathBuf,
        cause: std::io::Error,
    },
    /// It took the connection and stays silent. What was ordered may have been done.
    #[error("{address} does not answer: is it pointsman, and is the machine overloaded?")]
    NoAnswer { address: String },
    /// The answer broke off or is no JSON. What was ordered may have been done.
    #[error("the answer of {address} cannot be read")]
    Broken {
        address: String,
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The proxy answered that it will not. Nothing was done.
    #[error("{0}")]
    Declined(String),
    /// Somebody else listens there.
    #[error("{address} answers with status {status} and is no pointsman: check [admin] listen")]
    Stranger { address: String, status: StatusCode },
}
