//! What the plan remembers between two events.

use super::effect::*;

/// Where an operation stands. Opaque: ask [`phase`](super::phase), [`is_over`](super::is_over) and
/// [`can_abort`](super::can_abort).
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct State {
    pub(super) terms: Terms,
    pub(super) facts: Facts,
    pub(super) stage: Stage,
    /// Who the route names; kept so that a route is published only when it changes.
    pub(super) route: Master,
    pub(super) gate: Gate,
    pub(super) peers: Peers,
    pub(super) patience: Patience,
    pub(super) old: Slot,
    pub(super) target: Slot,
    pub(super) traces: Traces,
    /// Why it is to end as soon as nothing is under way any more.
    pub(super) leave: Option<Reason>,
}

/// The steps, in their order; the last five are shared by the ways back and forward.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Stage {
    Preflight,
    Recording(Course),
    Warming,
    Draining(Awaited),
    Pausing,
    CatchingUp {
        old: Option<u64>,
        target: Option<u64>,
    },
    Fencing {
        target: Option<u64>,
    },
    Proving {
        /// F: where the old master's log ends.
        end: u64,
        proof: Proof,
        target: Option<u64>,
    },
    /// The promotion is on its way. From here on nothing may be undone until it is known not to
    /// have happened.
    Promoting(Promise),
    /// Its reply is missing: find out.
    Settling(Promise),
    Finishing {
        attach: Attach,
        demote: Demotion,
        repoint: Task,
        not_carried: u64,
        reasons: Vec<Reason>,
    },
    Undoing(Reason),
    /// After a restart: who is what?
    Probing {
        old: Answer,
        target: Answer,
    },
    /// The last journal record is being written.
    Closing(Verdict),
    Ended,
}

/// What was known when the promotion was sent.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Promise {
    Proven {
        end: u64,
        /// The target's offset; less than `end` only when forced.
        carried: u64,
    },
    /// The old master is out of reach. It was last seen to hold this much more than the target.
    Unproven { missing: u64 },
}

/// Whether it was stopped while the first record was being written; the last one waits for it.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(super) enum Course {
    Going,
    Stopped(Verdict),
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Gate {
    Open,
    Held,
}

/// Who has to drain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Awaited {
    Both,
    Ourselves,
    Peers,
}

/// The other proxies, as far as this operation goes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Peers {
    /// There is none, or they go on as ever.
    Free,
    /// They hold, or may.
    Held,
}

/// Whether `sync_timeout_ms` has run out with leave to go on.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Patience {
    Waiting,
    Over,
}

/// Whether an effect for that node is outstanding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Slot {
    Idle,
    Busy,
}

/// Whether the end of the old master's log can be another one than was read.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Proof {
    Provisional,
    /// The fence was exact, or two readings were alike.
    Final,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Task {
    Asked,
    Waiting,
    Done,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Demotion {
    /// Behind the first try at the other replicas (Kvrocks).
    Behind,
    Asked,
    Waiting,
    Attached,
    Apart,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(super) enum Answer {
    Asked,
    Lost,
    Is(Seen),
}

/// What this operation may have left on the old master: three independent facts, each true as soon
/// as the command was sent and false only when a reply has shown it gone.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub(super) struct Traces {
    pub(super) pause: bool,
    pub(super) fence: bool,
    /// An effect was lost, so a command may still execute.
    pub(super) unsettled: bool,
}

impl Traces {
    pub(super) fn settle(self) -> Settle {
        if self.unsettled {
            Settle::First
        } else {
            Settle::No
        }
    }
}

impl State {
    pub(super) fn new(terms: Terms, facts: Facts, stage: Stage, route: Master) -> State {
        State {
            terms,
            facts,
            stage,
            route,
            gate: Gate::Open,
            peers: Peers::Free,
            patience: Patience::Waiting,
            old: Slot::Idle,
            target: Slot::Idle,
            traces: Traces::default(),
            leave: None,
        }
    }

    pub(super) fn slot(&mut self, node: Node) -> &mut Slot {
        match node {
            Node::Old => &mut self.old,
            Node::Target => &mut self.target,
        }
    }
}
