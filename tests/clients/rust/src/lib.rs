//! Talks to the driver (`tests/clients/driver.rs`) and keeps count of what each activity does.

use std::collections::BTreeMap;
use std::fmt::{Debug, Display};
use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;

const PATIENCE: Duration = Duration::from_secs(60);
/// What each activity has to do between two switchovers.
const STEPS: u64 = 5;
const TEXTS_MAX: usize = 20;

#[derive(Default)]
struct Seen {
    counts: BTreeMap<&'static str, u64>,
    errors: Vec<String>,
    wrongs: Vec<String>,
}

#[derive(Clone, Default)]
pub struct Run {
    seen: Arc<Mutex<Seen>>,
    stopping: Arc<AtomicBool>,
    changed: Arc<Notify>,
}

impl Run {
    pub fn going(&self) -> bool {
        !self.stopping.load(Relaxed)
    }

    pub fn did(&self, name: &'static str) {
        *self.seen.lock().unwrap().counts.entry(name).or_default() += 1;
        self.changed.notify_waiters();
    }

    pub fn expect<T: PartialEq + Debug>(&self, what: &str, found: T, expected: T) {
        if found != expected {
            let text = format!("{what}: {found:.200?} instead of {expected:.200?}");
            let mut seen = self.seen.lock().unwrap();
            if seen.wrongs.len() < TEXTS_MAX {
                seen.wrongs.push(text.chars().take(600).collect());
            }
        }
    }

    /// Messages, elements: shows where the two begin to differ.
    pub fn expect_sequence(&self, what: &str, found: &[i64], expected: &[i64]) {
        let same = found
            .iter()
            .zip(expected)
            .take_while(|(one, other)| one == other)
            .count();
        let from = |all: &[i64]| all.iter().skip(same).take(10).copied().collect::<Vec<_>>();
        self.expect(
            &format!("{what}, after the first {same}"),
            from(found),
            from(expected),
        );
    }

    pub fn error(&self, name: &str, error: impl Display) {
        eprintln!("{name}: {error}");
        self.seen
            .lock()
            .unwrap()
            .errors
            .push(format!("{name}: {error}"));
        self.changed.notify_waiters();
    }

    fn failed(&self) -> bool {
        !self.seen.lock().unwrap().errors.is_empty()
    }

    /// Waits for a condition that other activities bring about, or for a while.
    pub async fn until(&self, condition: impl Fn() -> bool) {
        let wait = async {
            while !condition() && !self.failed() {
                let _ = timeout(Duration::from_millis(20), self.changed.notified()).await;
            }
        };
        let _ = timeout(PATIENCE, wait).await;
    }

    async fn each_goes_on(&self) {
        let before = self.seen.lock().unwrap().counts.clone();
        let still = || {
            let seen = self.seen.lock().unwrap();
            let slow = seen
                .counts
                .iter()
                .filter(|(name, count)| **count < before[*name] + STEPS);
            slow.map(|(name, _)| *name).collect::<Vec<_>>()
        };
        // An activity that has failed is over; the summary says why.
        self.until(|| still().is_empty()).await;
        if !still().is_empty() && !self.failed() {
            self.error("nothing more from", format!("{:?}", still()));
        }
    }

    /// Answers the driver until it says stop, then waits for the activities and sums up.
    pub async fn live(self, activities: Activities) {
        self.each_goes_on().await;
        println!("ready");
        let mut lines = BufReader::new(stdin()).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if line == "stop" {
                self.stopping.store(true, Relaxed);
                if timeout(PATIENCE, activities.0.join_all()).await.is_err() {
                    self.error("an activity", "did not end");
                }
                let seen = self.seen.lock().unwrap();
                let (done, errors, wrong) = (&seen.counts, &seen.errors, &seen.wrongs);
                let json = serde_json::json!({ "done": done, "errors": errors, "wrong": wrong });
                println!("{json}");
                // What still waits for messages ends with the process.
                std::process::exit(0);
            }
            self.each_goes_on().await;
            println!("marked");
        }
    }
}

#[derive(Default)]
pub struct Activities(JoinSet<()>);

impl Activities {
    /// What `activity` returns as an error is an error of the library.
    pub fn begin<E: Display + 'static>(
        &mut self,
        run: &Run,
        name: &'static str,
        activity: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        run.seen.lock().unwrap().counts.insert(name, 0);
        let run = run.clone();
        self.0.spawn(async move {
            if let Err(error) = activity.await {
                run.error(name, error);
            }
        });
    }
}

/// Host, port and engine, as the driver names them.
pub fn arguments() -> (String, u16, String) {
    let mut words = std::env::args().skip(1);
    let mut next = || words.next().expect("host, port and engine");
    (next(), next().parse().expect("a port"), next())
}
