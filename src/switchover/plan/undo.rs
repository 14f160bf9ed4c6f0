//! The way back, from any step before the promotion.

use super::effect::*;
use super::state::*;
use super::step::Step;

impl Step {
    /// Legal from every stage in which no promotion can execute. An effect that is outstanding on
    /// the old master is awaited first (it may be the fence itself), one on the target is only a
    /// read and may be answered whenever it likes.
    pub(super) fn undo(&mut self, why: Reason) {
        self.act(Effect::Disarm(Timer::Drain));
        self.act(Effect::Disarm(Timer::Sync));
        self.state.stage = Stage::Undoing(why.clone());
        let Traces { pause, fence, .. } = self.state.traces;
        if !pause && !fence {
            self.rolled_back(why, OldNow::Master);
        } else if self.state.old == Slot::Idle {
            self.restore();
        }
    }

    fn restore(&mut self) {
        let traces = self.state.traces;
        self.act(Effect::Restore {
            settle: traces.settle(),
            unfence: traces.fence,
            unpause: traces.pause,
        });
    }

    pub(super) fn undoing(&mut self, why: Reason, event: Event) {
        match event {
            Event::Restored(Seen::Master | Seen::Reborn) => {
                self.publish(Master::Old);
                self.rolled_back(why, OldNow::Master);
            }
            Event::Restored(Seen::Fenced) | Event::Lost(Node::Old) => {
                self.act(Effect::Arm(Timer::Retry));
            }
            // Whoever gave it another master is in charge of it now.
            Event::Restored(Seen::Follows | Seen::Foreign) => {
                self.act(Effect::Alarm(Alarm::Foreign));
                self.rolled_back(why, OldNow::Unknown);
            }
            Event::Expired(Timer::Retry) if self.state.old == Slot::Idle => self.restore(),
            event if event.answers() == Some(Node::Old) => self.restore(),
            _ => {}
        }
    }

    fn rolled_back(&mut self, why: Reason, old: OldNow) {
        self.state.traces = Traces::default();
        self.release();
        let mut reasons = vec![why];
        if old == OldNow::Unknown {
            reasons.push(Reason::Foreign);
        }
        let outcome = Outcome::RolledBack;
        self.close(Verdict {
            outcome,
            reasons,
            not_carried: 0,
            old,
        });
    }

    /// The hold's time is over and the old master still does not answer. Its clients get what a
    /// direct client would; the restoring goes on behind them.
    pub(super) fn release_overdue(&mut self) {
        if self.state.gate == Gate::Open {
            return;
        }
        let Stage::Undoing(why) = self.state.stage.clone() else {
            return;
        };
        self.release();
        self.act(Effect::Alarm(Alarm::RestorePending));
        self.act(Effect::Report(Verdict {
            outcome: Outcome::RolledBack,
            reasons: vec![why],
            not_carried: 0,
            old: OldNow::Restoring,
        }));
    }
}
