//! After a restart: an operation whose record has no end is resolved by the nodes' own roles.

use super::effect::*;
use super::state::*;
use super::step::Step;

impl Step {
    pub(super) fn probe(&mut self) {
        self.state.stage = Stage::Probing {
            old: Answer::Asked,
            target: Answer::Asked,
        };
        self.act(Effect::Settle(Node::Old));
        self.act(Effect::Settle(Node::Target));
    }

    pub(super) fn probing(&mut self, mut old: Answer, mut target: Answer, event: Event) {
        match event {
            Event::Settled(Node::Old, seen) => {
                self.state.traces.unsettled = false;
                old = Answer::Is(seen);
            }
            Event::Settled(Node::Target, seen) => target = Answer::Is(seen),
            Event::Lost(Node::Old) => old = Answer::Lost,
            Event::Lost(Node::Target) => target = Answer::Lost,
            Event::Expired(Timer::Retry) if old != Answer::Asked && target != Answer::Asked => {
                return self.probe();
            }
            _ => return,
        }
        self.state.stage = Stage::Probing { old, target };
        if old != Answer::Asked && target != Answer::Asked {
            self.decide(old, target);
        }
    }

    /// Both have answered, or failed to. The promotion is never sent before the fence stands and
    /// the fence is never lifted before the promotion is known not to have happened; hence an old
    /// master that is master, in the same life, proves that the target is not and will not be; one
    /// that is fenced, or restarted and may have forgotten a fence, proves nothing. Nor does any,
    /// where the target was to take the place of one that was out of reach.
    fn decide(&mut self, old: Answer, target: Answer) {
        use Answer::{Is, Lost};
        let unproven = self.state.facts.old_is_down;
        let alarm = match (old, target) {
            (_, Is(Seen::Master)) if unproven => {
                let reasons = vec![Reason::OldDown, Reason::Recovered];
                return self.roll_forward(Attach::IfPrefix, self.state.facts.lag, reasons);
            }
            (Is(Seen::Master), Lost) if unproven => Alarm::PromotionUnknown,
            // Both are known: the promotion has not happened and will not, and there is still no
            // master.
            (Lost, Is(Seen::Follows | Seen::Foreign)) if unproven => {
                let missing = self.state.facts.lag;
                return self.promote(Promise::Unproven { missing });
            }
            // Not our doing: the fence was standing when the promotion was sent.
            (Is(Seen::Master), Is(Seen::Master)) => Alarm::TwoMasters,
            (Is(Seen::Foreign), Is(Seen::Master)) => {
                // It is not ours to attach any more; that it is no master is all that is asked.
                let reasons = vec![Reason::Recovered, Reason::Foreign];
                self.act(Effect::Alarm(Alarm::Foreign));
                return self.roll_forward(Attach::IfPrefix, 0, reasons);
            }
            (_, Is(Seen::Master)) => {
                return self.roll_forward(Attach::IfPrefix, 0, vec![Reason::Recovered]);
            }
            (Is(Seen::Master), _) => return self.undo(Reason::Recovered),
            (Is(Seen::Fenced | Seen::Reborn), Is(_)) => return self.undo(Reason::Recovered),
            (Is(Seen::Follows | Seen::Foreign), _) => Alarm::NoMaster,
            (Is(Seen::Fenced | Seen::Reborn) | Lost | Answer::Asked, _) => Alarm::RestorePending,
        };
        self.act(Effect::Alarm(alarm));
        self.act(Effect::Arm(Timer::Retry));
    }
}
