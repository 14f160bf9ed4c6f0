//! Commands that would pull the ground away under the proxy, and who decides about them.
//!
//! The table says which *group* such a command belongs to, how it is refused, and what it is when
//! it is let through ([`Ruled`]). The operator decides group by group (`[commands]` in
//! `config.toml`), and [`Policy::settle`] makes one verdict of both.
//!
//! **Invariant:** a settled verdict names no group: behind the session's own look at the policy
//! nobody meets [`Path::Ruled`].

use super::{Class, Local, Path, Verdict};

/// Commands about which the operator decides together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// `REPLICAOF`, `SLAVEOF`.
    Replicaof,
    Failover,
    Shutdown,
    /// `CLIENT PAUSE`, `CLIENT UNPAUSE`.
    ClientPause,
    /// The replication protocol: `PSYNC`, `SYNC`, `REPLCONF`, and what Kvrocks has of that kind.
    Replication,
    /// What changes a cluster.
    Cluster,
    ScriptDebug,
}

const GROUPS: usize = 7;

/// What the operator says about a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ruling {
    /// An error that says what to do instead.
    Refuse,
    /// To the server, as without the proxy.
    Pass,
    /// `FAILOVER` alone: the proxy's own switchover.
    Switchover,
}

/// What the table knows of such a command.
#[derive(Debug, PartialEq, Eq)]
pub struct Ruled {
    pub group: Group,
    /// The text to refuse it with.
    pub refusal: &'static str,
    /// What it is when it is let through.
    pub passed: Verdict,
}

/// One ruling per group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    rulings: [Ruling; GROUPS],
}

impl Default for Policy {
    /// Everything is refused but a pause, which ends by itself.
    fn default() -> Self {
        let refused = Self {
            rulings: [Ruling::Refuse; GROUPS],
        };
        refused.with(Group::ClientPause, Ruling::Pass)
    }
}

impl Policy {
    pub fn with(mut self, group: Group, ruling: Ruling) -> Self {
        if let Some(place) = self.rulings.get_mut(group as usize) {
            *place = ruling;
        }
        self
    }

    /// The verdict on a command that the table judged so, under this policy.
    #[inline]
    pub fn settle(&self, verdict: Verdict) -> Verdict {
        match verdict.path {
            Path::Ruled(ruled) => self.rule(ruled),
            _ => verdict,
        }
    }

    #[cold]
    fn rule(&self, ruled: &Ruled) -> Verdict {
        match self.rulings.get(ruled.group as usize) {
            Some(Ruling::Pass) => ruled.passed,
            Some(Ruling::Switchover) => Verdict {
                class: Class::Admin,
                writes: false,
                path: Path::Local(Local::Failover),
            },
            Some(Ruling::Refuse) | None => Verdict {
                class: Class::Refused,
                writes: false,
                path: Path::Refused(ruled.refusal),
            },
        }
    }
}
