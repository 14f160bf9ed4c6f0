//! A [`Control`] that does what a test says, served on a loopback port like the real one.
//!
//! Not every test file uses all of it.
#![allow(dead_code)]

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use metrics_exporter_prometheus::PrometheusBuilder;
use pointsman::admin;
use pointsman::switchover::report::{Outcome, Phase, ReplicaResync, Report, Resync};
use pointsman::switchover::view::{
    AbortAnswer, BoxFuture, Control, NodeRole, NodeStatus, OperationState, OperationView,
    ShardStatus, StartError,
};
use tokio_util::sync::CancellationToken;

pub const ID: &str = "20261122T064455Z-3f2a";
pub const A: &str = "127.0.0.1:7001";
pub const B: &str = "127.0.0.1:7002";
const DEADLINE: Duration = Duration::from_secs(10);

/// What the test decides.
pub struct Script {
    /// `None`: the shard has no master.
    pub master: Option<String>,
    /// What is said to an order.
    pub start: Result<(), StartError>,
    /// What is said to an abort of [`ID`]; `Aborting` also ends the operation as rolled back.
    pub abort: AbortAnswer,
    /// Set: operations end at once like this. Not set: they run until the test sets it.
    pub outcome: Option<Outcome>,
    /// Orders that arrived: shard, target, dry run.
    pub orders: Vec<(String, String, bool)>,
}

impl Default for Script {
    fn default() -> Self {
        Script {
            master: Some(A.to_owned()),
            start: Ok(()),
            abort: AbortAnswer::Aborting,
            outcome: Some(Outcome::Switched),
            orders: Vec::new(),
        }
    }
}

#[derive(Default)]
pub struct Scripted {
    script: Mutex<Script>,
    changed: Condvar,
    ended: tokio::sync::Notify,
}

impl Scripted {
    pub fn change(&self, change: impl FnOnce(&mut Script)) {
        change(&mut self.script.lock().unwrap());
        self.changed.notify_all();
        self.ended.notify_waiters();
    }

    pub fn orders(&self) -> Vec<(String, String, bool)> {
        self.script.lock().unwrap().orders.clone()
    }

    /// Returns when an order has arrived.
    pub fn wait_for_an_order(&self) {
        let script = self.script.lock().unwrap();
        let none_yet = |script: &mut Script| script.orders.is_empty();
        let (_script, waited) = self
            .changed
            .wait_timeout_while(script, DEADLINE, none_yet)
            .unwrap();
        assert!(!waited.timed_out(), "no order has arrived");
    }

    fn report(&self) -> Option<Report> {
        let script = self.script.lock().unwrap();
        let outcome = script.outcome?;
        let reason = "the target is 5000 behind".to_owned();
        Some(Report {
            id: ID.to_owned(),
            shard: "main".to_owned(),
            outcome,
            from: A.to_owned(),
            to: B.to_owned(),
            reasons: if outcome.is_switched() {
                Vec::new()
            } else {
                vec![reason]
            },
            started_at_ms: 1_795_330_000_000,
            total_ms: 12.5,
            hold_ms: 3.25,
            longest_hold_ms: 3.125,
            writes_held: 14,
            writes_not_carried: if outcome == Outcome::SwitchedWithLeak {
                7
            } else {
                0
            },
            phases: phases(),
            replicas: vec![ReplicaResync {
                node: A.to_owned(),
                resync: Resync::Partial,
            }],
            sentinels_untold: Vec::new(),
            proxies: None,
            dry_run: script.orders.last().is_some_and(|(_, _, dry_run)| *dry_run),
        })
    }
}

fn phases() -> Vec<Phase> {
    let phase = |name: &str, ms| Phase {
        name: name.to_owned(),
        ms,
    };
    vec![
        phase("preflight", 4.5),
        phase("hold", 0.75),
        phase("fence", 0.5),
    ]
}

impl Control for Scripted {
    fn names(&self) -> Vec<String> {
        vec!["main".to_owned()]
    }

    fn status(&self, shard: &str) -> Option<ShardStatus> {
        let script = self.script.lock().unwrap();
        let node = |node: &str, role, error: Option<&str>| NodeStatus {
            node: node.to_owned(),
            role,
            link: (role == NodeRole::Replica).then(|| "up".to_owned()),
            offset: Some(123_456),
            lag_bytes: (role == NodeRole::Replica).then_some(0),
            seen_ms_ago: Some(12),
            error: error.map(str::to_owned),
        };
        let running = script.outcome.is_none() && !script.orders.is_empty();
        (shard == "main").then(|| ShardStatus {
            name: "main".to_owned(),
            listen: "127.0.0.1:6380".to_owned(),
            engine: Some("redis".to_owned()),
            version: Some("7.0.15".to_owned()),
            epoch: 3,
            master: script.master.clone(),
            gate: "open".to_owned(),
            sessions: 2,
            operation: running.then(|| ID.to_owned()),
            nodes: vec![
                node(A, NodeRole::Master, None),
                node(B, NodeRole::Replica, None),
            ],
        })
    }

