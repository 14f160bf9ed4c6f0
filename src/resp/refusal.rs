//! Error replies that prove that a command was not executed, because its node is not, or not now,
//! the master that can.
//!
//! **Invariant:** only what begins as an error reply is looked at: a value that reads `READONLY` is
//! a value.

/// Why a node did not execute a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It is a replica.
    ReadOnly,
    /// It is a replica that has lost its master.
    MasterDown,
    /// It reads its data set.
    Loading,
    /// It is a master that misses replicas.
    NoReplicas,
    /// The whole transaction was refused for one of these reasons.
    Transaction,
}

/// Longer lines are no refusals.
const LINE_BYTES_MAX: usize = 1024;

const BEGINNINGS: [(&[u8], Refusal); 9] = [
    (b"-READONLY ", Refusal::ReadOnly),
    (b"-MASTERDOWN ", Refusal::MasterDown),
    (b"-LOADING ", Refusal::Loading),
    (b"-NOREPLICAS ", Refusal::NoReplicas),
    // Kvrocks' SCRIPT and FUNCTION.
    (b"-ERR READONLY You can't write against", Refusal::ReadOnly),
    (
        b"-EXECABORT Transaction discarded because of: READONLY ",
        Refusal::Transaction,
    ),
    (
        b"-EXECABORT Transaction discarded because of: MASTERDOWN ",
        Refusal::Transaction,
    ),
    (
        b"-EXECABORT Transaction discarded because of: LOADING ",
        Refusal::Transaction,
    ),
    (
        b"-EXECABORT Transaction discarded because of: NOREPLICAS ",
        Refusal::Transaction,
    ),
];

/// What the beginning of a reply says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// More of the line is needed.
    Incomplete,
    Refused(Refusal),
    Other,
}

/// Judges the bytes at the beginning of a reply; the caller has seen that the first is a `-`.
pub fn judge(reply: &[u8]) -> Verdict {
    let head = reply.get(..LINE_BYTES_MAX).unwrap_or(reply);
    if !head.contains(&b'\n') {
        return if head.len() < LINE_BYTES_MAX {
            Verdict::Incomplete
        } else {
            Verdict::Other
        };
    }
    refusal(head).map_or(Verdict::Other, Verdict::Refused)
}

/// The refusal that a whole error reply is.
pub fn refusal(reply: &[u8]) -> Option<Refusal> {
    let found = BEGINNINGS
        .iter()
        .find(|(begin, _)| reply.starts_with(begin));
    found.map(|(_, refusal)| *refusal)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_known_by_its_error_line_and_by_nothing_else() {
        let check = |reply: &[u8], expected| assert_eq!(judge(reply), expected, "{reply:?}");
        check(
            b"-READONLY You can't write against a read only replica.\r\n",
            Verdict::Refused(Refusal::ReadOnly),
        );
        check(
            b"-ERR READONLY You can't write against a read only slave\r\n",
            Verdict::Refused(Refusal::ReadOnly),
        );
        check(b"-READON", Verdict::Incomplete);
        check(b"-READONLYISH x\r\n", Verdict::Other);
        check(b"-ERR value is not an integer\r\n", Verdict::Other);
        check(
            b"-EXECABORT Transaction discarded because of previous errors.\r\n",
            Verdict::Other,
        );
        assert_eq!(refusal(b"$8\r\nREADONLY\r\n"), None);
    }

    #[test]
    fn a_line_without_an_end_is_waited_for_up_to_a_limit() {
        let mut line = b"-READONLY ".to_vec();
        line.resize(LINE_BYTES_MAX - 1, b'x');
        assert_eq!(judge(&line), Verdict::Incomplete);
        line.push(b'x');
        assert_eq!(judge(&line), Verdict::Other);
    }
}
