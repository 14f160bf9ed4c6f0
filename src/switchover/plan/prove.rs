//! The fence, and the proof that the target holds all that was acknowledged before it.

use super::effect::*;
use super::state::*;
use super::step::Step;

impl Step {
    pub(super) fn fence(&mut self) {
        self.state.traces.fence = true;
        self.state.stage = Stage::Fencing { target: None };
        self.act(Effect::Fence);
        self.poll_target();
    }

    fn poll_target(&mut self) {
        if self.state.target == Slot::Idle {
            self.act(Effect::ReadTarget);
        }
    }

    pub(super) fn fencing(&mut self, target: Option<u64>, event: Event) {
        match event {
            Event::TargetRead {
                seen,
                link_up,
                offset,
            } => {
                if seen != Seen::Follows {
                    return self.undo(Reason::TargetChanged);
                }
                if !link_up && self.state.facts.dialect.feeds_behind_fence() {
                    return self.undo(Reason::LinkDown);
                }
                self.state.stage = Stage::Fencing {
                    target: Some(offset),
                };
                self.poll_target();
            }
            Event::Fenced { offset } => self.fenced(offset, target),
            Event::FenceRefused => self.undo(Reason::FenceRefused),
            Event::Lost(Node::Old) => self.undo(Reason::OldLost),
            Event::Lost(Node::Target) => self.undo(Reason::TargetLost),
            _ => {}
        }
    }

    /// A fence that is exact has told its end in the instant in which it closed: nothing that
    /// happens to the node afterwards makes it another one, and the demotion reads it once more.
    fn fenced(&mut self, end: u64, target: Option<u64>) {
        let proof = match self.state.facts.dialect.fence_is_exact() && !self.state.traces.pause {
            true => Proof::Final,
            false => Proof::Provisional,
        };
        self.state.stage = Stage::Proving { end, proof, target };
        if proof == Proof::Provisional {
            self.read_old_again();
        }
        self.judge();
    }

    /// The pause has done its part as soon as the fence stands: who waits behind it would get
    /// READONLY all the same, and other proxies' reads wait behind their paused writes.
    fn read_old_again(&mut self) {
        let unpause = self.state.traces.pause;
        let apart = !self.state.facts.dialect.fence_is_exact();
        self.act(Effect::ReadOld { unpause, apart });
    }

    pub(super) fn proving(&mut self, end: u64, proof: Proof, target: Option<u64>, event: Event) {
        match event {
            Event::OldRead {
                seen: Seen::Fenced,
                offset,
            } => {
                self.state.traces.pause = false;
                let proof = if offset == end {
                    Proof::Final
                } else {
                    Proof::Provisional
                };
                self.state.stage = Stage::Proving {
                    end: offset,
                    proof,
                    target,
                };
                if proof == Proof::Provisional {
                    self.read_old_again();
                }
                self.judge();
            }
            Event::OldRead { .. } => self.undo(Reason::OldChanged),
            // The fence's own reply is final there, so the target may be promoted without the old
            // master as soon as it holds that much.
            Event::Lost(Node::Old) if self.state.facts.dialect.fence_is_exact() => {
                self.state.stage = Stage::Proving {
                    end,
                    proof: Proof::Final,
                    target,
                };
                self.judge();
            }
            Event::Lost(Node::Old) => self.undo(Reason::OldLost),
            Event::TargetRead {
                seen,
                link_up,
                offset,
            } => {
                if seen != Seen::Follows {
                    return self.undo(Reason::TargetChanged);
                }
                if !link_up && offset != end {
                    return self.undo(Reason::LinkDown);
                }
                self.state.stage = Stage::Proving {
                    end,
                    proof,
                    target: Some(offset),
                };
                self.judge();
            }
            Event::Lost(Node::Target) => self.undo(Reason::TargetLost),
            _ => {}
        }
    }

    /// Promotes when it is proven (or forced), asks on when it is not. The target's slot is idle
    /// whenever it is promoted: a read under way is awaited first, it arrives within a round trip.
    pub(super) fn judge(&mut self) {
        let Stage::Proving { end, proof, target } = self.state.stage else {
            return;
        };
        let (Proof::Final, Some(carried)) = (proof, target) else {
            if target != Some(end) {
                self.poll_target();
            }
            return;
        };
        let over = self.state.patience == Patience::Over;
        if carried == end || (over && carried < end) {
            if self.state.target == Slot::Idle {
                self.promote(Promise::Proven { end, carried });
            }
        } else if over {
            self.undo(Reason::TargetChanged);
        } else {
            // A target ahead of the old master has seen it grow behind the fence (Kvrocks), or is
            // no copy of it; in the second case this ends at the deadline.
            if carried > end {
                self.state.stage = Stage::Proving {
                    end,
                    proof: Proof::Provisional,
                    target,
                };
                self.read_old_again();
            }
            self.poll_target();
        }
    }
}
