//! Decides a switchover. Pure: a state and an event give the next state and what is to be done.
//!
//! # The protocol
//!
//! OLD is the master before, TARGET the one after, PROXY is us; T(x) is a timer. "Undo" means: lift
//! the fence and the pause from OLD if they may be there, release the writers to OLD, report
//! `rolled_back`. An order to abort does the same at every step before 7.
//!
//!  0. PROXY looks at every node and changes nothing. Fails: refused, every reason named.
//!     Then the operation is written to the journal. Fails: refused.
//!  1. PROXY dials what it will need and names its control connections. Fails: refused.
//!  2. PROXY holds writes and waits for the replies to those under way, up to T(drain). At the same
//!     time it has the other proxies of the shard do the same ([`peers`](super::peers)), and waits
//!     for each. OLD is quiet except for those who bypass all of them. Fails: undo (nothing to
//!     lift); when only another proxy is late, `silent_proxies` decides whether to go on.
//!  3. Only when the target is far behind, or OLD cuts its replicas off when fenced (Redis before
//!     7): OLD pauses the others' writes for `pause_timeout_ms`, so that the target can catch up
//!     while they wait. It protects nothing. Refused: go on without. No reply: undo.
//!  4. With 3: the offsets of both are read until the gap is small (before Redis 7: zero), up to
//!     T(sync), counted from the drain's end. Late: undo, or go on if `force_on_timeout`.
//!  5. PROXY fences OLD: it now replicates from a sink, refuses every write with READONLY, and
//!     feeds TARGET the rest of its log, which ends at F. From here on nobody acknowledges a write.
//!     TARGET does not notice. The pause is lifted. No reply: undo (which first finds out).
//!  6. PROXY reads TARGET's own offset, from the moment the fence is sent. F is final where the
//!     fence is exact: nothing moves the offset behind the change of the role. Elsewhere, and
//!     where a pause is to be lifted, OLD is read once more: it must say F twice, and if it grew, F
//!     is the new value. Proven: F is final and TARGET says F. TARGET's link down and not at F:
//!     undo at once. OLD gone after it said F: go on where the fence is exact. T(sync) late: undo,
//!     or go on if `force_on_timeout`, and what was not carried is reported.
//!  7. PROXY promotes TARGET. A reply that says no: undo. No reply: PROXY kills the connection that
//!     carried it, sees it gone, asks the role, and repeats that until it is known. OLD stays
//!     fenced; writers wait until T(hold), then they are told that nobody is master.
//!  8. PROXY publishes the route, and waits until those that hold with it read from TARGET, too;
//!     then all release the writers: TARGET acknowledges writes now, OLD does not, and there was no
//!     instant in which both did. A proxy that is late is reported, and follows by itself.
//!  9. With 8, OLD's offset is read a last time; at F it follows TARGET, otherwise it stays fenced
//!     and apart: `switched_with_leak`. Fails: again on T(retry), for ever; T(demote) late: the
//!     report says pending.
//! 10. With 8 (Kvrocks: ahead of 9) the other replicas follow TARGET. Fails: as 9.
//! 11. The outcome is written to the journal, then reported.
//!
//! Where OLD is out of reach and PROXY was told to act alone ([`take_over`]), nothing can be
//! proven: the route names nobody, TARGET is promoted, and from 8 on all goes as above. 9 is then
//! what fences OLD when it comes back as a master; it follows TARGET only if its history is a
//! prefix of TARGET's.
//!
//! What goes on behind a report (9 and 10 until the nodes answer, a restoring that waits for OLD, a
//! promotion whose fate is unknown) and what follows a crash can last as long as a node is away.
//! When another node has been made the master meanwhile, or the operator says so, it ends where it
//! stands: whoever is under way answers, nobody is asked again, and the report says what was left.
//!
//! T(hold) is armed with 2. When it runs out before 7: undo, and the writers are released to OLD
//! whether or not OLD could be restored, which goes on behind them. The writers of other proxies
//! are released whenever ours are.
//!
//! Another proxy that holds ends an operation before 2: refused.
//!
//! After a crash of PROXY [`recover`] asks both nodes. TARGET is master: 8 and on. OLD is master,
//! or fenced beside a TARGET that answers and is none: undo. Otherwise ask again; nobody is master.
//!
//! **Invariant:** no I/O, no clock, no randomness, no `await`: timers are effects, so not even the
//! time of day is passed in, and `tests/model` can walk every interleaving of this very code
//! with crashes, lost replies, and commands that execute late.
//!
//! # Trade-offs
//!
//! * One question per node at a time: fewer states to walk, and at most one round trip lost when a
//!   step is undone in the middle of a read. The fence and the reads of step 6 overlap.
//! * The pause is skipped when the target is near: fenced in the next command, it would hold
//!   nobody, and would have to be lifted again.
//! * A lost fence or pause is undone, although its fate could be found out and the switchover go
//!   on: a node that has just failed to answer is not one to be hurried.
//! * A master that restarts with an old config while fenced is a master again, to those who bypass
//!   the proxy. Nothing here can prevent that; `CONFIG REWRITE` in the fence could. It is never
//!   routed to, and step 9 finds what it took.

