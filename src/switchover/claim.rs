//! Which of several proxies may change the master: one at a time, decided by the nodes themselves.
//!
//! A proxy claims the old master and the target with a connection to each, whose name all others
//! see in `CLIENT LIST`. It is a claim first and becomes an ownership when nobody else's is there:
//!
//! 1. name the connection `pointsman-claim-<operation>`, then read the list;
//! 2. an owner in it, or a claim with a smaller id, has won: leave;
//! 3. a claim with a larger id will leave, or has become the owner before we claimed: look again;
//! 4. nobody: name the connection `pointsman-owner-<operation>`.
//!
//! A server executes one command after the other. Of two that claim, the second to do so sees the
//! first: at least one leaves, and when both see each other exactly one stays.
//!
//! **Invariants:** no operation begins on a node without the ownership of it; it ends with its
//! connections, so a proxy that dies keeps nobody out. One whose machine vanishes does until the
//! server's `tcp-keepalive` has found out.
//!
//! What goes on behind a report, or after a crash, may last as long as a node is away. It keeps
//! nobody out meanwhile: each of its effects claims the node whose role it relies on, and is put
//! off while another proxy owns that one.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::resp::reply::{ClientLine, client_lines};
use crate::topology::node::{Connection, Credentials, NodeError, NodeName};

const CLAIM: &str = "pointsman-claim-";
const OWNER: &str = "pointsman-owner-";
/// Between two looks at a claim that is about to leave.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Ownership of the nodes of one operation, until it is dropped.
#[derive(Default)]
pub struct Claim {
    connections: Vec<Connection>,
}

/// Why there is none.
enum Lost {
    /// The operation of another proxy.
    To(String),
    /// The node cannot be asked: whoever looks at it next says so in more words.
    Unasked(NodeError),
    /// It does not tell who is connected to it.
    Unlisted,
}

impl Claim {
    /// Claims the nodes one after the other. `Err` says who has them.
    pub async fn of(
        nodes: &[&NodeName],
        credentials: &Credentials,
        operation: &str,
        within: Duration,
    ) -> Result<Claim, String> {
        let mut claim = Claim::default();
        for node in nodes {
            match own(node, credentials, operation, within).await {
                Ok(connection) => claim.connections.push(connection),
                Err(Lost::To(other)) => {
                    return Err(format!(
                        "another proxy changes the master: operation {other} on {node}; wait until \
                         it has ended"
                    ));
                }
                Err(Lost::Unasked(error)) => tracing::debug!(%error, "a node was not claimed"),
                Err(Lost::Unlisted) => tracing::debug!(%node, "a node was not claimed"),
            }
        }
        Ok(claim)
    }

    /// How many nodes are owned.
    pub fn nodes(&self) -> usize {
        self.connections.len()
    }
}

async fn own(
    node: &NodeName,
    credentials: &Credentials,
    operation: &str,
    within: Duration,
) -> Result<Connection, Lost> {
    let deadline = Instant::now() + within;
    let name = format!("{CLAIM}{operation}");
    let opened = Connection::open(node, credentials, &name, within).await;
    let mut connection = opened.map_err(Lost::Unasked)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        let list = connection.call(&["CLIENT", "LIST"], left).await;
        let list = list.map_err(Lost::Unasked)?;
        let own = connection.client_id().and_then(|id| u64::try_from(id).ok());
        let lines = client_lines(&list).ok_or(Lost::Unlisted)?;
        match judge(&lines, own.unwrap_or_default(), operation) {
            Standing::Alone => break,
            Standing::Second(other) => return Err(Lost::To(other)),
            Standing::First(other) if Instant::now() + LOOK_AGAIN >= deadline => {
                return Err(Lost::To(other));
            }
            Standing::First(_) => sleep(LOOK_AGAIN).await,
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let owner = format!("{OWNER}{operation}");
    let named = connection.order(&["CLIENT", "SETNAME", &owner], left).await;
    named.map_err(Lost::Unasked)?;
    Ok(connection)
}

/// Where a claim stands among all.
#[derive(Debug, PartialEq, Eq)]
enum Standing {
    Alone,
    /// Before this one, which will leave.
    First(String),
    Second(String),
}

/// Two effects of one operation may own a node together.
fn judge(lines: &[ClientLine], own: u64, operation: &str) -> Standing {
    let mut standing = Standing::Alone;
    for line in lines.iter().filter(|line| line.id != own) {
        let named = |prefix| {
            line.name
                .strip_prefix(prefix)
                .filter(|one| *one != operation)
        };
        if let Some(other) = named(OWNER) {
            return Standing::Second(other.to_owned());
        }
        if let Some(other) = named(CLAIM) {
            if line.id < own {
                return Standing::Second(other.to_owned());
            }
            standing = Standing::First(other.to_owned());
        }
    }
    standing
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::reply::Value;

    #[test]
    fn an_owner_wins_over_every_claim_and_the_smaller_id_over_the_larger() {
        let check = |names: &[&str], own, expected| {
            let lines: Vec<String> = names
                .iter()
                .enumerate()
                .map(|(at, name)| format!("id={at} addr=127.0.0.1:{at} name={name} db=0\n"))
                .collect();
            let list = Value::Bulk(lines.concat().into());
            assert_eq!(judge(&client_lines(&list).unwrap(), own, "us"), expected);
        };
        let (first, second) = (Standing::First, Standing::Second);
        check(&["app", "pointsman-claim-us"], 1, Standing::Alone);
        let ours = ["pointsman-claim-us", "pointsman-owner-us"];
        check(&ours, 1, Standing::Alone);
        let both = ["pointsman-claim-a", "pointsman-claim-b"];
        check(&both, 0, first("b".into()));
        check(&both, 1, second("a".into()));
        check(
            &["pointsman-claim-a", "pointsman-owner-b"],
            0,
            second("b".into()),
        );
    }
}
