//! Runs the plan: performs its effects, measures, and feeds back what came of them.
//!
//! Owns the connections, timers and measurements of one operation. It decides nothing: which effect
//! comes next is the plan's business alone.
//!
//! **Invariant:** per node at most one effect is under way, and its connection is with that effect
//! meanwhile; what is *at once* in the plan has happened before the next effect is looked at.
//! Between hold and release nothing is dialled, logged or written to disk.
//!
//! Trade-off: effects on the two nodes are futures polled by this one task, not tasks of their own.
//! A wake-up of another thread would cost more than the fence itself (tens of microseconds against
//! 250).

pub mod ask;
mod ending;
pub mod follow;
mod hands;
pub mod measure;
mod others;
mod perform;
pub mod site;

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, sleep_until};

use crate::config::{SilentProxies, SwitchoverConfig};
use crate::switchover::attach::{judge_resyncs, sync_counters};
use crate::switchover::claim::Claim;
use crate::switchover::exec::ask::{Claims, Desk, Done};
use crate::switchover::exec::follow::{Demotion, Other, await_links};
use crate::switchover::exec::measure::{Going, Measured, Progress};
use crate::switchover::exec::others::Bystanders;
pub use crate::switchover::exec::site::{Gates, HoldStats, Opening, Routes, Site};
use crate::switchover::journal::Begin;
use crate::switchover::orders::{Orders, SinkAddress};
use crate::switchover::peers::Census;
use crate::switchover::plan::{
    self, Alarm, Effect, Event, Facts, Master, Node, OldNow, Reason, Record, Silence, State, Terms,
    Timer, Verdict,
};
use crate::switchover::preflight::{Passed, Question, preflight};
use crate::switchover::report::{Outcome, ReplicaResync, Resync};
use crate::switchover::sink::Sink;
use crate::switchover::telling::Telling;
use crate::topology::engine::{Abilities, Engine};
use crate::topology::facts::Life;
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, NodeName};

/// What to do.
#[derive(Clone, Debug)]
pub enum Task {
    Switch {
        from: NodeName,
        to: NodeName,
        /// Instead of the configured one.
        sync_timeout: Option<Duration>,
    },
    DryRun {
        from: NodeName,
        to: NodeName,
    },
    /// The old master is out of reach.
    TakeOver(Box<Begin>),
    /// An operation that the journal knows the beginning of only.
    Recover(Box<Begin>),
}

impl Task {
    /// The old master and the target.
    pub fn nodes(&self) -> (NodeName, NodeName) {
        match self {
            Task::Switch { from, to, .. } | Task::DryRun { from, to } => (from.clone(), to.clone()),
            Task::TakeOver(begin) | Task::Recover(begin) => {
                (begin.from.as_str().into(), begin.to.as_str().into())
            }
        }
    }
}

/// What a running operation can be told.
#[derive(Clone, Debug)]
pub enum Word {
    /// Undo it, if it can still be undone.
    Abort,
    /// What is left to do is not its business any more.
    Leave(Reason),
    /// Another proxy has begun to hold, for this operation.
    Outrun(String),
}

type Pending<T> = Option<Pin<Box<dyn Future<Output = T> + Send>>>;

/// What effects that are not about one of the two nodes come to.
enum Side {
    Preflight(Result<Box<Passed>, Vec<String>>),
    Recorded(Record, Result<(), String>),
    Warmed(Result<Bystanders, String>),
    /// With the number of the hold: one that was taken back says nothing any more.
    Drained(u64, Result<(), String>),
    Repointed(Box<Followers>),
    Released(HoldStats),
    /// What came of asking the other proxies.
    Peers(Event),
}

/// Those who are to know the new master, apart from the old one.
struct Followers {
    others: Vec<Other>,
    telling: Telling,
    /// Why one of them does not know it yet.
    failed: Vec<String>,
}

/// One end of the operation: its connection is here, or with the effect under way.
#[derive(Default)]
struct Bench {
    at_hand: Option<Connection>,
    under_way: Pending<Done>,
    answered_at: Option<Instant>,
}

/// A hold that has been ordered and not released.
struct Hold {
    number: u64,
    task: AbortHandle,
    /// Closed when the task sends no further order to any gate.
    held: oneshot::Receiver<()>,
}

/// One operation being performed.
pub struct Exec<G, R> {
    site: Arc<Site<G, R>>,
    id: String,
    from: NodeName,
    to: NodeName,
    /// Nobody waits for it with writes held: it takes over, or recovers.
    unattended: bool,
    state: State,
    queue: VecDeque<Effect>,
    desk: Option<Desk>,
    replica_read_only: String,
    facts: Option<Facts>,
    old_life: Option<Life>,
    sink: Option<Sink>,
    /// Keeps other proxies from changing the master at the same time, until the report.
    claim: Claim,
    old: Bench,
    target: Bench,
    others: Vec<Other>,
    full_syncs: u64,
    /// What the Sentinels have not been told yet.
    telling: Telling,
    side: JoinSet<Side>,
    /// Looks and dials; of no use once the operation is over.
    preparing: Option<AbortHandle>,
    hold: Option<Hold>,
    holds: u64,
    /// The other proxies, as they were right before the hold.
    bystanders: Bystanders,
    /// They are being asked.
    asking: Option<AbortHandle>,
    gate: Opening,
    master: Master,
    timers: [Option<Instant>; 5],
    retry_after: Duration,
    sync_timeout: Duration,
    measured: Measured,
    words: Vec<String>,
    progress: Arc<Progress>,
}

