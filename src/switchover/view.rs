//! The switchover as seen from outside: what the admin API and the command line may ask and order.
//!
//! Owns the [`Control`] trait and the plain values that go through it. The real implementation
//! drives servers; tests of the admin API plug in a scripted one.
//!
//! **Invariant:** nothing here can reach a session, a gate or a server except through [`Control`].
//!
//! Trade-off: the trait's async methods return boxed futures, which costs an allocation per call
//! and keeps the trait usable behind a pointer. It is called a few times a second, never per
//! request of a client.

use std::pin::Pin;

use serde::{Deserialize, Serialize};

use crate::switchover::report::{Phase, Report};

/// A future behind a pointer, so that [`Control`] can be a trait object.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Everything that an operator can see and order.
pub trait Control: Send + Sync {
    /// Names of all shards, in the order of the config.
    fn names(&self) -> Vec<String>;

    /// One shard as last observed; `None` when there is no shard of that name.
    fn status(&self, shard: &str) -> Option<ShardStatus>;

    /// Starts an operation and returns its id as soon as it runs, without waiting for its end.
    ///
    /// Requirements that are not met are no [`StartError`]: the operation runs and ends as
    /// `refused`, with the reasons in its report.
    fn switchover(
        &self,
        shard: String,
        to: String,
        dry_run: bool,
    ) -> BoxFuture<'_, Result<String, StartError>>;

    /// A running or recently ended operation; `None` when the id is not known (any more).
    fn operation(&self, id: &str) -> Option<OperationView>;

    /// Returns when the operation is over; `None` when the id is not known.
    fn wait(&self, id: String) -> BoxFuture<'_, Option<Report>>;

    /// Asks an operation to undo what it did so far, or, where only work in the background is left,
    /// to leave that. Returns at once; the end shows in its report.
    fn abort(&self, id: &str) -> AbortAnswer;
}

/// Why an operation was not even started. Nothing was touched in any of these cases.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StartError {
    /// The config has no shard of that name.
    #[error("there is no such shard: ask for one of those that the status shows")]
    UnknownShard,
    /// Another operation runs on this shard. Wait for it or abort it.
    #[error("operation {id} is running on this shard: wait for its end or abort it")]
    Busy { id: String },
    /// The proxy is about to end. Order it again when it is back.
    #[error("the proxy is shutting down: order it again when the proxy is back")]
    ShuttingDown,
}

/// What became of the request to abort an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AbortAnswer {
    /// It will be undone; its report tells when that is over.
    Aborting,
    /// What it still does in the background is left as it is.
    Leaving,
    /// The target was promoted already, and from there an operation only goes forward.
    TooLate,
    /// It is over: see its report.
    Ended,
    /// No operation of that id is known.
    Unknown,
}

/// An operation, running or over.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct OperationView {
    pub id: String,
    pub shard: String,
    pub from: String,
    pub to: String,
    pub state: OperationState,
    /// The phase that runs now; the last one when the operation is over.
    pub phase: String,
    /// The phases that are finished so far, in order.
    pub phases: Vec<Phase>,
    /// Present exactly when `state` is `ended`.
    pub report: Option<Report>,
}

/// Whether an operation is over.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum OperationState {
    Running,
    Ended,
}

/// One shard as last observed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ShardStatus {
    pub name: String,
    /// Where clients connect.
    pub listen: String,
    /// `redis`, `valkey` or `kvrocks`, once a node has answered.
    pub engine: Option<String>,
    pub version: Option<String>,
    /// How often the route has changed.
    pub epoch: u64,
    /// Where writes go; `None` while there is no master.
    pub master: Option<String>,
    /// `open`, `holding` or `shut`.
    pub gate: String,
    pub sessions: u64,
    /// Id of the operation that runs on this shard.
    pub operation: Option<String>,
    pub nodes: Vec<NodeStatus>,
}

/// One node as last observed.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct NodeStatus {
    pub node: String,
    pub role: NodeRole,
    /// State of a replica's link to its master: `up`, `down` or `sync`.
    pub link: Option<String>,
    pub offset: Option<u64>,
    /// How far it is behind the master, in units of the engine's offset.
    pub lag_bytes: Option<i64>,
    pub seen_ms_ago: Option<u64>,
    /// Why it could not be looked at.
    pub error: Option<String>,
}

/// What a node says about itself.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum NodeRole {
    Master,
    Replica,
    /// It did not answer, or answered something else.
    Unknown,
}

impl NodeRole {
    /// The name in JSON and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            NodeRole::Master => "master",
            NodeRole::Replica => "replica",
            NodeRole::Unknown => "unknown",
        }
    }
}
