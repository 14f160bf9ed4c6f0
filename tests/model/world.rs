//! The world the plan acts on: two nodes, what is under way to them, and everything that can
//! happen.
//!
//! Simplifications, each towards more behaviour or stated: a command that was lost unexecuted is
//! treated as one that may still execute, as it may also never; a compound effect (demote: read,
//! judge, attach) is one transition, because behind the fence nothing else changes the node; logs
//! are counters (the old master's writes have one order); nodes keep their data when killed. A
//! node restarts in the role it had, except under `stale_restart`, where a fenced old master may
//! once come back as master. One that forgets whom it follows, and a *target* that forgets its
//! promotion, are left out: what happens to the result of a switchover is a failover.

use pointsman::switchover::plan::{
    self, Effect, Event, Master, Node, OldNow, Outcome, Reason, State, Timer,
};

use crate::claims;
use crate::proxy::refusal;
use crate::rules::{Flaw, Rules};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Role {
    Master,
    /// The old master behind the fence.
    Fenced,
    /// Replica of the other node.
    Follows,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct Server {
    pub alive: bool,
    pub role: Role,
    pub paused: bool,
    /// Acknowledged writes of the old master that it holds; the target's own are not counted.
    pub log: u8,
}

/// An effect that is to be answered.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Flight {
    None,
    Sent(Effect),
    Executed(Event),
}

/// Who carries it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Lane {
    Old,
    Target,
    Gate,
    /// Preflight and pre-dial.
    Desk,
    Journal,
    Others,
    /// The other proxies.
    Peers,
}

const LANES: [Lane; 7] = [
    Lane::Old,
    Lane::Target,
    Lane::Gate,
    Lane::Desk,
    Lane::Journal,
    Lane::Others,
    Lane::Peers,
];
const TIMERS: [Timer; 5] = [
    Timer::Drain,
    Timer::Sync,
    Timer::Hold,
    Timer::Demote,
    Timer::Retry,
];

/// Commands that were given up and may still execute.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Late {
    Pause = 1,
    Fence = 2,
    Restore = 4,
    Demote = 8,
    Promote = 16,
}

const LATE_OLD: [Late; 4] = [Late::Pause, Late::Fence, Late::Restore, Late::Demote];

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Journal {
    Nothing,
    Begun,
    Ended(Outcome),
}

/// Another proxy of the shard.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    pub held: bool,
    /// It reads from the target.
    pub routed: bool,
    /// It did not hear what it was told, or was left alone with it: nothing is promised for it.
    pub silent: bool,
}

#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct World {
    /// `None` while the proxy is down, and after it found nothing to recover.
    pub plan: Option<State>,
    pub down: bool,
    pub journal: Journal,
    pub held: bool,
    pub route: Master,
    pub old: Server,
    pub target: Server,
    pub link: bool,
    pub flights: [Flight; 7],
    pub late: u8,
    pub timers: u8,
    pub faults: u8,
    pub crashes: u8,
    pub aborts: u8,
    pub pops: u8,
    pub popped: u8,
    /// Writes acknowledged by the target as a master.
    pub own: u8,
    /// The old master was restarted.
    pub reborn: bool,
    /// It came back with an old config.
    pub stale: bool,
    /// How many writes the target may lack: pops and a stale master's writes since the old master
    /// was last read, or any number once an end was forced.
    pub excused: u8,
    pub said: Option<(Outcome, u64, OldNow)>,
    /// The plan that runs was begun by a crash.
    pub recovering: bool,
    pub charge: Charge,
    pub peer: Option<Peer>,
    /// Times that it may begin to hold for an operation of its own.
    pub outruns: u8,
}

/// Who is in charge of the nodes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Charge {
    Ours,
    /// Somebody else may take over yet.
    Disputed,
    Theirs,
}

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Action {
    Execute(Lane),
    Deliver(Lane),
    /// The answer is an error; nothing was done.
    Refuse(Lane),
    /// No answer.
    Lose(Lane),
    /// The node is dead: no answer.
    NoNode(Lane),
    ExecuteLate(Late),
    Expire(Timer),
    Abort,
    TakeOver,
    Outrun,
    PeerGivesUp,
    Crash,
    Start,
    WriteOld,
    WriteTarget,
    Pop,
    PauseEnds,
    Replicate,
    LinkBreaks,
    LinkHeals,
    Kill(Node),
    Revive(Node),
    ReviveStale,
}

impl Action {
    /// Is it something a world without further faults does?
    pub fn is_kind(self) -> bool {
        use Action::*;
        matches!(
            self,
            Execute(_)
                | Deliver(_)
                | NoNode(_)
                | PeerGivesUp
                | Expire(_)
                | Start
                | Replicate
                | LinkHeals
                | Revive(_)
        )
    }
}