/// Deadline of the promotion: 10 s are needed on Kvrocks when the target's link is broken.
const PROMOTE_WITHIN: Duration = Duration::from_secs(12);
/// Deadline of leaving a fence: 1 s on Kvrocks when the sink has gone.
const UNDO_WITHIN: Duration = Duration::from_secs(3);
/// How long followers are watched before the report says `pending`.
const LINKS_WITHIN: Duration = Duration::from_secs(2);
/// Sayings of servers that are kept for one report.
const WORDS_MAX: usize = 16;
const RETRY_FIRST: Duration = Duration::from_millis(50);
const RETRY_MAX: Duration = Duration::from_secs(1);

impl<G: Gates, R: Routes> Exec<G, R> {
    /// Runs a switchover, or the recovery of one, to its very end. Reports reach `progress` as soon
    /// as they exist; work may go on in the background after the first.
    pub async fn run(
        site: Arc<Site<G, R>>,
        id: String,
        task: Task,
        progress: Arc<Progress>,
        words: mpsc::Receiver<Word>,
    ) {
        let mut exec = Exec::new(site, id, &task, progress);
        if matches!(task, Task::DryRun { .. }) {
            return exec.dry_run().await;
        }
        exec.progress
            .entered(plan::phase(&exec.state), &[], exec.going());
        if let Task::TakeOver(begin) | Task::Recover(begin) = &task {
            exec.prepare_recovery(begin).await;
        }
        exec.drive(words).await;
    }

    /// Everything as it is before the first effect.
    fn new(site: Arc<Site<G, R>>, id: String, task: &Task, progress: Arc<Progress>) -> Self {
        let terms = Terms {
            force_on_timeout: site.switchover().force_on_timeout,
            silent_proxies: silence(&site.switchover()),
        };
        let sync_timeout_configured = site.switchover().sync_timeout;
        let (from, to) = task.nodes();
        let is_new = matches!(task, Task::Switch { .. } | Task::DryRun { .. });
        let sync_timeout = match task {
            Task::Switch { sync_timeout, .. } => *sync_timeout,
            Task::DryRun { .. } | Task::TakeOver(_) | Task::Recover(_) => None,
        };
        let (state, effects) = match task {
            Task::TakeOver(begin) => plan::take_over(begin.facts),
            Task::Recover(begin) => plan::recover(begin.terms, begin.facts),
            Task::Switch { .. } | Task::DryRun { .. } => plan::begin(terms),
        };
        let (gate, master) = match is_new {
            true => (Opening::Open, Master::Old),
            false => (Opening::Shut, Master::Nobody),
        };
        Exec {
            site,
            id,
            from,
            to,
            unattended: !is_new,
            state,
            queue: effects.into(),
            desk: None,
            replica_read_only: String::new(),
            facts: None,
            old_life: None,
            sink: None,
            claim: Claim::default(),
            old: Bench::default(),
            target: Bench::default(),
            others: Vec::new(),
            full_syncs: 0,
            telling: Telling::default(),
            side: JoinSet::new(),
            preparing: None,
            hold: None,
            holds: 0,
            bystanders: Bystanders::default(),
            asking: None,
            gate,
            master,
            timers: [None; 5],
            retry_after: RETRY_FIRST,
            sync_timeout: sync_timeout.unwrap_or(sync_timeout_configured),
            measured: Measured::start(),
            words: Vec::new(),
            progress,
        }
    }

    async fn drive(&mut self, mut words: mpsc::Receiver<Word>) {
        loop {
            while let Some(effect) = self.queue.pop_front() {
                self.perform(effect).await;
            }
            if plan::is_over(&self.state) {
                break;
            }
            let event = self.next_event(&mut words).await;
            if let Some(event) = event {
                self.step(event);
            }
        }
        if let Some(preparing) = self.preparing.take() {
            preparing.abort();
        }
        while self.side.join_next().await.is_some() {}
    }

    fn step(&mut self, event: Event) {
        let before = plan::phase(&self.state);
        let (state, effects) = plan::step(&self.state, event);
        self.state = state;
        self.queue.extend(effects);
        let now = plan::phase(&self.state);
        if before != now {
            self.retry_after = RETRY_FIRST;
            self.measured.phase(before);
            self.progress
                .entered(now, self.measured.phases(), self.going());
        }
    }

