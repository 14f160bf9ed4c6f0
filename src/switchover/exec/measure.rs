//! What an operation took, and what the rest of the proxy sees of it while it runs.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::time::Instant;

use crate::switchover::exec::HoldStats;
use crate::switchover::plan::Alarm;
use crate::switchover::report::{Outcome, Phase, Report};
use crate::switchover::view::{OperationState, OperationView};

/// Phases of one operation that are kept; a recovery that retries for hours adds no more.
const PHASES_MAX: usize = 64;

/// The stop-watches of one operation.
#[derive(Debug)]
pub struct Measured {
    started: Instant,
    started_at_ms: u64,
    phase_began: Instant,
    phases: Vec<Phase>,
    held_since: Option<Instant>,
    released: bool,
    hold_ms: f64,
    stats: HoldStats,
    last_alarm: Option<Alarm>,
}

impl Measured {
    pub fn start() -> Measured {
        let now = Instant::now();
        Measured {
            started: now,
            started_at_ms: unix_ms(),
            phase_began: now,
            phases: Vec::new(),
            held_since: None,
            released: true,
            hold_ms: 0.0,
            stats: HoldStats::default(),
            last_alarm: None,
        }
    }

    pub fn started_at_ms(&self) -> u64 {
        self.started_at_ms
    }

    /// The phase of that name has just ended.
    pub fn phase(&mut self, name: &str) {
        let now = Instant::now();
        let ms = ms(now.duration_since(self.phase_began));
        self.phase_began = now;
        if self.phases.len() < PHASES_MAX {
            self.phases.push(Phase {
                name: name.to_owned(),
                ms,
            });
        }
    }

    pub fn phases(&self) -> &[Phase] {
        &self.phases
    }

    pub fn holding(&mut self) {
        self.held_since = Some(Instant::now());
        self.released = false;
    }

    /// Every worker has released. That is heard later than it happens.
    pub fn released(&mut self, stats: HoldStats) {
        if let Some(since) = self.held_since.take() {
            let until = stats
                .released_at
                .map_or_else(Instant::now, Instant::from_std);
            self.hold_ms = ms(until.duration_since(since));
            self.stats = stats;
        }
        self.released = true;
    }

    pub fn is_released(&self) -> bool {
        self.released
    }

    pub fn is_news(&mut self, alarm: Alarm) -> bool {
        self.last_alarm.replace(alarm) != Some(alarm)
    }

    pub fn report(&self, outcome: Outcome, reasons: Vec<String>) -> Report {
        Report {
            id: String::new(),
            shard: String::new(),
            outcome,
            from: String::new(),
            to: String::new(),
            reasons,
            started_at_ms: self.started_at_ms,
            total_ms: ms(self.started.elapsed()),
            hold_ms: self.hold_ms,
            longest_hold_ms: ms(self.stats.longest_hold),
            writes_held: self.stats.writes_held,
            writes_not_carried: 0,
            phases: self.phases.clone(),
            replicas: Vec::new(),
            sentinels_untold: Vec::new(),
            proxies: None,
            dry_run: false,
        }
    }
}

pub fn ms(duration: std::time::Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

pub fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// What an operation is at, for those who want to stop it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Going {
    /// It can be undone.
    Abortable,
    /// The promotion has been sent, and the report is not out.
    Forward,
    /// It waits for nodes behind its report, or after a crash. It can be left where it stands.
    Background,
    Over,
}

/// One operation as it shows outside. Written by the executor, read by everybody.
#[derive(Debug)]
pub struct Progress {
    view: Mutex<(OperationView, Going)>,
    report: watch::Sender<Option<Report>>,
}

impl Progress {
    pub fn new(id: &str, shard: &str, from: &str, to: &str) -> Progress {
        let view = OperationView {
            id: id.to_owned(),
            shard: shard.to_owned(),
            from: from.to_owned(),
            to: to.to_owned(),
            state: OperationState::Running,
            phase: "preflight".to_owned(),
            phases: Vec::new(),
            report: None,
        };
        Progress {
            view: Mutex::new((view, Going::Abortable)),
            report: watch::Sender::new(None),
        }
    }

    fn lock(&self) -> MutexGuard<'_, (OperationView, Going)> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn view(&self) -> OperationView {
        self.lock().0.clone()
    }

    pub fn going(&self) -> Going {
        self.lock().1
    }

    pub fn is_reported(&self) -> bool {
        self.report.borrow().is_some()
    }

    pub fn entered(&self, phase: &str, phases: &[Phase], going: Going) {
        let mut view = self.lock();
        view.0.phase = phase.to_owned();
        view.0.phases = phases.to_vec();
        view.1 = going;
    }

    /// The proxy stops; nothing was begun.
    pub fn came_too_late(&self) {
        self.refused("the proxy is stopping".to_owned());
    }

    /// Nothing was begun, for this reason.
    pub fn refused(&self, why: String) {
        let mut report = Measured::start().report(Outcome::Refused, vec![why]);
        let view = self.view();
        (report.id, report.shard) = (view.id, view.shard);
        (report.from, report.to) = (view.from, view.to);
        self.reported(report, Going::Over);
    }

    pub fn reported(&self, report: Report, going: Going) {
        let mut view = self.lock();
        view.0.state = OperationState::Ended;
        view.0.phases = report.phases.clone();
        view.0.report = Some(report.clone());
        view.1 = going;
        drop(view);
        self.report.send_replace(Some(report));
    }

    /// The first report; later ones replace it in the view only.
    pub async fn wait(&self) -> Option<Report> {
        let mut changes = self.report.subscribe();
        let report = changes.wait_for(Option::is_some).await.ok()?;
        report.clone()
    }
}
