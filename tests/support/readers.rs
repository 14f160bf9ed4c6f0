//! Clients that read all the while and check every answer: alone and in pipelines, in RESP2 and
//! RESP3, as nobody in particular and as a user in another database.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::task::JoinHandle;

use super::{Proxy, SOON, Shard, Value, Wire, wait_until};

/// Keys that each of them reads.
const KEYS: usize = 16;
/// Requests in one write of those that pipeline.
const PIPELINE: usize = 32;
const USER: [&str; 3] = ["AUTH", "reader", "secret"];

#[derive(Debug, Clone, Copy)]
struct Kind {
    pipeline: usize,
    resp3: bool,
    /// A user, and database 1.
    user: bool,
}

const fn kind(pipeline: usize, resp3: bool, user: bool) -> Kind {
    Kind {
        pipeline,
        resp3,
        user,
    }
}

const KINDS: [Kind; 6] = [
    kind(1, false, false),
    kind(1, true, false),
    kind(1, true, true),
    kind(PIPELINE, false, false),
    kind(PIPELINE, true, false),
    kind(PIPELINE, false, true),
];

pub struct Readers {
    answered: Arc<[AtomicU64; KINDS.len()]>,
    errors: Arc<Mutex<Vec<String>>>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

/// What a key has in a database.
fn value(db: usize, key: usize) -> String {
    format!("value {key} of database {db}")
}

impl Readers {
    /// Gives every node the user, and the master what is read. Returns when all nodes have it.
    pub async fn prepare(shard: &Shard) {
        for node in 0..shard.addrs().len() {
            let user = "ACL SETUSER reader on >secret ~* +@all";
            assert!(shard.wire(node).await.run(user).await.unwrap().ok());
        }
        let mut wire = shard.wire(0).await;
        for db in [1, 0] {
            assert!(wire.run(&format!("SELECT {db}")).await.unwrap().ok());
            for key in 0..KEYS {
                let (name, value) = (format!("read{key}"), value(db, key));
                assert!(wire.call(&["SET", &name, &value]).await.unwrap().ok());
            }
        }
        shard.in_sync(&shard.addr(0)).await;
    }

    /// Returns when all of them read. Needs what [`Readers::prepare`] prepares.
    pub async fn start(proxy: &Proxy) -> Readers {
        let readers = Readers {
            answered: Arc::default(),
            errors: Arc::default(),
            stop: Arc::default(),
            tasks: Vec::new(),
        };
        let begin = |(at, kind): (usize, Kind)| {
            let (addr, stop) = (proxy.addr.clone(), readers.stop.clone());
            let (answered, errors) = (readers.answered.clone(), readers.errors.clone());
            tokio::spawn(async move {
                if let Err(error) = read(&addr, kind, &answered[at], &stop).await {
                    errors.lock().unwrap().push(format!("{kind:?}: {error}"));
                }
            })
        };
        let tasks = KINDS.into_iter().enumerate().map(begin).collect();
        let readers = Readers { tasks, ..readers };
        readers.go_on().await;
        readers
    }

    fn counts(&self) -> [u64; KINDS.len()] {
        std::array::from_fn(|at| self.answered[at].load(SeqCst))
    }

    /// Returns when each of them has been answered many times more.
    pub async fn go_on(&self) {
        self.more(100).await;
    }

    /// Returns when each of them has been answered so many times more.
    pub async fn more(&self, count: u64) {
        let before = self.counts();
        wait_until("reads go on", async || {
            let errors = self.errors.lock().unwrap().clone();
            assert!(errors.is_empty(), "{errors:#?}");
            let mut both = before.iter().zip(self.counts());
            both.all(|(before, now)| now > before + count)
        })
        .await;
    }

    /// Returns when nobody is answered any more: each of them has a request under way.
    pub async fn are_stuck(&self) {
        let mut before = [0; KINDS.len()];
        wait_until("nothing is answered", async || {
            // Long for clients that pause for a millisecond.
            tokio::time::sleep(Duration::from_millis(50)).await;
            std::mem::replace(&mut before, self.counts()) == self.counts()
        })
        .await;
    }

    /// Ends them; none has seen anything but the right answers.
    pub async fn finish(self) {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let errors = self.errors.lock().unwrap().clone();
        assert!(errors.is_empty(), "{errors:#?}");
    }
}

async fn read(
    addr: &str,
    kind: Kind,
    answered: &AtomicU64,
    stop: &AtomicBool,
) -> Result<(), String> {
    let text = |error: super::WireError| error.to_string();
    let mut wire = Wire::connect(addr).await.map_err(text)?.with_deadline(SOON);
    if kind.resp3 {
        wire.run("HELLO 3").await.map_err(text)?;
    }
    if kind.user {
        wire.call(&USER).await.map_err(text)?;
        wire.run("SELECT 1").await.map_err(text)?;
    }
    let db = usize::from(kind.user);
    let mut key = 0;
    while !stop.load(SeqCst) {
        let first = key;
        for _ in 0..kind.pipeline {
            wire.send(&["GET", &format!("read{}", key % KEYS)])
                .await
                .map_err(text)?;
            key += 1;
        }
        for key in first..key {
            let answer = wire.reply().await.map_err(text)?;
            if answer != Value::bulk(value(db, key % KEYS)) {
                return Err(format!("read{}: {answer:?}", key % KEYS));
            }
            answered.fetch_add(1, SeqCst);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    Ok(())
}
