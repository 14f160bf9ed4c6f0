//! A promotion whose answer is missing: did it happen, and can it still happen?
//!
//! The order may sit behind slow reads in the node and be executed long after our side has closed
//! (0.7 s were seen). **Invariant:** "not promoted" is said only when the connection that carried
//! the order is gone from the node's CLIENT LIST *and* the role read after that is still replica.
//! Anything less is unclear, and whoever asked keeps the fence and keeps holding.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::resp::reply::{Info, Value, client_lines};
use crate::switchover::dialect::{Change, refused};
use crate::topology::facts::Role;
use crate::topology::node::{Connection, Credentials, NodeError, NodeName};

/// How long to wait before looking at the node again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// The connection that carried the order, as its node knows it.
#[derive(Clone, Debug)]
pub struct Carrier {
    pub node: NodeName,
    pub id: Option<i64>,
    /// The name it gave itself; ids start again from 1 when a server restarts.
    pub name: String,
}

/// Finds out on a fresh connection, within `within`. May be asked again after `Unclear`.
pub async fn resolve_promotion(
    carrier: &Carrier,
    credentials: &Credentials,
    within: Duration,
) -> Change<u64> {
    let deadline = Instant::now() + within;
    let left = || deadline.saturating_duration_since(Instant::now());
    // A name of its own: the carrier is searched for by name.
    let name = format!("{}-resolve", carrier.name);
    let mut connection = match Connection::open(&carrier.node, credentials, &name, left()).await {
        Ok(connection) => connection,
        Err(error) => return Change::Unclear(error.to_string()),
    };
    loop {
        match look(&mut connection, carrier, left()).await {
            Ok(Some(change)) => return change,
            Ok(None) if left().is_zero() => {
                let reason = "the connection that carried the promotion is still alive";
                return Change::Unclear(reason.to_owned());
            }
            Ok(None) => sleep(LOOK_AGAIN).await,
            Err(error) => return Change::Unclear(error.to_string()),
        }
    }
}

/// One look: kill the carrier if it is there; when it is gone, judge by the role.
async fn look(
    connection: &mut Connection,
    carrier: &Carrier,
    within: Duration,
) -> Result<Option<Change<u64>>, NodeError> {
    // The list first and the role behind it in one write: a carrier that is gone when the list is
    // made can no longer change the role that is read after it.
    let asked: [&[&str]; 2] = [&["CLIENT", "LIST"], &["INFO", "replication"]];
    let values = connection.call_words(&asked, within).await?;
    let [list, info] = values.as_slice() else {
        return Err(refused(connection, "CLIENT LIST", &Value::Null));
    };
    let info = Info::of(info).ok_or_else(|| refused(connection, "INFO replication", info))?;
    let offset = info.number("master_repl_offset");
    if let (Some(Role::Master), Some(offset)) = (Role::of(&info), offset) {
        return Ok(Some(Change::Done(offset)));
    }
    let clients = client_lines(list).ok_or_else(|| refused(connection, "CLIENT LIST", list))?;
    let alive = clients.into_iter().find(|client| {
        let same_id = carrier.id.is_none_or(|id| u64::try_from(id) == Ok(client.id));
        client.name == carrier.name && same_id
    });
    match alive {
        Some(client) => {
            let id = client.id.to_string();
            connection.call(&["CLIENT", "KILL", "ID", &id], within).await?;
            Ok(None)
        }
        None if Role::of(&info).is_some() => {
            let reason = "the connection that carried the promotion is dead, the role unchanged";
            Ok(Some(Change::NotDone(reason.to_owned())))
        }
        None => Ok(Some(Change::Unclear("the node shows no role".to_owned()))),
    }
}
