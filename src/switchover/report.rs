//! What a switchover did: one record for the log, the metrics, the admin API and the command line.
//!
//! Owns the types only; whoever performs the switchover fills them in. The JSON names are fixed:
//! people script against them.
//!
//! **Invariant:** a report is complete the moment it exists. Nothing in it changes afterwards
//! except `replicas`, whose entries may still say `pending` when the report is handed out.
//!
//! Trade-off: times are `f64` milliseconds instead of `Duration`, because that is what a reader of
//! the JSON wants and microseconds survive in the fraction.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Everything that is known about one switchover after its end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Report {
    /// The operation's id: UTC time and random hex digits, so ids sort by time.
    pub id: String,
    pub shard: String,
    pub outcome: Outcome,
    /// The master before, as `host:port` from the config; empty when the shard had none.
    pub from: String,
    /// The node that was asked to become master.
    pub to: String,
    /// Why it was refused, rolled back or left unknown; empty when it switched.
    pub reasons: Vec<String>,
    pub started_at_ms: u64,
    /// From the order to the end.
    pub total_ms: f64,
    /// From the order to close the gates until the last one is open, or writes are told that there
    /// is no master; 0 when no write was ever held.
    pub hold_ms: f64,
    /// The longest time that any session's write waited.
    pub longest_hold_ms: f64,
    /// Sessions that had a write waiting at the release.
    pub writes_held: u64,
    /// What the old master accepted and the target does not have: writes that leaked past the
    /// fence, or were given up by `force_on_timeout`. Counted in units of the engine's offset
    /// (bytes for Redis and Valkey, sequence numbers for Kvrocks); 0 unless something went wrong.
    pub writes_not_carried: u64,
    /// In the order in which they ran.
    pub phases: Vec<Phase>,
    /// Every node that follows the new master, the old master included.
    pub replicas: Vec<ReplicaResync>,
    /// Sentinels that do not know the new master yet; they are told in the background.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sentinels_untold: Vec<String>,
    /// The other proxies of the shard; absent when nobody was asked to hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxies: Option<Proxies>,
    /// Only the preflight ran, and nothing was touched.
    pub dry_run: bool,
}

/// What the other proxies of the shard did in a switchover. Through one that did not hold, messages
/// may be lost; through one that did not follow in time, reads may be old.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies {
    /// How many listened on the old master.
    pub others: usize,
    /// Those that held their writes before the fence.
    pub held: Vec<String>,
    /// Those that read from the new master before the first write went on.
    pub routed: Vec<String>,
    /// Those that did not hold, as far as the old master's list names them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub silent: Vec<OtherProxy>,
    /// Those that held, and did not read from the new master in time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub late: Vec<OtherProxy>,
    /// Listeners that are no proxies, and were not waited for.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub strangers: usize,
    /// Why they could not be counted or told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fault: Option<String>,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// One of them, so that it can be found.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct OtherProxy {
    /// Its process id, and a word that it drew when it started; its log says it, too.
    pub id: String,
    /// Where it listens from, as the old master sees it.
    pub addr: String,
}

impl fmt::Display for OtherProxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "proxy {} at {}", self.id, self.addr)
    }
}

impl Proxies {
    pub fn silent_in_hold(&self) -> u64 {
        let counted = self.others.saturating_sub(self.held.len());
        counted.max(self.silent.len()) as u64
    }

    pub fn silent_in_route(&self) -> u64 {
        self.others.saturating_sub(self.routed.len()) as u64
    }
}

/// How a switchover ended.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The target is master and holds every acknowledged write. A dry run that found nothing
    /// in the way ends so, too.
    Switched,
    /// The target is master, but the old one accepted something that the target does not have.
    SwitchedWithLeak,
    /// The old master is master again, and no write was lost.
    RolledBack,
    /// A requirement was not met, and nothing was touched.
    Refused,
    /// It is not known which node is master. Work goes on, and a later report may say how it ended;
    /// until then an operator should look.
    Unknown,
}

impl Outcome {
    /// The name in JSON, metric labels and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Switched => "switched",
            Outcome::SwitchedWithLeak => "switched_with_leak",
            Outcome::RolledBack => "rolled_back",
            Outcome::Refused => "refused",
            Outcome::Unknown => "unknown",
        }
    }

    /// Whether the target is master now.
    pub fn is_switched(self) -> bool {
        matches!(self, Outcome::Switched | Outcome::SwitchedWithLeak)
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One finished step: `preflight`, `journal`, `pre_dial`, `hold`, `pause`, `catch_up`, `fence`,
/// `prove`, `promote`, `demote`, `repoint`, `report`, `undo` or `recover`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
pub struct Phase {
    pub name: String,
    pub ms: f64,
}

/// How one node came to follow the new master.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub struct ReplicaResync {
    pub node: String,
    pub resync: Resync,
}

/// What a node had to transfer to follow the new master.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
pub enum Resync {
    /// Only what it was missing.
    Partial,
    /// The whole data set: the replica is of no use until that is over.
    Full,
    /// Not connected yet; retried in the background.
    Pending,
    /// Not attached: an operator has to look.
    Failed,
}

impl Resync {
    /// The name in JSON and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Resync::Partial => "partial",
            Resync::Full => "full",
            Resync::Pending => "pending",
            Resync::Failed => "failed",
        }
    }
}

impl fmt::Display for Resync {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