    fn going(&self) -> Going {
        if plan::is_over(&self.state) {
            Going::Over
        } else if self.unattended || self.progress.is_reported() {
            Going::Background
        } else if plan::can_abort(&self.state) {
            Going::Abortable
        } else {
            Going::Forward
        }
    }

    /// The next thing that happened, or `None` when it was nothing that the plan asked for.
    async fn next_event(&mut self, words: &mut mpsc::Receiver<Word>) -> Option<Event> {
        let expiry = self.timers.iter().flatten().min().copied();
        // All arms are cancel-safe: futures under way stay where they are, `join_next` and `recv`
        // are by their documentation.
        tokio::select! {
            biased;
            done = due(&mut self.old.under_way) => Some(self.answered(Node::Old, done)),
            done = due(&mut self.target.under_way) => Some(self.answered(Node::Target, done)),
            Some(side) = self.side.join_next() => self.side_event(side.ok()?),
            () = sleep_until(expiry.unwrap_or_else(Instant::now)), if expiry.is_some() => {
                self.expired(Instant::now())
            }
            Some(word) = words.recv() => Some(match word {
                Word::Abort => Event::Abort,
                Word::Leave(why) => Event::Leave(why),
                Word::Outrun(by) => Event::Outrun(by),
            }),
        }
    }

    fn answered(&mut self, node: Node, done: Done) -> Event {
        self.note(done.words);
        if let (
            Event::TargetRead {
                seen: plan::Seen::Follows,
                offset,
                ..
            },
            Some(desk),
        ) = (&done.event, self.desk.as_mut())
        {
            desk.target_holds = desk.target_holds.max(*offset);
        }
        let bench = self.bench(node);
        bench.at_hand = done.connection;
        bench.answered_at = Some(Instant::now());
        done.event
    }

    /// Keeps the servers' own words for the report. What is repeated for hours is kept once.
    fn note(&mut self, words: impl IntoIterator<Item = String>) {
        for words in words {
            if self.words.len() < WORDS_MAX && !self.words.contains(&words) {
                self.words.push(words);
            }
        }
    }

    fn bench(&mut self, node: Node) -> &mut Bench {
        match node {
            Node::Old => &mut self.old,
            Node::Target => &mut self.target,
        }
    }

    fn side_event(&mut self, side: Side) -> Option<Event> {
        match side {
            Side::Preflight(Ok(passed)) => Some(self.passed(*passed)),
            Side::Preflight(Err(failings)) => Some(Event::PreflightFailed(failings)),
            Side::Recorded(record, Ok(())) => Some(Event::Recorded(record)),
            Side::Recorded(record, Err(words)) => {
                self.note([words]);
                Some(Event::RecordFailed(record))
            }
            Side::Warmed(Ok(bystanders)) => {
                self.bystanders = bystanders;
                Some(Event::Warmed)
            }
            Side::Warmed(Err(words)) => {
                self.note([words]);
                Some(Event::WarmFailed)
            }
            Side::Drained(hold, result) => {
                if self.hold.as_ref().map(|hold| hold.number) != Some(hold) {
                    return None;
                }
                match result {
                    Ok(()) => Some(Event::Drained),
                    Err(words) => {
                        self.note([words]);
                        Some(Event::Expired(Timer::Drain))
                    }
                }
            }
            Side::Repointed(followers) => {
                let Followers {
                    others,
                    telling,
                    failed,
                } = *followers;
                (self.others, self.telling) = (others, telling);
                let event = if failed.is_empty() {
                    Event::Repointed
                } else {
                    Event::RepointFailed
                };
                self.note(failed);
                Some(event)
            }
            Side::Released(stats) => {
                self.measured.released(stats);
                None
            }
            Side::Peers(event) => Some(event),
        }
    }

    fn expired(&mut self, now: Instant) -> Option<Event> {
        for (timer, at) in TIMERS.into_iter().zip(&mut self.timers) {
            if at.is_some_and(|at| at <= now) {
                *at = None;
                return Some(Event::Expired(timer));
            }
        }
        None
    }
}

const TIMERS: [Timer; 5] = [
    Timer::Drain,
    Timer::Sync,
    Timer::Hold,
    Timer::Demote,
    Timer::Retry,
];

fn index(timer: Timer) -> usize {
    TIMERS
        .iter()
        .position(|one| *one == timer)
        .unwrap_or_default()
}

/// What an operation does about other proxies that do not answer.
fn silence(settings: &SwitchoverConfig) -> Silence {
    match settings.silent_proxies {
        SilentProxies::Abort => Silence::Abort,
        SilentProxies::Report => Silence::Report,
    }
}

/// The outcome of what is under way; waits for ever when nothing is.
async fn due<T>(under_way: &mut Pending<T>) -> T {
    match under_way {
        Some(future) => {
            let done = future.await;
            *under_way = None;
            done
        }
        None => std::future::pending().await,
    }
}
