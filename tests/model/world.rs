//! The world the plan acts on: two nodes, what is under way to them, and everything that can happen.
//!
//! Simplifications, each towards more behaviour or stated: a command that was lost unexecuted is
//! treated as one that may still execute, as it may also never; a compound effect (demote: read,
//! judge, attach) is one transition, because behind the fence nothing else changes the node; logs
//! are counters (the old master's writes have one order); nodes keep their data when killed. A
//! node restarts in the role it had, except under `stale_restart`, where the old master may come
//! back as master. A *target* that forgets its promotion is left out: that is a failover.

use pointsman::switchover::plan::{
    self, Attach, Dialect, Effect, Event, Facts, Master, Node, OldNow, Outcome, Record, Seen,
    Settle, State, Terms, Timer,
};

use crate::claims;

/// What one walk may contain.
#[derive(Clone, Copy, Debug)]
pub struct Rules {
    pub dialect: Dialect,
    pub force: bool,
    pub far_behind: bool,
    pub stale_restart: bool,
    /// Writes that bypass the proxy on the old master.
    pub writes: u8,
    /// Pops by woken blocked clients behind the fence.
    pub pops: u8,
    /// Lost replies, refusals, broken links and kills, together.
    pub faults: u8,
    pub crashes: u8,
    pub flaw: Option<Flaw>,
}

impl Rules {
    pub fn new(dialect: Dialect) -> Rules {
        Rules {
            dialect,
            force: false,
            far_behind: false,
            stale_restart: false,
            writes: 2,
            pops: 0,
            faults: 2,
            crashes: 2,
            flaw: None,
        }
    }

    pub fn terms(&self) -> Terms {
        Terms {
            force_on_timeout: self.force,
        }
    }

    pub fn facts(&self) -> Facts {
        Facts {
            dialect: self.dialect,
            knows_pause: true,
            lag: if self.far_behind { 10 } else { 0 },
            lag_small: 1,
        }
    }
}

/// Deliberate mistakes; the walk must find each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flaw {
    /// The target is believed to be equal.
    ProofSkipped,
    /// The route is swapped and the gate opened when the promotion is sent.
    ReleasedEarly,
    /// A fence without a reply, or refused, counts as a fence.
    FenceAssumed,
    /// The role is asked without killing the connection that carried the promotion.
    LateNotKilled,
    /// A target that does not answer counts as a replica.
    SilenceMeansReplica,
    /// The undo forgets the fence.
    FenceNotLifted,
    /// Everybody forgets the pause.
    PauseNotLifted,
    /// The undo does not kill what was lost before it.
    RestoreUnsettled,
    /// The old offset is not read before the old master is attached.
    AttachedBlindly,
    /// The first record is not written.
    NoJournal,
    /// The retry timer is not armed.
    NoRetry,
}

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
    /// Preflight, pre-dial, journal.
    Desk,
    Others,
}

