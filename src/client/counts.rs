//! What one worker counts for one shard; telemetry collects it once a second.
//!
//! **Invariant:** counting is a plain add: no atomic, no look-up, no clock.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;

/// A counter of one worker: a plain add per event, collected once a second.
#[derive(Debug, Default)]
pub struct Count(Cell<u64>);

impl Count {
    #[inline]
    pub fn add(&self, count: u64) {
        self.0.set(self.0.get().wrapping_add(count));
    }

    /// What was counted since it was taken last.
    pub fn get(&self) -> u64 {
        self.0.get()
    }

    /// What was counted since the last call.
    pub fn take(&self) -> u64 {
        self.0.replace(0)
    }
}

/// What a worker counts for one shard.
#[derive(Debug, Default)]
pub struct Counts {
    pub connections: Count,
    pub reads: Count,
    pub writes: Count,
    /// Requests that a node refused to execute.
    pub refused: Count,
    pub bytes_in: Count,
    pub bytes_out: Count,
    pub closed: RefCell<HashMap<&'static str, u64>>,
    pub sessions: Cell<u64>,
    /// Sessions that wait for replies from lanes.
    pub waiting: Cell<u64>,
}
