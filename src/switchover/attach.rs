//! Puts nodes behind the new master: the old master and the other replicas.
//!
//! Owns the orders for demotion and repointing, and tells a partial resynchronisation from a full
//! one. Whether an old master may be attached is judged before, by whoever calls: one that accepted
//! something the target lacks would throw it away or, worse, keep it and diverge without a word.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::resp::reply::{Info, Value};
use crate::switchover::kvrocks;
use crate::switchover::orders::{Orders, refused};
use crate::switchover::report::Resync;
use crate::topology::engine::Engine;
use crate::topology::facts::{Link, NodeFacts, Role, SyncCounters, split};
use crate::topology::node::{Connection, NodeError};

/// How long to wait before asking a refusing node or looking at a link again.
const TRY_AGAIN: Duration = Duration::from_millis(5);

impl Orders {
    /// Makes the fenced old master follow the target. On Kvrocks the other replicas must have been
    /// repointed before.
    pub async fn attach(
        self,
        old: &mut Connection,
        target: &str,
        within: Duration,
    ) -> Result<(), NodeError> {
        let deadline = Instant::now() + within;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if self.engine == Engine::Kvrocks {
                self.end_feed(old, target, left).await?;
            }
            let value = old.call_many(&[self.follow(target)], left).await?.pop();
            let value = value.unwrap_or(Value::Null);
            if value.is_ok() {
                return Ok(());
            }
            let again = value.error().is_some_and(kvrocks::is_own_replica_refusal);
            if !again || Instant::now() + TRY_AGAIN >= deadline {
                return Err(refused(old, self.abilities.role_command, &value));
            }
            sleep(TRY_AGAIN).await;
        }
    }

    /// Ends the feed from the old master to the target, by the address under which it is listed.
    async fn end_feed(
        self,
        old: &mut Connection,
        target: &str,
        within: Duration,
    ) -> Result<(), NodeError> {
        let facts = NodeFacts::read(old, within).await?;
        let port = split(target).map(|(_, port)| port);
        // Listed by the address the target connects from, which need not be the config's name; the
        // listening port is its own word. Two nodes with one port: both feeds end, both reconnect.
        let feeds = facts
            .attached
            .iter()
            .filter(|feed| split(feed).map(|(_, port)| port) == port);
        let kills: Vec<_> = feeds.map(|feed| kvrocks::kill_feed(feed)).collect();
        if !kills.is_empty() {
            old.call_many(&kills, within).await?;
        }
        Ok(())
    }

    /// Makes a replica follow the target.
    pub async fn repoint(
        self,
        replica: &mut Connection,
        target: &str,
        within: Duration,
    ) -> Result<(), NodeError> {
        let value = replica
            .call_many(&[self.follow(target)], within)
            .await?
            .pop();
        let value = value.unwrap_or(Value::Null);
        if value.is_ok() {
            Ok(())
        } else {
            Err(refused(replica, "the new master", &value))
        }
    }

    /// Writes the role into the node's own config file, so that a restart keeps it.
    pub async fn rewrite_config(
        self,
        connection: &mut Connection,
        within: Duration,
    ) -> Result<(), NodeError> {
        connection.order(&["CONFIG", "REWRITE"], within).await
    }
}

/// How one replica came to follow `master`, seen from the replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The link is up. `loaded`: it was seen receiving or loading the whole data set.
    Up { loaded: bool },
    /// Not yet, at the deadline.
    Pending { loaded: bool },
}

/// Waits until the replica's link to `host:port` is up.
pub async fn await_link(replica: &mut Connection, master: &str, within: Duration) -> Attachment {
    let deadline = Instant::now() + within;
    let mut loaded = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let value = match replica.call(&["INFO", "replication"], left).await {
            Ok(value) => value,
            Err(_) => return Attachment::Pending { loaded },
        };
        // While it restores a full copy, a node answers LOADING or leaves the section out.
        match Info::of(&value).as_ref().and_then(Role::of) {
            None => loaded = true,
            Some(Role::Replica {
                link: Link::Sync, ..
            }) => loaded = true,
            Some(Role::Replica {
                port,
                link: Link::Up,
                ..
            }) if split(master).map(|(_, port)| port) == Some(port.to_string().as_str()) => {
                return Attachment::Up { loaded };
            }
            Some(_) => {}
        }
        if Instant::now() + TRY_AGAIN >= deadline {
            return Attachment::Pending { loaded };
        }
        sleep(TRY_AGAIN).await;
    }
}

