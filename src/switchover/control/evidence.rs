//! Who may be believed to be the master now, when somebody else has changed it. Pure judgement.
//!
//! **Invariants:** the master that we have is kept as long as it says that it is one, whatever
//! others say. Another one is followed on positive evidence only: it says that it is master, alone,
//! and it holds the history that clients have written to: it was seen following our master when
//! that spoke last, has lost nothing since, and goes on from the same history where nodes tell it
//! (Redis). One that left our master while that went on lacks what was written since, whatever
//! becomes of it. An empty node that has just been started never wins. Without a known history (a
//! proxy that has just been started) whoever is master alone is believed, and two are none.
//!
//! Sentinels change that ([`verdict_beside`]): the node that a majority of them names is the master
//! as soon as it says so itself, even if another one says so too, and even if it lacks what clients
//! have written: their failover loses what had not been replicated, and the loss can only be told.

use tokio::time::Instant;

use crate::topology::facts::{Link, NodeFacts, Role};
use crate::topology::node::NodeName;
use crate::topology::watch::{MasterFinding, Observed, Snapshot, find_master};

/// The master that clients have written to, and who was seen to have what it has.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Known {
    pub master: Option<NodeName>,
    /// Its `master_replid`, where nodes have one.
    pub history: Option<String>,
    /// Its own offset, as seen last.
    pub offset: Option<u64>,
    /// Its replicas, and how far each was.
    pub replicas: Vec<(NodeName, u64)>,
    /// When it said so.
    pub heard_at: Option<Instant>,
}

impl Known {
    /// Nothing but the name: the nodes have not been looked at since it became master.
    pub fn master(name: &str) -> Known {
        Known {
            master: Some(name.into()),
            ..Known::default()
        }
    }

    /// Brings it up to date with what a master that is kept, and its replicas, say. Who follows it
    /// no more is forgotten when the master has spoken since: before that it may be what has
    /// replaced it.
    pub fn learn(&mut self, snapshot: &Snapshot, now: Instant) {
        let Some(master) = self.master.clone() else {
            return;
        };
        let Some(facts) = fresh_master(snapshot, &master, now) else {
            return;
        };
        self.history.clone_from(&facts.history);
        self.offset = facts.offset;
        let heard_at = snapshot.node(&master).and_then(|node| node.seen_at);
        let has_spoken = heard_at > self.heard_at;
        self.heard_at = heard_at;
        let replicas = following(snapshot, &master, now);
        let stays = |(name, _): &(NodeName, u64)| {
            !has_spoken && !replicas.iter().any(|(replica, _)| replica == name)
        };
        self.replicas.retain(stays);
        self.replicas.extend(replicas);
    }

    /// How much of what the master was seen to have is missing in the history of a node that has
    /// been promoted; `None` when nothing was seen.
    fn missing_in(&self, facts: &NodeFacts) -> Option<u64> {
        let went_on = self.history.is_some() && self.history == facts.history_before;
        let has = match facts.history_before_end {
            Some(end) if went_on => end,
            _ => facts.offset?,
        };
        Some(self.offset?.saturating_sub(has))
    }

    /// Whether what a node says of itself, being master, goes on from what our master was seen to
    /// have. What was not seen contradicts nothing: somebody else has proven it.
    pub fn goes_on_in(&self, node: &NodeName, facts: &NodeFacts) -> bool {
        let behind =
            matches!((self.replica(node), facts.offset), (Some(seen), Some(has)) if has < seen);
        self.is_history_of(facts) && !behind && !facts.loading
    }

    /// Whether `node` has the history that clients have written to.
    fn is_held_by(&self, node: &NodeName, facts: &NodeFacts) -> bool {
        let seen = match &self.master {
            Some(master) if master == node => self.offset,
            _ => self.replica(node),
        };
        let has_it = matches!((seen, facts.offset), (Some(seen), Some(has)) if has >= seen);
        self.is_history_of(facts) && has_it && !facts.loading
    }

    /// Whether a node is in the master's history or goes on from it, where both tell theirs.
    fn is_history_of(&self, facts: &NodeFacts) -> bool {
        match (&self.history, &facts.history) {
            (Some(ours), Some(its)) => ours == its || facts.history_before.as_ref() == Some(ours),
            _ => true,
        }
    }

