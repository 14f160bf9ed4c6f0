//! The promotion and what follows it: from here everything rolls forward.

use super::effect::*;
use super::state::*;
use super::step::{Step, not_taken_over};

impl Step {
    pub(super) fn promote(&mut self, promise: Promise) {
        self.state.stage = Stage::Promoting(promise);
        self.act(Effect::Disarm(Timer::Sync));
        self.act(Effect::Promote);
    }

    pub(super) fn promoting(&mut self, promise: Promise, event: Event) {
        match event {
            Event::Promoted => self.promoted(promise),
            Event::PromotionRefused => self.not_promoted(promise, Reason::PromotionRefused),
            Event::Lost(Node::Target) => {
                self.state.stage = Stage::Settling(promise);
                self.act(Effect::Settle(Node::Target));
            }
            _ => {}
        }
    }

    /// A promotion whose reply is missing may execute at any later time, so it counts as undone
    /// only when the connection that carried it is gone on the server and the role is still that of
    /// a replica. Until then the fence stays.
    pub(super) fn settling(&mut self, promise: Promise, event: Event) {
        match event {
            Event::Settled(Node::Target, Seen::Master) => self.promoted(promise),
            Event::Settled(Node::Target, _) => self.not_promoted(promise, Reason::NotPromoted),
            Event::Lost(Node::Target) => self.act(Effect::Arm(Timer::Retry)),
            Event::Expired(Timer::Retry) if self.state.target == Slot::Idle => {
                self.act(Effect::Settle(Node::Target));
            }
            _ => {}
        }
    }

    fn promoted(&mut self, promise: Promise) {
        match promise {
            Promise::Proven { end, carried } if carried == end => {
                self.roll_forward(Attach::At(end), 0, Vec::new());
            }
            Promise::Proven { end, carried } => {
                self.roll_forward(Attach::Never { carried }, end - carried, Vec::new());
            }
            Promise::Unproven { missing } => {
                self.roll_forward(Attach::IfPrefix, missing, vec![Reason::OldDown]);
            }
        }
    }

    fn not_promoted(&mut self, promise: Promise, why: Reason) {
        match promise {
            Promise::Proven { .. } => self.undo(why),
            // There is nothing to go back to.
            Promise::Unproven { .. } => self.close(not_taken_over(why)),
        }
    }

    /// The target is master. The route, the release, the demotion and the other replicas' new
    /// master go out together: a demotion 100 ms late cost a full resync at 20 MB/s.
    ///
    /// The release waits for other proxies that hold, until they read from the target: what is
    /// acknowledged from then on must not be missing anywhere.
    pub(super) fn roll_forward(&mut self, attach: Attach, lost: u64, reasons: Vec<Reason>) {
        self.act(Effect::Disarm(Timer::Retry));
        self.publish(Master::Target);
        if self.state.gate == Gate::Held && self.state.peers == Peers::Held {
            self.act(Effect::RoutePeers);
        } else {
            self.act(Effect::Disarm(Timer::Hold));
            self.release();
        }
        let behind = self.state.facts.dialect.repoints_first();
        self.state.stage = Stage::Finishing {
            attach,
            demote: if behind {
                Demotion::Behind
            } else {
                Demotion::Asked
            },
            repoint: Task::Asked,
            not_carried: lost,
            reasons,
        };
        self.act(Effect::Arm(Timer::Demote));
        if !behind {
            self.demote(attach);
        }
        self.act(Effect::Repoint);
    }

    fn demote(&mut self, attach: Attach) {
        let settle = self.state.traces.settle();
        let unpause = self.state.traces.pause;
        self.act(Effect::Demote {
            attach,
            settle,
            unpause,
        });
    }

