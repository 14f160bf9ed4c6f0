//! The end of what nobody needs any more: somebody else made another node the master, or the
//! operator has taken over.
//!
//! **Invariant:** it ends only when every order has been answered or counts as lost, and once it is
//! leaving it gives no further one: not a fence is lifted beside a master that somebody else has
//! made. (An order that was lost may still be executed; whoever is in charge now sees what becomes
//! of it.)

use super::effect::*;
use super::state::*;
use super::step::{Step, not_taken_over};

impl Step {
    pub(super) fn is_leaving(&self) -> bool {
        self.state.leave.is_some()
    }

    pub(super) fn told_to_leave(&mut self, stage: &Stage, why: Reason) {
        if self.state.facts.old_is_down && *stage == Stage::Recording(Course::Going) {
            self.state.stage = Stage::Recording(Course::Stopped(not_taken_over(why)));
            return;
        }
        let heard = matches!(
            stage,
            Stage::Promoting(_)
                | Stage::Settling(_)
                | Stage::Finishing { .. }
                | Stage::Undoing(_)
                | Stage::Probing { .. }
        );
        if heard {
            self.state.leave.get_or_insert(why);
            self.leave();
        }
    }

    /// Answers are noted for the report; what would ask again is not heard.
    pub(super) fn leaving(&mut self, stage: Stage, event: Event) {
        let noted = match &stage {
            Stage::Finishing { .. } => !matches!(event, Event::Expired(Timer::Retry)),
            Stage::Undoing(_) => matches!(event, Event::Restored(_) | Event::Expired(Timer::Hold)),
            Stage::Promoting(_) | Stage::Settling(_) => {
                let promoted = matches!(
                    event,
                    Event::Promoted | Event::Settled(Node::Target, Seen::Master)
                );
                // What was promoted leads, unless somebody else's does.
                let leads = promoted && self.state.leave == Some(Reason::GivenUp);
                leads || event == Event::Expired(Timer::Hold)
            }
            Stage::Closing(_) => true,
            _ => false,
        };
        if noted {
            self.dispatch(stage, event);
        }
        self.leave();
    }

    fn leave(&mut self) {
        let idle = self.state.old == Slot::Idle && self.state.target == Slot::Idle;
        let Some(why) = self.state.leave.clone().filter(|_| idle) else {
            return;
        };
        match self.state.stage.clone() {
            Stage::Finishing {
                demote,
                repoint,
                not_carried,
                mut reasons,
                ..
            } if repoint != Task::Asked => {
                reasons.push(why);
                let verdict = self.verdict(demote, not_carried, reasons);
                let old = match verdict.old {
                    OldNow::AttachPending => OldNow::Unknown,
                    known => known,
                };
                self.close(Verdict { old, ..verdict });
            }
            Stage::Undoing(first) => {
                self.release();
                let outcome = match self.state.route {
                    Master::Old => Outcome::RolledBack,
                    // After a crash the old master leads again only when it is seen to.
                    Master::Nobody | Master::Target => Outcome::Unknown,
                };
                self.close(left(outcome, vec![first, why]));
            }
            Stage::Promoting(_) | Stage::Settling(_) => {
                self.publish(Master::Nobody);
                self.release();
                self.close(left(Outcome::Unknown, vec![Reason::TargetLost, why]));
            }
            Stage::Probing { .. } => {
                self.close(left(Outcome::Unknown, vec![Reason::Recovered, why]));
            }
            _ => {}
        }
    }
}

fn left(outcome: Outcome, reasons: Vec<Reason>) -> Verdict {
    Verdict {
        outcome,
        reasons,
        not_carried: 0,
        old: OldNow::Unknown,
    }
}