    /// How far a node was when it was seen following.
    fn replica(&self, node: &NodeName) -> Option<u64> {
        let mut replicas = self.replicas.iter();
        let (_, offset) = replicas.find(|(replica, _)| replica == node)?;
        Some(*offset)
    }
}

/// What to do about the route.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing: the route is right, or nothing better is known.
    Keep,
    Follow(NodeName),
    /// Sentinels have made it master, without this much of what the last one was seen to have.
    FollowWord {
        master: NodeName,
        missing: Option<u64>,
    },
    /// Its master says itself that it is none, and nobody else is one.
    Shut,
}

/// What Sentinels say of the nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Told {
    /// There are none, or no majority of them names one of the nodes.
    Nothing,
    /// They have not all been asked yet.
    Unasked,
    /// A majority names this node, and has done so since.
    Master(NodeName, Instant),
}

/// [`verdict`], with what Sentinels say. A node is asked for its role after they have named it.
pub(super) fn verdict_beside(
    told: &Told,
    snapshot: &Snapshot,
    known: &Known,
    routed: bool,
    now: Instant,
) -> Verdict {
    match told {
        Told::Master(named, since) => {
            let seen_at = snapshot.node(named).and_then(|node| node.seen_at);
            let facts = fresh_master(snapshot, named, now)
                .filter(|facts| !facts.loading && seen_at.is_some_and(|at| at >= *since));
            let is_ours = known.master.as_ref() == Some(named);
            match facts {
                Some(facts) if !(is_ours && routed) => Verdict::FollowWord {
                    master: named.clone(),
                    missing: known.missing_in(facts).filter(|_| !is_ours),
                },
                // Whoever else says that it is master may be one that was replaced.
                None if known.master.is_none() => Verdict::Keep,
                _ => verdict(snapshot, known, routed, now),
            }
        }
        Told::Unasked if known.master.is_none() => Verdict::Keep,
        Told::Unasked | Told::Nothing => verdict(snapshot, known, routed, now),
    }
}

/// `routed`: the route names the known master; otherwise it names none.
pub(super) fn verdict(snapshot: &Snapshot, known: &Known, routed: bool, now: Instant) -> Verdict {
    let finding = find_master(snapshot, now);
    let Some(master) = &known.master else {
        return match finding {
            MasterFinding::One(found) => Verdict::Follow(found),
            _ => Verdict::Keep,
        };
    };
    let role = snapshot
        .node(master)
        .and_then(|node| node.fresh(now))
        .map(|facts| &facts.role);
    if routed && role == Some(&Role::Master) {
        return Verdict::Keep;
    }
    let otherwise = match role {
        // Where nobody else could be the master, clients are told what the node says.
        Some(Role::Replica { .. }) if routed && snapshot.nodes.len() > 1 => Verdict::Shut,
        _ => Verdict::Keep,
    };
    let MasterFinding::One(found) = finding else {
        return otherwise;
    };
    let Some(facts) = fresh_master(snapshot, &found, now) else {
        return otherwise;
    };
    // A replica whose link is up has what its master has: nothing is left to be compared.
    let copied = matches!(role, Some(Role::Replica { link: Link::Up, .. }))
        && role
            .and_then(|role| snapshot.followed_by(role))
            .is_some_and(|node| *node.name() == found);
    if copied || known.is_held_by(&found, facts) {
        Verdict::Follow(found)
    } else {
        otherwise
    }
}

fn fresh_master<'s>(snapshot: &'s Snapshot, name: &str, now: Instant) -> Option<&'s NodeFacts> {
    let facts = snapshot.node(name)?.fresh(now)?;
    facts.role.is_master().then_some(facts)
}

/// The replicas of `master`, and how far each is. One that has fallen silent is one for as long
/// as what it said last counts.
fn following(snapshot: &Snapshot, master: &str, now: Instant) -> Vec<(NodeName, u64)> {
    let Some(master) = snapshot.node(master) else {
        return Vec::new();
    };
    let replica = |node: &Observed| {
        let facts = node.recent(now)?;
        let follows = master.identity.is_followed_by(&facts.role);
        Some((node.name().clone(), facts.offset?)).filter(|_| follows)
    };
    snapshot.nodes.iter().filter_map(replica).collect()
}

#[cfg(test)]
#[path = "evidence_tests.rs"]
mod tests;
