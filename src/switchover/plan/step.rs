//! The way forward, from preflight to the fence; and which stage hears which event.

use super::effect::*;
use super::state::*;

/// One step in the making: the state as it becomes, and what is to be done.
pub(super) struct Step {
    pub(super) state: State,
    pub(super) effects: Vec<Effect>,
}

impl Step {
    pub(super) fn new(state: State) -> Step {
        Step {
            state,
            effects: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, event: Event) {
        if let Some(node) = event.answers() {
            *self.state.slot(node) = Slot::Idle;
        }
        if event == Event::Lost(Node::Old) {
            self.state.traces.unsettled = true;
        }
        match (self.state.stage.clone(), event) {
            (stage, Event::Abort) => self.abort(stage),
            (stage, Event::Outrun(by)) => self.outrun(stage, by),
            (stage, Event::Leave(why)) => self.told_to_leave(&stage, why),
            (stage, event) if self.is_leaving() => self.leaving(stage, event),
            (stage, event) => self.dispatch(stage, event),
        }
    }

    /// Which stage hears which event.
    pub(super) fn dispatch(&mut self, stage: Stage, event: Event) {
        match (stage, event) {
            (Stage::Preflight, event) => self.preflight(event),
            (Stage::Recording(course), event) => self.recording(course, event),
            (Stage::Warming, event) => self.warming(event),
            (stage, Event::Expired(Timer::Hold)) => self.hold_expired(stage),
            (stage, Event::Expired(Timer::Sync)) => self.sync_expired(stage),
            (Stage::Draining(awaited), event) => self.draining(awaited, event),
            (Stage::Pausing, event) => self.pausing(event),
            (Stage::CatchingUp { old, target }, event) => self.catching_up(old, target, event),
            (Stage::Fencing { target }, event) => self.fencing(target, event),
            (Stage::Proving { end, proof, target }, event) => {
                self.proving(end, proof, target, event);
            }
            (Stage::Promoting(promise), event) => self.promoting(promise, event),
            (Stage::Settling(promise), event) => self.settling(promise, event),
            (Stage::Finishing { .. }, event) => self.finishing(event),
            (Stage::Undoing(why), event) => self.undoing(why, event),
            (Stage::Probing { old, target }, event) => self.probing(old, target, event),
            (Stage::Closing(verdict), event) => self.closing(verdict, event),
            (Stage::Ended, _) => {}
        }
    }

    /// Asks a node, or does something that is not answered.
    pub(super) fn act(&mut self, effect: Effect) {
        if let Some(node) = effect.asks() {
            let slot = self.state.slot(node);
            debug_assert_eq!(
                *slot,
                Slot::Idle,
                "{effect:?} while {node:?} still owes an answer"
            );
            *slot = Slot::Busy;
        }
        self.effects.push(effect);
    }

    fn abort(&mut self, stage: Stage) {
        match stage {
            Stage::Preflight => self.report_and_end(nothing_done(Reason::Aborted)),
            Stage::Recording(_) => {
                let verdict = match self.state.facts.old_is_down {
                    true => not_taken_over(Reason::Aborted),
                    false => nothing_done(Reason::Aborted),
                };
                self.state.stage = Stage::Recording(Course::Stopped(verdict));
            }
            Stage::Warming => self.close(nothing_done(Reason::Aborted)),
            Stage::Draining(_)
            | Stage::Pausing
            | Stage::CatchingUp { .. }
            | Stage::Fencing { .. }
            | Stage::Proving { .. } => self.undo(Reason::Aborted),
            Stage::Undoing(_) => {}
            _ => self.act(Effect::TooLate),
        }
    }

    /// Of two that want to, the one that holds already changes the master. One that looks still
    /// makes way; one that has looked has the claims, beside which nobody can hold who may.
    fn outrun(&mut self, stage: Stage, by: String) {
        if stage == Stage::Preflight {
            self.report_and_end(refused(vec![Reason::Outrun(by)]));
        }
    }

    fn preflight(&mut self, event: Event) {
        match event {
            Event::PreflightPassed(facts) => {
                self.state.facts = facts;
                self.state.stage = Stage::Recording(Course::Going);
                self.act(Effect::Record(Record::Begin));
            }
            Event::PreflightFailed(failed) => {
                let reasons = failed.into_iter().map(Reason::Requirement).collect();
                self.report_and_end(refused(reasons));
            }
            _ => {}
        }
    }

    fn recording(&mut self, course: Course, event: Event) {
        match event {
            Event::Recorded(Record::Begin) => match course {
                Course::Stopped(verdict) => self.close(verdict),
                Course::Going if self.state.facts.old_is_down => {
                    self.promote(Promise::Unproven {
                        missing: self.state.facts.lag,
                    });
                }
                Course::Going => {
                    self.state.stage = Stage::Warming;
                    self.act(Effect::Warm);
                }
            },
            // Should the record be on the disk after all, the next start finds a master and a
            // replica, as it must.
            Event::RecordFailed(Record::Begin) => {
                self.report_and_end(match self.state.facts.old_is_down {
                    true => not_taken_over(Reason::Journal),
                    false => refused(vec![Reason::Journal]),
                });
            }
            _ => {}
        }
    }

    fn warming(&mut self, event: Event) {
        match event {
            Event::Warmed => {
                self.state.stage = Stage::Draining(Awaited::Both);
                self.state.gate = Gate::Held;
                self.state.peers = Peers::Held;
                self.act(Effect::Arm(Timer::Hold));
                self.act(Effect::Arm(Timer::Drain));
                self.act(Effect::Hold);
                self.act(Effect::HoldPeers);
            }
            Event::WarmFailed => self.close(refused(vec![Reason::NotWarm])),
            _ => {}
        }
    }

    fn draining(&mut self, awaited: Awaited, event: Event) {
        match (event, awaited) {
            (Event::Drained, Awaited::Both) => self.state.stage = Stage::Draining(Awaited::Peers),
            (Event::Drained, _) => self.drained(),
            (Event::NoPeers, _) => {
                self.state.peers = Peers::Free;
                self.peers_hold(awaited);
            }
            (Event::PeersHold, _) => self.peers_hold(awaited),
            (Event::PeersSilent, _) | (Event::Expired(Timer::Drain), Awaited::Peers) => {
                match self.state.terms.silent_proxies {
                    Silence::Abort => self.undo(Reason::ProxySilent),
                    Silence::Report => self.peers_hold(awaited),
                }
            }
            (Event::Expired(Timer::Drain), _) => self.undo(Reason::DrainTimeout),
            _ => {}
        }
    }

    fn peers_hold(&mut self, awaited: Awaited) {
        match awaited {
            Awaited::Both => self.state.stage = Stage::Draining(Awaited::Ourselves),
            Awaited::Ourselves | Awaited::Peers => self.drained(),
        }
    }

    /// Nothing is under way, here or with any other proxy that could be told.
    fn drained(&mut self) {
        self.act(Effect::Disarm(Timer::Drain));
        self.act(Effect::Arm(Timer::Sync));
        let facts = self.state.facts;
        if facts.dialect.feeds_behind_fence() && facts.lag <= facts.lag_small {
            self.fence();
        } else if facts.knows_pause {
            self.state.traces.pause = true;
            self.state.stage = Stage::Pausing;
            self.act(Effect::Pause);
        } else {
            self.catch_up();
        }
    }

    fn pausing(&mut self, event: Event) {
        match event {
            Event::Paused => self.catch_up(),
            Event::PauseRefused => {
                self.state.traces.pause = false;
                self.catch_up();
            }
            // A node that has just fallen silent is not one to fence.
            Event::Lost(Node::Old) => self.undo(Reason::OldLost),
            _ => {}
        }
    }

    fn catch_up(&mut self) {
        if self.state.patience == Patience::Over {
            return self.fence();
        }
        self.state.stage = Stage::CatchingUp {
            old: None,
            target: None,
        };
        self.act(Effect::ReadOld {
            unpause: false,
            apart: false,
        });
        self.act(Effect::ReadTarget);
    }

    fn catching_up(&mut self, mut old: Option<u64>, mut target: Option<u64>, event: Event) {
        match event {
            Event::OldRead {
                seen: Seen::Master,
                offset,
            } => old = Some(offset),
            Event::OldRead { .. } => return self.undo(Reason::OldChanged),
            Event::TargetRead {
                seen: Seen::Follows,
                link_up: true,
                offset,
            } => {
                target = Some(offset);
            }
            Event::TargetRead {
                seen: Seen::Follows,
                ..
            } => return self.undo(Reason::LinkDown),
            Event::TargetRead { .. } => return self.undo(Reason::TargetChanged),
            Event::Lost(Node::Old) => return self.undo(Reason::OldLost),
            Event::Lost(Node::Target) => return self.undo(Reason::TargetLost),
            _ => return,
        }
        self.state.stage = Stage::CatchingUp { old, target };
        if self.state.patience == Patience::Over {
            return self.fence_when_idle();
        }
        let (Some(old), Some(target)) = (old, target) else {
            return;
        };
        let near = if self.state.facts.dialect.feeds_behind_fence() {
            old.saturating_sub(target) <= self.state.facts.lag_small
        } else {
            old == target
        };
        if near {
            self.fence();
        } else {
            self.catch_up();
        }
    }

    fn fence_when_idle(&mut self) {
        if self.state.old == Slot::Idle {
            self.fence();
        }
    }

    fn hold_expired(&mut self, stage: Stage) {
        match stage {
            Stage::Draining(_)
            | Stage::Pausing
            | Stage::CatchingUp { .. }
            | Stage::Fencing { .. }
            | Stage::Proving { .. } => {
                self.undo(Reason::HoldTimeout);
                self.release_overdue();
            }
            Stage::Undoing(_) => self.release_overdue(),
            Stage::Promoting(_) | Stage::Settling(_) => self.release_to_nobody(),
            // The others were given their time to follow.
            Stage::Finishing { .. } => self.finishing(Event::PeersRouted),
            _ => {}
        }
    }

    fn sync_expired(&mut self, stage: Stage) {
        let waiting = matches!(
            stage,
            Stage::Pausing
                | Stage::CatchingUp { .. }
                | Stage::Fencing { .. }
                | Stage::Proving { .. }
        );
        if !waiting {
            return;
        }
        if !self.state.terms.force_on_timeout {
            return self.undo(Reason::SyncTimeout);
        }
        self.state.patience = Patience::Over;
        match stage {
            Stage::CatchingUp { .. } => self.fence_when_idle(),
            Stage::Proving { .. } => self.judge(),
            _ => {}
        }
    }
}

fn refused(reasons: Vec<Reason>) -> Verdict {
    Verdict {
        outcome: Outcome::Refused,
        reasons,
        not_carried: 0,
        old: OldNow::Master,
    }
}

/// Nobody is master, as before.
pub(super) fn not_taken_over(why: Reason) -> Verdict {
    Verdict {
        outcome: Outcome::Refused,
        reasons: vec![why],
        not_carried: 0,
        old: OldNow::Unknown,
    }
}

fn nothing_done(why: Reason) -> Verdict {
    Verdict {
        outcome: Outcome::RolledBack,
        reasons: vec![why],
        not_carried: 0,
        old: OldNow::Master,
    }
}