impl World {
    pub fn new(rules: &Rules) -> World {
        let server = |role| Server {
            alive: true,
            role,
            paused: false,
            log: 0,
        };
        let (plan, effects) = match rules.take_over {
            true => plan::take_over(rules.facts()),
            false => plan::begin(rules.terms()),
        };
        let mut world = World {
            plan: Some(plan),
            down: false,
            journal: Journal::Nothing,
            held: false,
            route: Master::Old,
            old: server(Role::Master),
            target: server(Role::Follows),
            link: true,
            flights: [const { Flight::None }; 7],
            late: 0,
            timers: 0,
            faults: rules.faults,
            crashes: rules.crashes,
            aborts: 1,
            pops: rules.pops,
            popped: 0,
            own: 0,
            reborn: false,
            stale: false,
            excused: 0,
            said: None,
            recovering: false,
            charge: match rules.taken_over {
                true => Charge::Disputed,
                false => Charge::Ours,
            },
            peer: rules.peer.map(|_| Peer {
                held: false,
                routed: false,
                silent: false,
            }),
            outruns: u8::from(rules.peer.is_some()),
        };
        if rules.take_over {
            // It had a write that the target lacks, and comes back as a master if it comes back.
            world.old.alive = false;
            world.old.log = 1;
            (world.stale, world.excused) = (true, u8::MAX);
            world.route = Master::Nobody;
            world.link = false;
        }
        world
            .perform(rules, effects)
            .expect("the first effect breaks no claim");
        world
    }

    pub fn flight(&self, lane: Lane) -> &Flight {
        &self.flights[lane as usize]
    }

    pub fn server(&self, lane: Lane) -> Option<&Server> {
        match lane {
            Lane::Old => Some(&self.old),
            Lane::Target => Some(&self.target),
            _ => None,
        }
    }

    /// The operation is over, or there is none.
    pub fn ended(&self) -> bool {
        match &self.plan {
            Some(plan) => plan::is_over(plan),
            None => !self.down,
        }
    }

    pub fn actions(&self, rules: &Rules, out: &mut Vec<Action>) {
        out.clear();
        if self.ended() {
            // Only a record that says "begun" makes what happens afterwards the plan's business.
            if self.journal == Journal::Begun && self.crashes > 0 {
                out.push(Action::Crash);
            }
            return;
        }
        self.actions_of_proxy(out);
        self.actions_of_nodes(rules, out);
    }

    fn actions_of_proxy(&self, out: &mut Vec<Action>) {
        for lane in LANES {
            let dead = self.server(lane).is_some_and(|server| !server.alive);
            match self.flight(lane) {
                Flight::None => {}
                Flight::Sent(_) if dead => out.push(Action::NoNode(lane)),
                Flight::Sent(effect) => {
                    out.push(Action::Execute(lane));
                    if self.faults > 0 {
                        if refusal(effect).is_some() {
                            out.push(Action::Refuse(lane));
                        }
                        if lane == Lane::Old || lane == Lane::Target {
                            out.push(Action::Lose(lane));
                        }
                    }
                }
                Flight::Executed(_) => {
                    out.push(Action::Deliver(lane));
                    if self.faults > 0 && (lane == Lane::Old || lane == Lane::Target) {
                        out.push(Action::Lose(lane));
                    }
                }
            }
        }
        for timer in TIMERS {
            if self.timers & bit(timer) != 0 {
                out.push(Action::Expire(timer));
            }
        }
        // Its clock starts behind ours, and runs as long.
        if self.peer.is_some_and(|peer| peer.held) && self.timers & bit(Timer::Hold) == 0 {
            out.push(Action::PeerGivesUp);
        }
        if self.down {
            out.push(Action::Start);
        } else {
            if self.outruns > 0 {
                out.push(Action::Outrun);
            }
            if self.aborts > 0 {
                out.push(Action::Abort);
            }
            let waits = self.recovering || self.said.is_some();
            if self.charge == Charge::Disputed && waits {
                out.push(Action::TakeOver);
            }
            if self.crashes > 0 {
                out.push(Action::Crash);
            }
        }
    }

    fn actions_of_nodes(&self, rules: &Rules, out: &mut Vec<Action>) {
        let (old, target) = (&self.old, &self.target);
        for late in LATE_OLD {
            if self.late & late as u8 != 0 && old.alive {
                out.push(Action::ExecuteLate(late));
            }
        }
        if self.late & Late::Promote as u8 != 0 && target.alive {
            out.push(Action::ExecuteLate(Late::Promote));
        }
        if claims::acknowledges(old) && old.log < rules.writes {
            out.push(Action::WriteOld);
        }
        if claims::acknowledges(target) && self.own == 0 {
            out.push(Action::WriteTarget);
        }
        if old.alive && old.role == Role::Fenced && self.pops > 0 {
            out.push(Action::Pop);
        }
        if old.paused {
            out.push(Action::PauseEnds);
        }
        let both = old.alive && target.alive && target.role == Role::Follows;
        if both && self.link && target.log < old.log {
            out.push(Action::Replicate);
        }
        if both && !self.link && old.role == Role::Master {
            out.push(Action::LinkHeals);
        }
        if self.faults > 0 {
            if self.link && target.role == Role::Follows {
                out.push(Action::LinkBreaks);
            }
            if old.alive {
                out.push(Action::Kill(Node::Old));
            }
            if target.alive {
                out.push(Action::Kill(Node::Target));
            }
        }
        if !old.alive {
            out.push(Action::Revive(Node::Old));
            if rules.stale_restart && !self.stale && old.role == Role::Fenced {
                out.push(Action::ReviveStale);
            }
        }
        if !target.alive {
            out.push(Action::Revive(Node::Target));
        }
    }

