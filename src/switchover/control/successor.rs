//! Who takes the place of a master that is out of reach, where the proxy was told to act alone.
//! Pure judgement.
//!
//! **Invariants:** nobody does while anybody else can still reach the master, as far as its
//! replicas tell, or while another node says that it is master. A replica that lost what it was
//! seen to have, or was never seen to follow, is no candidate.

use tokio::time::Instant;

use super::evidence::Known;
use crate::topology::facts::{Link, NodeFacts, Role};
use crate::topology::node::NodeName;
use crate::topology::watch::{Observed, Snapshot};

/// The replica that holds most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Successor {
    pub node: NodeName,
    pub offset: u64,
    /// How much of what the master was seen to have it lacks; the master may have had more.
    pub missing: u64,
}

/// Whether nothing came from the master when it was asked last. One that answers with an error,
/// because it is full or does not let us in, is there.
pub(super) fn is_out_of_reach(snapshot: &Snapshot, known: &Known) -> bool {
    let master = known.master.as_ref().and_then(|name| snapshot.node(name));
    let trouble = master.and_then(|node| node.error.as_ref());
    trouble.is_some_and(|trouble| trouble.is_silence)
}

pub(super) fn successor(snapshot: &Snapshot, known: &Known, now: Instant) -> Option<Successor> {
    let master = known.master.as_ref().and_then(|name| snapshot.node(name))?;
    let mut best: Option<Successor> = None;
    for node in &snapshot.nodes {
        let Some(facts) = node.fresh(now).filter(|_| node.name() != master.name()) else {
            continue;
        };
        match &facts.role {
            Role::Master => return None,
            Role::Replica {
                link: Link::Down, ..
            } => {}
            role @ Role::Replica { .. } => match snapshot.followed_by(role) {
                Some(other) if other.name() != master.name() => continue,
                // It hears its master, or copies from it right now; or from somebody who may be the
                // master under a name that we do not know.
                _ => return None,
            },
        }
        let Some(offset) = held(node, facts, known) else {
            continue;
        };
        // Of equal ones the first in the config.
        if best.as_ref().is_none_or(|best| offset > best.offset) {
            best = Some(Successor {
                node: node.name().clone(),
                offset,
                missing: known.offset.unwrap_or_default().saturating_sub(offset),
            });
        }
    }
    best
}

/// How much of the known history a replica holds, if it holds what it was seen to hold.
fn held(node: &Observed, facts: &NodeFacts, known: &Known) -> Option<u64> {
    let seen = known.replicas.iter().find(|(name, _)| name == node.name());
    let (_, seen) = seen?;
    let offset = facts.offset.filter(|offset| offset >= seen)?;
    let same = match (&known.history, &facts.history) {
        (Some(ours), Some(its)) => ours == its,
        _ => true,
    };
    (same && !facts.loading).then_some(offset)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::*;
    use super::*;
    use crate::topology::watch::Trouble;

    /// Who succeeds master `a:1`, seen at 100 of history `h`; `b:1` was seen at 90 and `c:1` at 80.
    fn check(later: &[(&str, Says<'_>)], expected: Option<(&str, u64)>) {
        let now = Instant::now();
        let follower = |offset| (follows("a", Link::Up), offset, "h", "0");
        let before = [
            ("a:1", (MASTER, 100, "h", "0")),
            ("b:1", follower(90)),
            ("c:1", follower(80)),
        ];
        let mut known = Known::master("a:1");
        known.learn(&snapshot(&before, now), now);
        let mut snapshot = snapshot(later, now);
        let master = snapshot
            .nodes
            .iter_mut()
            .find(|node| &**node.name() == "a:1");
        master.unwrap().error = Some(Trouble {
            words: "refused".to_owned(),
            is_silence: true,
        });
        assert!(is_out_of_reach(&snapshot, &known));
        let found = successor(&snapshot, &known, now);
        let found = found.map(|found| (found.node.to_string(), found.missing));
        assert_eq!(
            found,
            expected.map(|(node, missing)| (node.to_owned(), missing))
        );
    }

    fn left(offset: u64) -> Says<'static> {
        (follows("a", Link::Down), offset, "h", "0")
    }

    #[test]
    fn the_replica_that_holds_most_succeeds_and_what_it_lacks_is_counted() {
        check(
            &[("a:1", SILENT), ("b:1", left(95)), ("c:1", left(98))],
            Some(("c:1", 2)),
        );
        check(
            &[("a:1", SILENT), ("b:1", left(100)), ("c:1", left(100))],
            Some(("b:1", 0)),
        );
        check(
            &[("a:1", SILENT), ("b:1", SILENT), ("c:1", left(80))],
            Some(("c:1", 20)),
        );
    }

    #[test]
    fn nobody_succeeds_a_master_that_a_replica_still_reaches() {
        let linked = (follows("a", Link::Up), 100, "h", "0");
        check(&[("a:1", SILENT), ("b:1", left(95)), ("c:1", linked)], None);
        let copying = (follows("a", Link::Sync), 0, "h", "0");
        check(
            &[("a:1", SILENT), ("b:1", left(95)), ("c:1", copying)],
            None,
        );
        // Perhaps it is the master's other name.
        let elsewhere = (follows("x", Link::Up), 100, "h", "0");
        check(
            &[("a:1", SILENT), ("b:1", left(95)), ("c:1", elsewhere)],
            None,
        );
    }

    #[test]
    fn nobody_succeeds_beside_another_master() {
        let other = (MASTER, 100, "h2", "h");
        check(&[("a:1", SILENT), ("b:1", left(95)), ("c:1", other)], None);
    }

    #[test]
    fn one_that_restarted_empty_or_has_another_history_never_succeeds() {
        check(&[("a:1", SILENT), ("b:1", left(0)), ("c:1", SILENT)], None);
        let strange = (follows("a", Link::Down), 200, "x", "0");
        check(&[("a:1", SILENT), ("b:1", SILENT), ("c:1", strange)], None);
    }

    #[test]
    fn a_master_that_answers_is_not_out_of_reach() {
        let now = Instant::now();
        let known = Known::master("a:1");
        let nodes = snapshot(&[("a:1", (MASTER, 1, "h", "0"))], now);
        assert!(!is_out_of_reach(&nodes, &known));
        let mut full = nodes.clone();
        full.nodes[0].error = Some(Trouble {
            words: "max number of clients reached".to_owned(),
            is_silence: false,
        });
        assert!(!is_out_of_reach(&full, &known));
        assert!(!is_out_of_reach(&nodes, &Known::default()));
    }
}
