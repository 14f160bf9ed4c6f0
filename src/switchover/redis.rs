//! Redis and Valkey: the fence as one transaction, and how an old master is put behind the target.
//!
//! Owns the wording only. The transaction changes the role and sets `replica-read-only` in one
//! instant: without the setting a fenced master goes on acknowledging writes that no offset counts.
//! F is read behind it, in the same write: whoever refuses writes and has no master does not move.
//! Not in it: where INFO is queued, too, Redis 6.0 and before end their log with an EXEC, 14 bytes
//! behind the F that INFO saw (seen on 6.0.20; in `execCommand`, whatever is neither a read nor
//! administrative is propagated).

use bytes::Bytes;

use crate::resp::reply::Value;
use crate::switchover::orders::SinkAddress;
use crate::topology::node::words;

/// `MULTI; CONFIG SET replica-read-only yes; REPLICAOF <sink>; EXEC; INFO replication`.
pub fn fence_order(role_command: &str, sink: &SinkAddress) -> Vec<Vec<Bytes>> {
    vec![
        words(&["MULTI"]),
        words(&["CONFIG", "SET", read_only_setting(role_command), "yes"]),
        words(&[role_command, &sink.host, &sink.port.to_string()]),
        words(&["EXEC"]),
        words(&["INFO", "replication"]),
    ]
}

/// The setting that makes a replica refuse writes; servers without REPLICAOF know the old name.
pub fn read_only_setting(role_command: &str) -> &'static str {
    if role_command == "SLAVEOF" {
        "slave-read-only"
    } else {
        "replica-read-only"
    }
}

/// The answers to REPLICAOF inside the transaction and to INFO behind it, or why it did not run.
pub fn fence_answers(answers: &[Value]) -> Result<(Value, Value), String> {
    let [.., exec, info] = answers else {
        return Err("the transaction was not answered".to_owned());
    };
    match exec.items() {
        Some([_, role_change]) => Ok((role_change.clone(), info.clone())),
        _ => {
            // The first error says why: a command that may not be queued aborts the rest.
            let reason = answers.iter().find_map(Value::error);
            Err(reason.unwrap_or("the transaction did not run").to_owned())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_aborted_transaction_is_no_fence_and_its_first_error_is_the_reason() {
        let queued = Value::Status(Bytes::from_static(b"QUEUED"));
        let answers = [
            Value::Status(Bytes::from_static(b"OK")),
            Value::Error("NOPERM no permissions for 'config|set'".to_owned()),
            queued,
            Value::Error("EXECABORT Transaction discarded".to_owned()),
            Value::Bulk(Bytes::from_static(b"role:master")),
        ];
        let reason = fence_answers(&answers).unwrap_err();
        assert!(reason.starts_with("NOPERM"), "{reason}");
    }
}
