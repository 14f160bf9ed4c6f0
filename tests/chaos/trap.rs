//! Stops a switchover at a chosen step: a relay withholds one order, or the reply to it.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::timeout;

const SPRINGS_WITHIN: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum When {
    /// The order has not arrived. When it is let go it does, even if who sent it is dead by then.
    Before,
    /// The order has been executed, and its reply has not arrived.
    After,
}

/// What a trap waits for.
#[derive(Clone, Debug)]
pub struct Bait {
    /// Must have been asked on the same connection before, if anything.
    pub behind: Option<Vec<u8>>,
    pub words: Vec<u8>,
    pub when: When,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Jaw {
    Open,
    Sprung,
}

pub struct Trap {
    bait: Mutex<Option<Bait>>,
    jaw: watch::Sender<Jaw>,
}

/// What a trap knows of one connection.
#[derive(Default)]
pub struct Track {
    primed: AtomicBool,
    awaits_reply: AtomicBool,
}

impl Trap {
    pub fn new() -> Trap {
        Trap {
            bait: Mutex::new(None),
            jaw: watch::Sender::new(Jaw::Open),
        }
    }

    pub fn set(&self, bait: Bait) {
        *self.bait.lock().unwrap() = Some(bait);
    }

    /// Returns when something is caught.
    pub async fn sprung(&self) -> bool {
        let mut jaw = self.jaw.subscribe();
        let caught = jaw.wait_for(|jaw| *jaw == Jaw::Sprung);
        matches!(timeout(SPRINGS_WITHIN, caught).await, Ok(Ok(_)))
    }

    /// Lets go what is caught, and catches nothing more.
    pub fn let_go(&self) {
        *self.bait.lock().unwrap() = None;
        self.jaw.send_replace(Jaw::Open);
    }

    /// Returns when this request may go on.
    pub async fn request(&self, bytes: &[u8], track: &Track) {
        let when = {
            let mut set = self.bait.lock().unwrap();
            let Some(bait) = &*set else {
                return;
            };
            let primed = bait.behind.is_none() || track.primed.load(Relaxed);
            let behind = bait.behind.as_ref();
            if behind.is_some_and(|words| contains(bytes, words)) {
                track.primed.store(true, Relaxed);
            }
            if !primed || !contains(bytes, &bait.words) {
                return;
            }
            let when = bait.when;
            *set = None;
            when
        };
        match when {
            When::Before => self.hold().await,
            When::After => track.awaits_reply.store(true, Relaxed),
        }
    }

    /// Returns when this reply may go on.
    pub async fn reply(&self, track: &Track) {
        if track.awaits_reply.swap(false, Relaxed) {
            self.hold().await;
        }
    }

    async fn hold(&self) {
        let mut jaw = self.jaw.subscribe();
        self.jaw.send_replace(Jaw::Sprung);
        let _ = jaw.wait_for(|jaw| *jaw == Jaw::Open).await;
    }
}

fn contains(bytes: &[u8], words: &[u8]) -> bool {
    bytes.windows(words.len()).any(|part| part == words)
}