    /// What the world is like afterwards, or the claim that is broken on the way.
    pub fn apply(&self, rules: &Rules, action: Action) -> Result<World, String> {
        let mut world = self.clone();
        match action {
            Action::Execute(lane) => world.execute(rules, lane)?,
            Action::Deliver(lane) => {
                if let Flight::Executed(event) = world.take_flight(lane) {
                    world.tell(rules, event)?;
                }
            }
            Action::Refuse(lane) => {
                world.faults -= 1;
                if lane == Lane::Peers {
                    world.leave_peer_alone();
                }
                if let Flight::Sent(effect) = world.take_flight(lane)
                    && let Some(event) = refusal(&effect)
                {
                    world.tell(rules, event)?;
                }
            }
            Action::Lose(lane) => {
                world.faults -= 1;
                world.lose(rules, lane)?;
            }
            Action::NoNode(lane) => world.lose(rules, lane)?,
            Action::ExecuteLate(late) => {
                world.late &= !(late as u8);
                world.execute_late(rules, late)?;
            }
            Action::Expire(timer) => {
                world.timers &= !bit(timer);
                if timer == Timer::Sync && rules.force {
                    world.excused = u8::MAX;
                }
                let unheard = matches!(
                    world.flight(Lane::Peers),
                    Flight::Sent(_) | Flight::Executed(Event::PeersHold)
                );
                if timer == Timer::Hold || timer == Timer::Drain && unheard {
                    world.leave_peer_alone();
                }
                world.tell(rules, Event::Expired(timer))?;
            }
            Action::Abort => {
                world.aborts -= 1;
                world.tell(rules, Event::Abort)?;
            }
            Action::TakeOver => {
                world.charge = Charge::Theirs;
                world.tell(rules, Event::Leave(Reason::Superseded))?;
                if rules.flaw == Some(Flaw::LeftInHaste) {
                    world.tell(rules, Event::Lost(Node::Old))?;
                    world.tell(rules, Event::Lost(Node::Target))?;
                }
            }
            Action::Outrun => {
                world.outruns -= 1;
                world.tell(rules, Event::Outrun("theirs".to_owned()))?;
            }
            Action::PeerGivesUp => {
                world.leave_peer_alone();
                world.peer_lets_go();
            }
            Action::Crash => world.crash(),
            Action::Start => world.start(rules)?,
            other => world.happen(other),
        }
        claims::always(&world)?;
        claims::bounded(&world)?;
        if world.ended() {
            claims::at_the_end(&world)?;
        }
        Ok(world)
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::WriteOld => {
                self.old.log += 1;
                self.excused = self.excused.saturating_add(u8::from(self.stale));
            }
            Action::WriteTarget => self.own += 1,
            Action::Pop => {
                self.pops -= 1;
                self.popped += 1;
                self.old.log += 1;
                self.excused = self.excused.saturating_add(1);
            }
            Action::PauseEnds => self.old.paused = false,
            Action::Replicate => self.target.log += 1,
            Action::LinkBreaks => {
                self.faults -= 1;
                self.link = false;
            }
            Action::LinkHeals => self.link = true,
            Action::Kill(node) => {
                self.faults -= 1;
                self.link = false;
                match node {
                    Node::Old => {
                        self.old.alive = false;
                        self.old.paused = false;
                        self.late &= Late::Promote as u8;
                    }
                    Node::Target => {
                        self.target.alive = false;
                        self.late &= !(Late::Promote as u8);
                    }
                }
            }
            Action::Revive(Node::Old) => {
                self.old.alive = true;
                self.reborn = self.journal == Journal::Begun;
            }
            Action::Revive(Node::Target) => self.target.alive = true,
            Action::ReviveStale => {
                self.old.alive = true;
                self.old.role = Role::Master;
                self.reborn = true;
                self.stale = true;
            }
            _ => unreachable!("{action:?} is not the nodes' own"),
        }
    }
}

/// The timer's bit in `World::timers`.
pub fn bit(timer: Timer) -> u8 {
    1 << timer as u8
}
