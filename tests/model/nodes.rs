//! What the two servers do when a command reaches them.

use pointsman::switchover::plan::{Attach, Effect, Event, Node, Record, Seen, Settle};

use crate::claims;
use crate::rules::{Flaw, Rules};
use crate::world::{Journal, Late, Role, Server, World};

impl World {
    pub(crate) fn carry_out(&mut self, rules: &Rules, effect: Effect) -> Result<Event, String> {
        let flaw = rules.flaw;
        Ok(match effect {
            Effect::Preflight => Event::PreflightPassed(rules.facts()),
            Effect::Record(record) => {
                match record {
                    Record::Begin if flaw == Some(Flaw::NoJournal) => {}
                    Record::Begin => self.journal = Journal::Begun,
                    Record::End(outcome) => self.journal = Journal::Ended(outcome),
                }
                Event::Recorded(record)
            }
            Effect::Warm => Event::Warmed,
            Effect::Hold => {
                self.held = true;
                Event::Drained
            }
            Effect::HoldPeers => self.hold_peer(flaw),
            Effect::RoutePeers => self.route_peer(flaw),
            Effect::Pause => {
                self.old.paused = true;
                Event::Paused
            }
            Effect::Fence => self.fence(rules),
            Effect::ReadOld { unpause, .. } => {
                self.unpause(rules, unpause);
                self.excused_no_more();
                let unread = if flaw == Some(Flaw::SecondReadSkipped) {
                    self.popped
                } else {
                    0
                };
                Event::OldRead {
                    offset: u64::from(self.old.log - unread),
                    seen: seen(&self.old),
                }
            }
            Effect::ReadTarget => {
                let skipped = flaw == Some(Flaw::ProofSkipped);
                let log = if skipped {
                    self.old.log
                } else {
                    self.target.log
                };
                let offset = u64::from(log + self.own);
                Event::TargetRead {
                    offset,
                    seen: seen(&self.target),
                    link_up: self.link,
                }
            }
            Effect::Restore {
                settle,
                unfence,
                unpause,
            } => {
                if settle == Settle::First && flaw != Some(Flaw::RestoreUnsettled) {
                    self.late &= Late::Promote as u8;
                }
                self.restore(rules, unfence);
                self.unpause(rules, unpause);
                Event::Restored(seen(&self.old))
            }
            Effect::Promote => {
                self.promote()?;
                Event::Promoted
            }
            Effect::Settle(Node::Old) => {
                self.late &= Late::Promote as u8;
                let reborn = self.reborn
                    && self.old.role == Role::Master
                    && flaw != Some(Flaw::RebornBelieved);
                let seen = if reborn {
                    Seen::Reborn
                } else {
                    seen(&self.old)
                };
                Event::Settled(Node::Old, seen)
            }
            Effect::Settle(Node::Target) => {
                if flaw != Some(Flaw::LateNotKilled) {
                    self.late &= !(Late::Promote as u8);
                }
                Event::Settled(Node::Target, seen(&self.target))
            }
            Effect::Demote {
                attach,
                settle,
                unpause,
            } => {
                if settle == Settle::First {
                    self.late &= Late::Promote as u8;
                }
                self.unpause(rules, unpause);
                self.demote(rules, attach)
            }
            Effect::Repoint => Event::Repointed,
            other => return Err(format!("{other:?} is not carried out by a node")),
        })
    }

    /// What was acknowledged until now has been read, and must be carried. (The answer of a stale
    /// master may be lost, and the plan goes on without it: the fence had said where its log ends.)
    fn excused_no_more(&mut self) {
        if self.excused != u8::MAX && !self.stale {
            self.excused = 0;
        }
    }

    fn fence(&mut self, rules: &Rules) -> Event {
        self.excused_no_more();
        self.old.role = Role::Fenced;
        if !rules.dialect.feeds_behind_fence() {
            self.link = false;
        }
        Event::Fenced {
            offset: u64::from(self.old.log),
        }
    }

    fn restore(&mut self, rules: &Rules, unfence: bool) {
        if unfence && self.old.role == Role::Fenced && rules.flaw != Some(Flaw::FenceNotLifted) {
            self.old.role = Role::Master;
        }
    }

    fn unpause(&mut self, rules: &Rules, unpause: bool) {
        if unpause && rules.flaw != Some(Flaw::PauseNotLifted) {
            self.old.paused = false;
        }
    }

    fn promote(&mut self) -> Result<(), String> {
        if self.target.role != Role::Master {
            self.target.role = Role::Master;
            self.link = false;
            claims::at_promotion(self)?;
        }
        Ok(())
    }

    fn demote(&mut self, rules: &Rules, attach: Attach) -> Event {
        if self.old.role == Role::Follows {
            return Event::Demoted;
        }
        self.old.role = Role::Fenced;
        let log = u64::from(self.old.log);
        let end = match attach {
            Attach::At(end) => end,
            Attach::IfPrefix => u64::from(self.target.log),
            Attach::Never { carried } => carried,
        };
        let blind = rules.flaw == Some(Flaw::AttachedBlindly);
        let apart = matches!(attach, Attach::Never { .. }) || log > end;
        if apart && !blind {
            return Event::Leaked {
                by: log.saturating_sub(end),
            };
        }
        self.old.role = Role::Follows;
        Event::Demoted
    }

    pub(crate) fn execute_late(&mut self, rules: &Rules, late: Late) -> Result<(), String> {
        match late {
            Late::Pause => self.old.paused = true,
            Late::Fence => {
                self.fence(rules);
            }
            Late::Restore => self.restore(rules, true),
            Late::Demote => {
                self.demote(rules, Attach::IfPrefix);
            }
            Late::Promote => self.promote()?,
        }
        Ok(())
    }
}

fn seen(server: &Server) -> Seen {
    match server.role {
        Role::Master => Seen::Master,
        Role::Fenced => Seen::Fenced,
        Role::Follows => Seen::Follows,
    }
}
