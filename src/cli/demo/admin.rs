//! The admin HTTP API as a client sees it: orders a switchover and reads its report.
//!
//! One connection per request. The types name only what is used here and let the rest pass, so that
//! a newer proxy can be asked by an older program.

use std::time::Duration;

use anyhow::{Context, bail};
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::time::timeout;

const BODY_BYTES_MAX: usize = 8 * 1024 * 1024;
const QUICK: Duration = Duration::from_secs(5);
/// A switchover has a deadline in each step; this is far past their sum.
const SWITCHOVER_DEADLINE: Duration = Duration::from_secs(60);

/// What the proxy reports about a switchover that is over.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Report {
    pub id: String,
    pub outcome: String,
    pub from: String,
    pub to: String,
    pub reasons: Vec<String>,
    pub total_ms: f64,
    pub hold_ms: f64,
    pub longest_hold_ms: f64,
    pub writes_held: u64,
    pub writes_not_carried: u64,
    pub phases: Vec<Phase>,
    pub replicas: Vec<Resync>,
    pub proxies: Proxies,
    pub dry_run: bool,
}

/// The other proxies of the shard.
#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Proxies {
    pub others: usize,
    pub held: Vec<String>,
    pub routed: Vec<String>,
    pub silent: Vec<OtherProxy>,
    pub late: Vec<OtherProxy>,
    pub strangers: usize,
    pub fault: Option<String>,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(default)]
pub struct OtherProxy {
    pub id: String,
    pub addr: String,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Phase {
    pub name: String,
    pub ms: f64,
}

#[derive(Clone, Debug, Default, Deserialize, Serialize)]
#[serde(default)]
pub struct Resync {
    pub node: String,
    pub resync: String,
}

/// An answer of whatever status.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub body: String,
}

impl Answer {
    pub fn json(&self) -> anyhow::Result<Value> {
        serde_json::from_str(&self.body).with_context(|| format!("no JSON: {}", self.body))
    }

    /// The text of a field at the top of the JSON; empty when it is not there.
    pub fn text(&self, field: &str) -> String {
        let json = self.json().unwrap_or_default();
        json.get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    }
}

#[derive(Clone, Debug)]
pub struct Admin {
    pub addr: String,
    /// What the proxy wants to be shown; it has none unless its configuration says so.
    pub token: Option<String>,
}

impl Admin {
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.request("GET", path, String::new(), QUICK).await
    }

    pub async fn delete(&self, path: &str) -> anyhow::Result<Answer> {
        self.request("DELETE", path, String::new(), QUICK).await
    }

    pub async fn post(&self, path: &str, body: String) -> anyhow::Result<Answer> {
        self.request("POST", path, body, SWITCHOVER_DEADLINE).await
    }

    /// Returns when the switchover is over, however it ended.
    pub async fn switchover(&self, shard: &str, to: &str) -> anyhow::Result<Report> {
        let body = serde_json::json!({ "to": to }).to_string();
        let answer = self
            .post(&format!("/v1/shards/{shard}/switchover"), body)
            .await?;
        match serde_json::from_str::<Report>(&answer.body) {
            Ok(report) if !report.outcome.is_empty() => Ok(report),
            _ => bail!("the proxy answered {}: {}", answer.status, answer.body),
        }
    }

    async fn request(
        &self,
        method: &str,
        path: &str,
        body: String,
        within: Duration,
    ) -> anyhow::Result<Answer> {
        timeout(within, self.exchange(method, path, body))
            .await
            .map_err(|_| anyhow::anyhow!("{method} {path}: no answer within {within:?}"))?
            .with_context(|| format!("{method} http://{}{path}", self.addr))
    }

    async fn exchange(&self, method: &str, path: &str, body: String) -> anyhow::Result<Answer> {
        let stream = TcpStream::connect(&self.addr).await?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        let mut request = Request::builder();
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        let request = request
            .method(method)
            .uri(path)
            .header("host", &self.addr)
            .header("content-type", "application/json")
            .body(Full::new(Bytes::from(body)))?;
        let exchange = async {
            let response = sender.send_request(request).await?;
            let status = response.status().as_u16();
            let body = Limited::new(response.into_body(), BODY_BYTES_MAX)
                .collect()
                .await;
            let body = body.map_err(|error| anyhow::anyhow!("{error}"))?.to_bytes();
            Ok(Answer {
                status,
                body: String::from_utf8_lossy(&body).into_owned(),
            })
        };
        tokio::pin!(exchange);
        tokio::pin!(connection);
        tokio::select! {
            answer = &mut exchange => answer,
            // The connection may be done a moment before the body was handed over.
            ended = &mut connection => { ended?; exchange.await }
        }
    }
}
