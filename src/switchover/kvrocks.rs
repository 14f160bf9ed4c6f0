//! Kvrocks: the fence without a transaction, and how an old master is put behind the target.
//!
//! Owns the wording only. EXEC beside a woken blocked client crashes Kvrocks before 2.12, and a
//! transaction would add nothing: the offset may be read any time after the role change.

use bytes::Bytes;

use crate::resp::reply::Value;
use crate::switchover::orders::SinkAddress;
use crate::topology::node::words;

/// `SLAVEOF <sink>; INFO replication`, pipelined.
pub fn fence_order(role_command: &str, sink: &SinkAddress) -> Vec<Vec<Bytes>> {
    vec![
        words(&[role_command, &sink.host, &sink.port.to_string()]),
        words(&["INFO", "replication"]),
    ]
}

pub fn fence_answers(answers: &[Value]) -> Result<(Value, Value), String> {
    match answers {
        [role_change, info] => Ok((role_change.clone(), info.clone())),
        _ => Err("the fence was not answered".to_owned()),
    }
}

/// Kvrocks refuses to follow a node while that node's feed thread is still around; the thread sees
/// the closed link only at its next write, seconds later on an idle node.
pub fn is_own_replica_refusal(text: &str) -> bool {
    text.contains("can't replicate your own replicas")
}

/// Ends the old master's feed to the target alone. `CLIENT KILL TYPE slave` would cut the other
/// replicas too, and their next SLAVEOF would then freeze them for most of a second.
pub fn kill_feed(target_as_listed: &str) -> Vec<Bytes> {
    words(&["CLIENT", "KILL", "ADDR", target_as_listed])
}