const LANES: [Lane; 5] = [
    Lane::Old,
    Lane::Target,
    Lane::Gate,
    Lane::Desk,
    Lane::Others,
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
    pub flights: [Flight; 5],
    pub late: u8,
    pub timers: u8,
    pub faults: u8,
    pub crashes: u8,
    pub aborts: u8,
    pub pops: u8,
    /// Writes acknowledged by the target as a master.
    pub own: u8,
    /// The old master was restarted.
    pub reborn: bool,
    /// It came back with an old config.
    pub stale: bool,
    /// Pops, a stale master's writes or a forced end may leave something behind.
    pub excused: bool,
    pub said: Option<(Outcome, u64, OldNow)>,
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
        let (plan, effects) = plan::begin(rules.terms());
        let mut world = World {
            plan: Some(plan),
            down: false,
            journal: Journal::Nothing,
            held: false,
            route: Master::Old,
            old: server(Role::Master),
            target: server(Role::Follows),
            link: true,
            flights: [const { Flight::None }; 5],
            late: 0,
            timers: 0,
            faults: rules.faults,
            crashes: rules.crashes,
            aborts: 1,
            pops: rules.pops,
            own: 0,
            reborn: false,
            stale: false,
            excused: rules.force,
            said: None,
        };
        world
            .perform(rules, effects)
            .expect("the first effect breaks no claim");
        world
    }

    pub fn flight(&self, lane: Lane) -> &Flight {
        &self.flights[lane as usize]
    }

    fn server(&self, lane: Lane) -> Option<&Server> {
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
        if self.down {
            out.push(Action::Start);
        } else {
            if self.aborts > 0 {
                out.push(Action::Abort);
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
            if rules.stale_restart && old.role != Role::Master {
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
                world.tell(rules, Event::Expired(timer))?;
            }
            Action::Abort => {
                world.aborts -= 1;
                world.tell(rules, Event::Abort)?;
            }
            Action::Crash => world.crash(),
            Action::Start => world.start(rules)?,
            other => world.happen(other),
        }
        claims::always(&world)?;
        if world.ended() {
            claims::at_the_end(&world)?;
        }
        Ok(world)
    }

    fn happen(&mut self, action: Action) {
        match action {
            Action::WriteOld => self.old.log += 1,
            Action::WriteTarget => self.own += 1,
            Action::Pop => {
                self.pops -= 1;
                self.old.log += 1;
                self.excused = true;
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
                self.excused = true;
            }
            _ => unreachable!("{action:?} is not the nodes' own"),
        }
    }

    fn take_flight(&mut self, lane: Lane) -> Flight {
        std::mem::replace(&mut self.flights[lane as usize], Flight::None)
    }

    fn lose(&mut self, rules: &Rules, lane: Lane) -> Result<(), String> {
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

    fn crash(&mut self) {
        self.crashes -= 1;
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
        self.flights = [const { Flight::None }; 5];
        self.timers = 0;
        self.held = false;
        self.route = Master::Nobody;
        self.said = None;
    }

    fn start(&mut self, rules: &Rules) -> Result<(), String> {
        self.down = false;
        if self.journal == Journal::Begun {
            let (plan, effects) = plan::recover(rules.terms(), rules.facts());
            self.plan = Some(plan);
            self.perform(rules, effects)?;
        }
        Ok(())
    }

    fn tell(&mut self, rules: &Rules, event: Event) -> Result<(), String> {
        let Some(plan) = &self.plan else {
            return Ok(());
        };
        let (plan, effects) = plan::step(plan, event);
        self.plan = Some(plan);
        self.perform(rules, effects)
    }

    /// What the executor does with the effects of one step.
    fn perform(&mut self, rules: &Rules, effects: Vec<Effect>) -> Result<(), String> {
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
                Effect::Hold => Lane::Gate,
                Effect::Preflight | Effect::Warm | Effect::Record(_) => Lane::Desk,
                Effect::Repoint => Lane::Others,
                Effect::ReadTarget | Effect::Promote | Effect::Settle(Node::Target) => Lane::Target,
                _ => Lane::Old,
            };
            if rules.flaw == Some(Flaw::ReleasedEarly) && effect == Effect::Promote {
                self.route = Master::Target;
                self.held = false;
            }
            claims::before(self, &effect)?;
            // A second record is written behind the first; only an abort asks for that.
            let flight = &mut self.flights[lane as usize];
            if *flight != Flight::None && lane != Lane::Desk {
                return Err(format!("{effect:?} asked while {flight:?} is under way"));
            }
            *flight = Flight::Sent(effect);
        }
        Ok(())
    }

    fn execute(&mut self, rules: &Rules, lane: Lane) -> Result<(), String> {
        let Flight::Sent(effect) = self.take_flight(lane) else {
            return Ok(());
        };
        let reply = self.carry_out(rules, effect)?;
        self.flights[lane as usize] = Flight::Executed(reply);
        Ok(())
    }

    fn carry_out(&mut self, rules: &Rules, effect: Effect) -> Result<Event, String> {
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
            Effect::Pause => {
                self.old.paused = true;
                Event::Paused
            }
            Effect::Fence => self.fence(rules),
            Effect::ReadOld { unpause, .. } => {
                self.unpause(rules, unpause);
                Event::OldRead {
                    offset: u64::from(self.old.log),
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
                let reborn = self.reborn && self.old.role == Role::Master;
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

    fn fence(&mut self, rules: &Rules) -> Event {
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

    fn execute_late(&mut self, rules: &Rules, late: Late) -> Result<(), String> {
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

fn bit(timer: Timer) -> u8 {
    1 << timer as u8
}

fn seen(server: &Server) -> Seen {
    match server.role {
        Role::Master => Seen::Master,
        Role::Fenced => Seen::Fenced,
        Role::Follows => Seen::Follows,
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
fn refusal(effect: &Effect) -> Option<Event> {
    Some(match effect {
        Effect::Preflight => Event::PreflightFailed(vec!["a requirement".into()]),
        Effect::Record(record) => Event::RecordFailed(*record),
        Effect::Warm => Event::WarmFailed,
        Effect::Pause => Event::PauseRefused,
        Effect::Fence => Event::FenceRefused,
        Effect::Promote => Event::PromotionRefused,
        Effect::Demote { .. } => Event::DemoteRefused,
        Effect::Repoint => Event::RepointFailed,
        _ => return None,
    })
}