    pub(super) fn finishing(&mut self, event: Event) {
        let Stage::Finishing {
            attach,
            demote,
            repoint,
            not_carried,
            reasons,
        } = self.state.stage.clone()
        else {
            return;
        };
        let (mut demote, mut repoint, mut not_carried) = (demote, repoint, not_carried);
        match event {
            Event::Demoted => demote = Demotion::Attached,
            Event::Leaked { by } => {
                demote = Demotion::Apart;
                not_carried = not_carried.max(by);
                self.act(Effect::Alarm(Alarm::Leaked));
            }
            Event::DemoteRefused | Event::Lost(Node::Old) => {
                demote = Demotion::Waiting;
                self.act(Effect::Alarm(Alarm::DemotePending));
                self.act(Effect::Arm(Timer::Retry));
            }
            Event::PeersRouted => {
                self.act(Effect::Disarm(Timer::Hold));
                self.release();
            }
            Event::Repointed => repoint = Task::Done,
            Event::RepointFailed => {
                repoint = Task::Waiting;
                self.act(Effect::Alarm(Alarm::RepointPending));
                self.act(Effect::Arm(Timer::Retry));
            }
            Event::Expired(Timer::Retry) => {
                if repoint == Task::Waiting {
                    repoint = Task::Asked;
                    self.act(Effect::Repoint);
                }
                if demote == Demotion::Waiting {
                    demote = Demotion::Asked;
                    self.demote(attach);
                }
            }
            // The other proxies have not all followed yet, for which there is a limit of its own.
            Event::Expired(Timer::Demote) if self.state.gate == Gate::Held => {
                self.act(Effect::Arm(Timer::Demote));
            }
            Event::Expired(Timer::Demote) => {
                let verdict = self.verdict(demote, not_carried, reasons.clone());
                self.act(Effect::Report(verdict));
            }
            _ => {}
        }
        if demote == Demotion::Behind && repoint != Task::Asked && !self.is_leaving() {
            demote = Demotion::Asked;
            self.demote(attach);
        }
        let settled = matches!(demote, Demotion::Attached | Demotion::Apart);
        if settled && repoint == Task::Done && self.state.gate == Gate::Open {
            let verdict = self.verdict(demote, not_carried, reasons);
            return self.close(verdict);
        }
        self.state.stage = Stage::Finishing {
            attach,
            demote,
            repoint,
            not_carried,
            reasons,
        };
    }

    /// The hold's time is over and nobody knows who is master: nobody is, and writers are told so.
    pub(super) fn release_to_nobody(&mut self) {
        if self.state.gate == Gate::Open {
            return;
        }
        self.publish(Master::Nobody);
        self.release();
        self.act(Effect::Alarm(Alarm::PromotionUnknown));
        self.act(Effect::Report(Verdict {
            outcome: Outcome::Unknown,
            reasons: vec![Reason::TargetLost],
            not_carried: 0,
            old: OldNow::Unknown,
        }));
    }

    pub(super) fn publish(&mut self, master: Master) {
        if self.state.route != master {
            self.state.route = master;
            self.act(Effect::Publish(master));
        }
    }

    pub(super) fn release(&mut self) {
        if self.state.gate == Gate::Held {
            self.state.gate = Gate::Open;
            self.act(Effect::Release);
        }
        if self.state.peers == Peers::Held {
            self.state.peers = Peers::Free;
            self.act(Effect::ReleasePeers);
        }
    }

    /// Everything is done but the last record.
    pub(super) fn close(&mut self, verdict: Verdict) {
        for timer in [Timer::Hold, Timer::Demote, Timer::Retry] {
            self.act(Effect::Disarm(timer));
        }
        self.act(Effect::Record(Record::End(verdict.outcome)));
        self.state.stage = Stage::Closing(verdict);
    }

    pub(super) fn closing(&mut self, verdict: Verdict, event: Event) {
        match event {
            Event::Recorded(Record::End(_)) => self.report_and_end(verdict),
            Event::RecordFailed(Record::End(_)) => {
                self.act(Effect::Alarm(Alarm::Journal));
                self.report_and_end(verdict);
            }
            _ => {}
        }
    }

    pub(super) fn report_and_end(&mut self, verdict: Verdict) {
        self.act(Effect::Report(verdict));
        self.state.stage = Stage::Ended;
    }

    pub(super) fn verdict(
        &self,
        demote: Demotion,
        not_carried: u64,
        reasons: Vec<Reason>,
    ) -> Verdict {
        // Of a master that was out of reach nobody knows all that it had.
        let unproven = self.state.facts.old_is_down;
        let leaked = not_carried > 0 || demote == Demotion::Apart || unproven;
        Verdict {
            outcome: if leaked {
                Outcome::SwitchedWithLeak
            } else {
                Outcome::Switched
            },
            reasons,
            not_carried,
            old: match demote {
                Demotion::Attached => OldNow::Attached,
                Demotion::Apart => OldNow::Apart,
                Demotion::Behind | Demotion::Asked | Demotion::Waiting => OldNow::AttachPending,
            },
        }
    }
}
