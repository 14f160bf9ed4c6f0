//! Redis and Valkey: the fence as one transaction, and how an old master is put behind the target.
//!
//! Owns the wording only. The transaction makes the role change and the reading of F one instant,
//! and sets `replica-read-only` in the same instant: without it a fenced master goes on
//! acknowledging writes that no offset counts.

use bytes::Bytes;

use crate::resp::reply::Value;
use crate::switchover::orders::SinkAddress;
use crate::topology::node::words;

/// `MULTI; CONFIG SET replica-read-only yes; REPLICAOF <sink>; INFO replication; EXEC`.
pub fn fence_order(role_command: &str, sink: &SinkAddress) -> Vec<Vec<Bytes>> {
    vec![
        words(&["MULTI"]),
        words(&["CONFIG", "SET", read_only_setting(role_command), "yes"]),
        words(&[role_command, &sink.host, &sink.port.to_string()]),
        words(&["INFO", "replication"]),
        words(&["EXEC"]),
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

/// The answers to REPLICAOF and INFO inside the transaction, or why it did not run.
pub fn fence_answers(answers: &[Value]) -> Result<(Value, Value), String> {
    let Some(exec) = answers.get(4) else {
        return Err("the transaction was not answered".to_owned());
    };
    match exec.items() {
        Some([_, role_change, info]) => Ok((role_change.clone(), info.clone())),
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
            queued.clone(),
            queued,
            Value::Error("EXECABORT Transaction discarded".to_owned()),
        ];
        let reason = fence_answers(&answers).unwrap_err();
        assert!(reason.starts_with("NOPERM"), "{reason}");
    }
}