/// The new master's count of synchronisations, read before the first node was pointed at it and
/// again after the last link came up.
pub async fn sync_counters(
    master: &mut Connection,
    within: Duration,
) -> Result<SyncCounters, NodeError> {
    let value = master.call(&["INFO", "stats"], within).await?;
    let info = Info::of(&value).ok_or_else(|| refused(master, "INFO stats", &value))?;
    Ok(SyncCounters::of(&info))
}

/// Partial or full, for each attachment. The master's counters decide whether there was a full one
/// at all; which replica it was is seen from the replicas. When the counters show more full ones
/// than replicas were seen loading, none is called partial that might have been full.
pub fn judge_resyncs(full_before: u64, full_after: u64, seen: &[Attachment]) -> Vec<Resync> {
    let full = full_after.saturating_sub(full_before);
    let is_loaded = |attachment: &&Attachment| {
        matches!(
            attachment,
            Attachment::Up { loaded: true } | Attachment::Pending { loaded: true }
        )
    };
    let told_apart = seen.iter().filter(is_loaded).count() as u64 >= full;
    seen.iter()
        .map(|attachment| match attachment {
            Attachment::Pending { .. } => Resync::Pending,
            Attachment::Up { .. } if full == 0 => Resync::Partial,
            Attachment::Up { loaded: false } if told_apart => Resync::Partial,
            Attachment::Up { .. } => Resync::Full,
        })
        .collect()
}

/// Whether a node has no key in any database: there is nothing in it that could be lost.
pub async fn is_empty(node: &mut Connection, within: Duration) -> Result<bool, NodeError> {
    let value = node.call(&["INFO", "keyspace"], within).await?;
    let text = value.text().filter(|_| value.error().is_none());
    Ok(text.is_some_and(|text| !text.lines().any(|line| line.starts_with("db"))))
}

/// How many of the newest batches are compared.
const TAIL: u64 = 16;

/// What the raw batches of two Kvrocks nodes say of their histories.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tail {
    Same,
    Differs,
    /// A node does not know POLLUPDATES, or no longer has so old a batch.
    Untold,
}

/// Compares the last batches up to `offset`, the smaller of their offsets.
pub async fn compare_tails(
    one: &mut Connection,
    other: &mut Connection,
    offset: u64,
    within: Duration,
) -> Result<Tail, NodeError> {
    if offset == 0 {
        return Ok(Tail::Same);
    }
    // It answers with what comes behind the sequence it is given.
    let from = offset.saturating_sub(TAIL).to_string();
    let asked = ["POLLUPDATES", from.as_str(), "MAX", "16"];
    let (here, there) = (
        one.call(&asked, within).await?,
        other.call(&asked, within).await?,
    );
    let (Some(here), Some(there)) = (updates(&here), updates(&there)) else {
        return Ok(Tail::Untold);
    };
    if here.is_empty() || there.is_empty() {
        return Ok(Tail::Untold);
    }
    Ok(
        match here.iter().zip(there).all(|(one, other)| one == other) {
            true => Tail::Same,
            false => Tail::Differs,
        },
    )
}

/// The hex batches in an answer of name and value pairs.
fn updates(value: &Value) -> Option<&[Value]> {
    let items = value.items()?;
    let at = items
        .iter()
        .position(|item| item.text() == Some("updates"))?;
    items.get(at + 1)?.items()
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUICK: Attachment = Attachment::Up { loaded: false };
    const LOADED: Attachment = Attachment::Up { loaded: true };
    const WAITING: Attachment = Attachment::Pending { loaded: false };

    #[test]
    fn without_a_full_one_on_the_counter_all_are_partial() {
        assert_eq!(
            judge_resyncs(3, 3, &[QUICK, LOADED]),
            [Resync::Partial, Resync::Partial]
        );
    }

    #[test]
    fn a_full_one_is_charged_to_the_replica_that_was_seen_loading() {
        assert_eq!(
            judge_resyncs(3, 4, &[QUICK, LOADED]),
            [Resync::Partial, Resync::Full]
        );
    }

    #[test]
    fn a_full_one_that_nobody_was_seen_loading_is_charged_to_all() {
        assert_eq!(
            judge_resyncs(0, 1, &[QUICK, WAITING]),
            [Resync::Full, Resync::Pending]
        );
    }
}