mod effect;
mod finish;
mod leave;
mod prove;
mod recover;
mod state;
mod step;
#[cfg(test)]
mod tests;
mod undo;

pub use effect::*;
pub use state::State;

use state::{Course, Demotion, Stage};
use step::Step;

/// A new operation, and the first thing to do. The route names the old master, the gate is open.
pub fn begin(terms: Terms) -> (State, Vec<Effect>) {
    let unknown = Facts {
        dialect: Dialect::Redis,
        knows_pause: false,
        lag: u64::MAX,
        lag_small: 0,
        old_is_down: false,
    };
    let state = State::new(terms, unknown, Stage::Preflight, Master::Old);
    (state, vec![Effect::Preflight])
}

/// The old master has been out of reach for too long, and the target takes its place. The route
/// names nobody, and the gate is open on that.
pub fn take_over(facts: Facts) -> (State, Vec<Effect>) {
    let stage = Stage::Recording(Course::Going);
    let state = State::new(Terms::default(), facts, stage, Master::Nobody);
    (state, vec![Effect::Record(Record::Begin)])
}

/// An operation whose journal record has no end: the proxy stopped in the middle of it. The route
/// names nobody until a `Publish` says otherwise, and the gate is open on that.
pub fn recover(terms: Terms, facts: Facts) -> (State, Vec<Effect>) {
    let mut state = State::new(terms, facts, Stage::Ended, Master::Nobody);
    state.traces.pause = true;
    state.traces.fence = true;
    let mut step = Step::new(state);
    step.probe();
    (step.state, step.effects)
}

/// The one transition function. Events that a stage does not wait for change nothing.
pub fn step(state: &State, event: Event) -> (State, Vec<Effect>) {
    let mut step = Step::new(state.clone());
    step.take(event);
    (step.state, step.effects)
}

/// The name of the current phase, as reports and the API show it.
pub fn phase(state: &State) -> &'static str {
    match &state.stage {
        Stage::Preflight => "preflight",
        Stage::Recording(_) => "journal",
        Stage::Warming => "pre_dial",
        Stage::Draining(_) => "hold",
        Stage::Pausing => "pause",
        Stage::CatchingUp { .. } => "catch_up",
        Stage::Fencing { .. } => "fence",
        Stage::Proving { .. } => "prove",
        Stage::Promoting(_) | Stage::Settling(_) => "promote",
        Stage::Finishing {
            demote: Demotion::Attached | Demotion::Apart,
            ..
        } => "repoint",
        Stage::Finishing { .. } => "demote",
        Stage::Undoing(_) => "undo",
        Stage::Probing { .. } => "recover",
        Stage::Closing(_) => "report",
        Stage::Ended => "ended",
    }
}

/// Has it ended? Reads that are still on their way may be answered or not.
pub fn is_over(state: &State) -> bool {
    matches!(state.stage, Stage::Ended)
}

/// Has it ended, or is about to, with something left to others?
pub fn is_left(state: &State) -> bool {
    state.leave.is_some()
}

/// Would [`Event::Abort`] still undo it (or find it being undone)?
pub fn can_abort(state: &State) -> bool {
    !matches!(
        state.stage,
        Stage::Promoting(_)
            | Stage::Settling(_)
            | Stage::Finishing { .. }
            | Stage::Probing { .. }
            | Stage::Closing(_)
            | Stage::Ended
    )
}
