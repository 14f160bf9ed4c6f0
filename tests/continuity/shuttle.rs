//! Switchovers to and fro, and what the tests of this binary have in common.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::support::*;

/// Switches between the first two nodes `rounds` times; before each of them, and after the last,
/// `between` waits for whatever the clients are to do with this master.
pub async fn to_and_fro(
    shard: &Shard,
    proxy: &Proxy,
    rounds: usize,
    mut between: impl AsyncFnMut(),
) {
    for round in 0..rounds {
        between().await;
        let target = shard.addr((round + 1) % 2);
        switch_to(proxy, &target).await;
        shard.in_sync(&target).await;
    }
    between().await;
}

/// A node that is busy with huge values for longer than it is waited for is asked again.
async fn switch_to(proxy: &Proxy, target: &str) {
    for _ in 0..10 {
        let report = switchover(proxy, target).await;
        if report.outcome == "switched" {
            return;
        }
        let passes = [
            "did not answer",
            "wait until it has caught up",
            "it was too slow, or does not answer",
            "connections to the nodes could not be prepared",
            "were not open after",
        ];
        let passes = |reason: &String| passes.iter().any(|part| reason.contains(part));
        let undone = matches!(report.outcome.as_str(), "refused" | "rolled_back");
        let is_busy = undone && report.reasons.iter().all(passes);
        assert!(is_busy, "{}: {:?}", report.outcome, report.reasons);
    }
    panic!("{target} is busy all the time");
}

/// What clients have done so far and whether they are to end, shared by a test and its clients.
#[derive(Clone, Default)]
pub struct Work {
    done: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Work {
    pub fn did_one(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    pub fn done(&self) -> u64 {
        self.done.load(Ordering::Relaxed)
    }

    /// Waits for `more` things to be done from now on.
    pub async fn goes_on(&self, more: u64) {
        let enough = self.done() + more;
        wait_until("the clients go on", async || self.done() >= enough).await;
    }

    pub fn end(&self) {
        self.over.store(true, Ordering::Relaxed);
    }

    pub fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// Numbers that look random and are the same in every run.
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// A number below `sides`.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (mixed ^ (mixed >> 31)) % sides.max(1)
    }
}