    fn switchover(
        &self,
        shard: String,
        to: String,
        dry_run: bool,
    ) -> BoxFuture<'_, Result<String, StartError>> {
        Box::pin(async move {
            let start = self.script.lock().unwrap().start.clone();
            self.change(|script| script.orders.push((shard, to, dry_run)));
            start.map(|()| ID.to_owned())
        })
    }

    fn operation(&self, id: &str) -> Option<OperationView> {
        if id != ID || self.orders().is_empty() {
            return None;
        }
        let report = self.report();
        Some(OperationView {
            id: ID.to_owned(),
            shard: "main".to_owned(),
            from: A.to_owned(),
            to: B.to_owned(),
            state: if report.is_some() {
                OperationState::Ended
            } else {
                OperationState::Running
            },
            phase: "fence".to_owned(),
            phases: phases(),
            report,
        })
    }

    fn wait(&self, id: String) -> BoxFuture<'_, Option<Report>> {
        Box::pin(async move {
            loop {
                let ended = self.ended.notified();
                if id != ID {
                    return None;
                }
                if let Some(report) = self.report() {
                    return Some(report);
                }
                ended.await;
            }
        })
    }

    fn abort(&self, id: &str) -> AbortAnswer {
        if id != ID {
            return AbortAnswer::Unknown;
        }
        let answer = self.script.lock().unwrap().abort;
        if answer == AbortAnswer::Aborting {
            self.change(|script| script.outcome = Some(Outcome::RolledBack));
        }
        answer
    }
}

/// The admin interface over a [`Scripted`] control, in a thread of its own until dropped.
pub struct Served {
    pub control: Arc<Scripted>,
    pub address: SocketAddr,
    shutdown: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Served {
    pub fn start() -> Self {
        let control = Arc::new(Scripted::default());
        let shutdown = CancellationToken::new();
        let metrics = PrometheusBuilder::new().build_recorder().handle();
        let router = admin::router(control.clone(), metrics);
        let (told, learn) = std::sync::mpsc::channel();
        let ended = shutdown.clone();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
                told.send(listener.local_addr().unwrap()).unwrap();
                admin::serve(listener, router, ended).await;
            });
        });
        let address = learn
            .recv_timeout(DEADLINE)
            .expect("the admin interface listens");
        Served {
            control,
            address,
            shutdown,
            thread: Some(thread),
        }
    }

    /// Sends bytes as they are and returns the status and the whole answer behind the head.
    pub fn send(&self, request: &str) -> (u16, String) {
        let (status, answer) = self.send_for_head(request);
        let body = answer
            .split_once("\r\n\r\n")
            .map(|(_, body)| body.to_owned());
        (status, body.unwrap_or_default())
    }

    /// As [`Served::send`], with the head.
    pub fn send_for_head(&self, request: &str) -> (u16, String) {
        let started = Instant::now();
        let mut stream = TcpStream::connect(self.address).expect("the admin interface listens");
        stream.set_read_timeout(Some(DEADLINE)).unwrap();
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        // A server that refuses a body early may reset the connection behind its answer.
        let _ = stream.read_to_string(&mut answer);
        assert!(
            started.elapsed() < DEADLINE,
            "no end of the answer: {answer}"
        );
        let status = answer
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        (
            status.unwrap_or_else(|| panic!("no status in {answer:?}")),
            answer,
        )
    }

    pub fn get(&self, path: &str) -> (u16, String) {
        self.send(&format!(
            "GET {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ))
    }

    pub fn delete(&self, path: &str) -> (u16, String) {
        self.send(&format!(
            "DELETE {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        ))
    }

    pub fn post(&self, path: &str, body: &str) -> (u16, String) {
        self.post_with(path, "content-type: application/json", body)
    }

    pub fn post_with(&self, path: &str, headers: &str, body: &str) -> (u16, String) {
        let length = body.len();
        self.send(&format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n\
             content-length: {length}\r\n\r\n{body}"
        ))
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.shutdown.cancel();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
