//! The executor, as far as the plan can tell: it performs effects, answers them, and crashes.

use pointsman::switchover::plan::{self, Attach, Effect, Event, Master, Node, Seen, Timer};

use crate::claims;
use crate::rules::{Flaw, Rules};
use crate::world::{Flight, Journal, Lane, Late, Role, World, bit};

impl World {
    pub(crate) fn take_flight(&mut self, lane: Lane) -> Flight {
        std::mem::replace(&mut self.flights[lane as usize], Flight::None)
    }

    pub(crate) fn lose(&mut self, rules: &Rules, lane: Lane) -> Result<(), String> {
        let node = if lane == Lane::Old {
            Node::Old
        } else {
            Node::Target
        };
        let dead = self.server(lane).is_some_and(|server| !server.alive);
        let mut event = Event::Lost(node);
        match self.take_flight(lane) {
            Flight::Sent(effect) => {
                if !dead {
                    self.late |= lateness(&effect);
                }
                if rules.flaw == Some(Flaw::FenceAssumed) && effect == Effect::Fence {
                    event = Event::Fenced {
                        offset: u64::from(self.old.log),
                    };
                }
                if rules.flaw == Some(Flaw::LossMeansRefused) && effect == Effect::Promote {
                    event = Event::PromotionRefused;
                }
                if rules.flaw == Some(Flaw::SilenceMeansReplica)
                    && effect == Effect::Settle(Node::Target)
                {
                    event = Event::Settled(Node::Target, Seen::Follows);
                }
            }
            Flight::None | Flight::Executed(_) => {}
        }
        self.tell(rules, event)
    }

    pub(crate) fn crash(&mut self) {
        self.crashes -= 1;
        self.leave_peer_alone();
        self.down = true;
        self.plan = None;
        for lane in [Lane::Old, Lane::Target] {
            let alive = self.server(lane).is_some_and(|server| server.alive);
            if let Flight::Sent(effect) = self.take_flight(lane)
                && alive
            {
                self.late |= lateness(&effect);
            }
        }
        self.flights = [const { Flight::None }; 7];
        self.timers = 0;
        self.held = false;
        self.route = Master::Nobody;
        self.said = None;
        self.recovering = false;
    }

    pub(crate) fn start(&mut self, rules: &Rules) -> Result<(), String> {
        self.down = false;
        if self.journal == Journal::Begun {
            let (plan, effects) = plan::recover(rules.terms(), rules.facts());
            self.plan = Some(plan);
            self.recovering = true;
            self.perform(rules, effects)?;
        }
        Ok(())
    }

    pub(crate) fn tell(&mut self, rules: &Rules, event: Event) -> Result<(), String> {
        let Some(plan) = &self.plan else {
            return Ok(());
        };
        let (plan, effects) = plan::step(plan, event);
        self.plan = Some(plan);
        self.perform(rules, effects)
    }

    /// What the executor does with the effects of one step.
    pub(crate) fn perform(&mut self, rules: &Rules, effects: Vec<Effect>) -> Result<(), String> {
        for effect in effects {
            let lane = match &effect {
                Effect::Publish(master) => {
                    self.route = *master;
                    continue;
                }
                Effect::Release => {
                    self.held = false;
                    self.flights[Lane::Gate as usize] = Flight::None;
                    continue;
                }
                Effect::Arm(Timer::Retry) if rules.flaw == Some(Flaw::NoRetry) => continue,
                Effect::Arm(timer) => {
                    self.timers |= bit(*timer);
                    continue;
                }
                Effect::Disarm(timer) => {
                    self.timers &= !bit(*timer);
                    continue;
                }
                Effect::Report(verdict) => {
                    self.said = Some((verdict.outcome, verdict.not_carried, verdict.old));
                    continue;
                }
                Effect::Alarm(_) | Effect::TooLate => continue,
                Effect::ReleasePeers => {
                    self.flights[Lane::Peers as usize] = Flight::None;
                    if rules.flaw != Some(Flaw::PeerNotReleased) {
                        self.peer_lets_go();
                    }
                    continue;
                }
                Effect::HoldPeers => Lane::Peers,
                Effect::RoutePeers => {
                    self.flights[Lane::Peers as usize] = Flight::None;
                    Lane::Peers
                }
                Effect::Hold => Lane::Gate,
                Effect::Preflight | Effect::Warm => Lane::Desk,
                Effect::Record(_) => Lane::Journal,
                Effect::Repoint => Lane::Others,
                Effect::ReadTarget | Effect::Promote | Effect::Settle(Node::Target) => Lane::Target,
                _ => Lane::Old,
            };
            if rules.flaw == Some(Flaw::ReleasedEarly) && effect == Effect::Promote {
                self.route = Master::Target;
                self.held = false;
            }
            claims::before(self, &effect)?;
            let flight = &mut self.flights[lane as usize];
            if *flight != Flight::None {
                return Err(format!("{effect:?} asked while {flight:?} is under way"));
            }
            *flight = Flight::Sent(effect);
        }
        Ok(())
    }

    pub(crate) fn peer_lets_go(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.held = false;
        }
    }

    /// Nothing is promised for it any more.
    pub(crate) fn leave_peer_alone(&mut self) {
        if let Some(peer) = &mut self.peer {
            peer.silent = true;
        }
    }

    /// It does what it was told, as far as it can see for itself that it is so.
    pub(crate) fn hold_peer(&mut self, flaw: Option<Flaw>) -> Event {
        match &mut self.peer {
            None => Event::NoPeers,
            Some(peer) => {
                peer.held = flaw != Some(Flaw::PeerNotAwaited);
                Event::PeersHold
            }
        }
    }

    pub(crate) fn route_peer(&mut self, flaw: Option<Flaw>) -> Event {
        let is_master = self.target.role == Role::Master;
        if let Some(peer) = self.peer.as_mut().filter(|_| is_master) {
            peer.routed = flaw != Some(Flaw::PeerNotRouted);
        }
        Event::PeersRouted
    }

    pub(crate) fn execute(&mut self, rules: &Rules, lane: Lane) -> Result<(), String> {
        let Flight::Sent(effect) = self.take_flight(lane) else {
            return Ok(());
        };
        let reply = self.carry_out(rules, effect)?;
        self.flights[lane as usize] = Flight::Executed(reply);
        Ok(())
    }
}

/// What of it may execute after it was given up. Reads do no harm, and an unpause neither.
fn lateness(effect: &Effect) -> u8 {
    match effect {
        Effect::Pause => Late::Pause as u8,
        Effect::Fence => Late::Fence as u8,
        Effect::Restore { unfence: true, .. } => Late::Restore as u8,
        Effect::Demote {
            attach: Attach::At(_) | Attach::IfPrefix,
            ..
        } => Late::Demote as u8,
        Effect::Promote => Late::Promote as u8,
        _ => 0,
    }
}

/// The answer that says no.
pub fn refusal(effect: &Effect) -> Option<Event> {
    Some(match effect {
        Effect::Preflight => Event::PreflightFailed(vec!["a requirement".into()]),
        Effect::Record(record) => Event::RecordFailed(*record),
        Effect::Warm => Event::WarmFailed,
        Effect::Pause => Event::PauseRefused,
        Effect::Fence => Event::FenceRefused,
        Effect::Promote => Event::PromotionRefused,
        Effect::Demote { .. } => Event::DemoteRefused,
        Effect::Repoint => Event::RepointFailed,
        Effect::HoldPeers => Event::PeersSilent,
        Effect::RoutePeers => Event::PeersRouted,
        _ => return None,
    })
}
