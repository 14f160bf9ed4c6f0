//! Clients that write all the while, and come back when their connection is closed.

#![allow(dead_code)] // Each test program uses a part of this.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;

use crate::support::*;

/// How many they are.
pub const WRITERS: usize = 8;

/// What all of them have seen.
#[derive(Debug, Default)]
struct Seen {
    acked: AtomicU64,
    /// Connections that were closed while a write was under way.
    closed: AtomicU64,
    errors: std::sync::Mutex<Vec<String>>,
    slowest_ms: AtomicU64,
}

pub struct Writers {
    seen: Arc<Seen>,
    stop: Arc<AtomicBool>,
    tasks: Vec<JoinHandle<()>>,
}

impl Writers {
    /// Returns when all of them write.
    pub async fn start(proxy: &Proxy) -> Writers {
        let (seen, stop): (Arc<Seen>, Arc<AtomicBool>) = Default::default();
        let begin = |at: usize| {
            let (seen, stop, addr) = (seen.clone(), stop.clone(), proxy.addr.clone());
            tokio::spawn(write(at, addr, seen, stop))
        };
        let tasks = (0..WRITERS).map(begin).collect();
        let writers = Writers { seen, stop, tasks };
        writers.go_on().await;
        writers
    }

    /// Returns when many writes more have been acknowledged.
    pub async fn go_on(&self) {
        let before = self.seen.acked.load(SeqCst);
        wait_until("writes go on", async || {
            self.seen.acked.load(SeqCst) > before + 50 * WRITERS as u64
        })
        .await;
    }

    pub fn acked(&self) -> u64 {
        self.seen.acked.load(SeqCst)
    }

    pub fn closed(&self) -> u64 {
        self.seen.closed.load(SeqCst)
    }

    /// Ends them; no write was answered with an error. The longest that one was without its answer.
    pub async fn finish(self) -> Duration {
        self.stop.store(true, SeqCst);
        for task in self.tasks {
            task.await.unwrap();
        }
        let errors = self.seen.errors.lock().unwrap().clone();
        assert!(errors.is_empty(), "{errors:#?}");
        Duration::from_millis(self.seen.slowest_ms.load(SeqCst))
    }
}

async fn write(at: usize, addr: String, seen: Arc<Seen>, stop: Arc<AtomicBool>) {
    let mut number = 0_u64;
    while !stop.load(SeqCst) {
        let mut wire = Wire::connect(&addr)
            .await
            .expect("the proxy")
            .with_deadline(SOON);
        while !stop.load(SeqCst) {
            number += 1;
            let began = Instant::now();
            let answer = wire
                .call(&["SET", &format!("k{at}"), &number.to_string()])
                .await;
            let took = began.elapsed().as_millis() as u64;
            seen.slowest_ms.fetch_max(took, SeqCst);
            match answer {
                Ok(answer) if answer.ok() => {
                    seen.acked.fetch_add(1, SeqCst);
                }
                Ok(answer) => seen.errors.lock().unwrap().push(format!("{answer:?}")),
                Err(_) => {
                    seen.closed.fetch_add(1, SeqCst);
                    break;
                }
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}
