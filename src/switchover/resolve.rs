//! An order whose answer is missing: can it still be executed, and what is the role now?
//!
//! An order may sit behind slow reads in the node and be executed long after our side has closed
//! (0.7 s were seen). **Invariant:** a node counts as settled only when its CLIENT LIST shows no
//! other connection of this operation; the role that is read behind that list is then final as far
//! as this operation is concerned. Anything less is an error, and whoever asked keeps the fence
//! and keeps holding.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::resp::reply::{Info, client_lines};
use crate::switchover::orders::refused;
use crate::topology::node::{Connection, NodeError};

/// How long to wait before looking at the node again.
const LOOK_AGAIN: Duration = Duration::from_millis(2);

/// Closes on the server every other connection that carries this connection's name, waits until
/// none of them is left, and returns INFO replication as it was read behind that.
pub async fn settle(connection: &mut Connection, within: Duration) -> Result<Info, NodeError> {
    let deadline = Instant::now() + within;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // The list first and the role behind it in one write: a connection that is gone when the
        // list is made can no longer change the role that is read after it.
        let asked: [&[&str]; 2] = [&["CLIENT", "LIST"], &["INFO", "replication"]];
        let mut values = connection.call_words(&asked, left).await?.into_iter();
        let list = values.next().unwrap_or(crate::resp::reply::Value::Null);
        let info = values.next().unwrap_or(crate::resp::reply::Value::Null);
        let clients = client_lines(&list);
        let clients = clients.ok_or_else(|| refused(connection, "CLIENT LIST", &list))?;
        // Without its own id this connection would have to kill itself to be sure.
        let own = connection.client_id().and_then(|id| u64::try_from(id).ok());
        let own = own.ok_or_else(|| refused(connection, "CLIENT ID", &list))?;
        let others = clients
            .iter()
            .filter(|one| one.name == connection.name() && one.id != own);
        let ids: Vec<u64> = others.map(|one| one.id).collect();
        if ids.is_empty() {
            let info = Info::of(&info).ok_or_else(|| refused(connection, "INFO", &info))?;
            return Ok(info);
        }
        connection.kill_clients(&ids, left).await?;
        if Instant::now() + LOOK_AGAIN >= deadline {
            return Err(NodeError::Deadline {
                node: connection.node().clone(),
                within_ms: within.as_millis() as u64,
                sent: true,
            });
        }
        sleep(LOOK_AGAIN).await;
    }
}
