//! How far the target is behind the old master, and how fast that one is written to.
//!
//! **Invariant:** one unlucky reading of lag or rate refuses nothing. What one stall of a machine or
//! one large write makes of two readings is looked at again before it counts.

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::switchover::orders::{Reading, own_offset, read_target};
use crate::topology::node::{Connection, NodeError};

/// The backlog must hold what is written while a node changes its master. Demotion starts with the
/// release and takes milliseconds; a backlog for 50 ms keeps a margin of ten.
const BACKLOG_TIME: Duration = Duration::from_millis(50);
/// A target that is too far behind is given so long to catch up. One that was not run for 0.1 s has
/// missed 2 MB of 20 MB/s, and has them a moment later.
const CATCH_UP_TIME: Duration = Duration::from_secs(1);
/// From one look at such a target to the next.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// What a gap is held against.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    pub max_lag: u64,
    /// What the old master buffers for a replica before it cuts it off.
    pub output_limit: Option<u64>,
    /// The target's backlog, where the engine has one.
    pub backlog: Option<u64>,
}

/// Readings made target first: read so, a target that is ahead has another history.
#[derive(Clone, Copy, Debug, Default)]
pub struct Gap {
    pub old_offset: u64,
    pub target_offset: u64,
    /// Growth of the old master's offset per second, as far as two readings can tell.
    rate_per_s: u64,
    limits: Limits,
}

impl Gap {
    pub fn lag(&self) -> u64 {
        self.old_offset.saturating_sub(self.target_offset)
    }

    fn exceeds_max_lag(&self) -> bool {
        self.lag() > self.limits.max_lag
    }

    /// The old master's limit, when the target is close to being cut off.
    fn output_limit(&self) -> Option<u64> {
        let limit = self.limits.output_limit;
        limit.filter(|limit| self.lag() > limit / 2)
    }

    /// Whether a target that is too far behind, so long after the first look, is looked at again.
    fn may_close(&self, waited: Duration) -> bool {
        let too_far = self.exceeds_max_lag() || self.output_limit().is_some();
        too_far && waited < CATCH_UP_TIME
    }

    /// The target's backlog, when more is written than it holds.
    fn outrun_backlog(&self) -> Option<u64> {
        let ms = BACKLOG_TIME.as_millis() as u64;
        let needed = self.rate_per_s.saturating_mul(ms) / 1000;
        self.limits.backlog.filter(|backlog| *backlog < needed)
    }

    pub fn failings(&self, old: &str, target: &str) -> Vec<String> {
        let mut failings = Vec::new();
        let lag = self.lag();
        if self.target_offset > self.old_offset {
            failings.push(format!(
                "{target} is ahead of {old} (offset {} and {}), so it has another history; let it \
                 synchronise in full first",
                self.target_offset, self.old_offset
            ));
        }
        if self.exceeds_max_lag() {
            failings.push(format!(
                "{target} is {lag} behind, more than max_lag {}; wait until it has caught up",
                self.limits.max_lag
            ));
        }
        if let Some(limit) = self.output_limit() {
            failings.push(format!(
                "{target} is {lag} behind, more than half of what {old} buffers for a replica \
                 (client-output-buffer-limit {limit}); wait until it has caught up"
            ));
        }
        if let Some(backlog) = self.outrun_backlog() {
            failings.push(format!(
                "repl-backlog-size of {target} is {backlog} and {rate} bytes are written a second: \
                 replicas would need a full synchronisation; set it to {rate} or more",
                rate = self.rate_per_s
            ));
        }
        failings
    }
}

/// Looks at both, and again where that would refuse for what may pass in a moment.
pub async fn measure(
    old: &mut Connection,
    target: &mut Connection,
    limits: Limits,
    within: Duration,
) -> Result<Gap, String> {
    let began = Instant::now();
    let mut gap = look(old, target, limits, within).await?;
    while gap.may_close(began.elapsed()) {
        sleep(LOOK_EVERY).await;
        gap = look(old, target, limits, within).await?;
    }
    if gap.outrun_backlog().is_some() {
        // One large write between two readings would be taken for thousands.
        let began = Instant::now();
        sleep(BACKLOG_TIME).await;
        let now = own_offset(old, within).await;
        let now = now.map_err(|error| error.to_string())?;
        gap.rate_per_s = rate_per_s(gap.old_offset, now, began);
    }
    Ok(gap)
}

async fn look(
    old: &mut Connection,
    target: &mut Connection,
    limits: Limits,
    within: Duration,
) -> Result<Gap, String> {
    let text = |error: NodeError| error.to_string();
    let before = own_offset(old, within).await.map_err(text)?;
    let began = Instant::now();
    let reading = read_target(target, within).await.map_err(text)?;
    let Reading::Following {
        offset: Some(target_offset),
        connected: true,
        ..
    } = reading
    else {
        return Err(format!(
            "{} lost its link just now; wait until it is up",
            target.node()
        ));
    };
    let old_offset = own_offset(old, within).await.map_err(text)?;
    // The readings are a fraction of a millisecond apart, so the rate is rough: it is an
    // exaggeration by one write at worst.
    let rate_per_s = rate_per_s(before, old_offset, began);
    Ok(Gap {
        old_offset,
        target_offset,
        rate_per_s,
        limits,
    })
}

/// Units of offset per second; over at least a millisecond.
fn rate_per_s(before: u64, now: u64, began: Instant) -> u64 {
    let elapsed_us = began.elapsed().as_micros().max(1000) as u64;
    now.saturating_sub(before).saturating_mul(1_000_000) / elapsed_us
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(gap: Gap, reason: &str) {
        let failings = gap.failings("old", "target");
        match reason {
            "" => assert!(failings.is_empty(), "{failings:?}"),
            reason => assert!(
                failings.iter().any(|one| one.contains(reason)),
                "{failings:?}"
            ),
        }
    }

    fn behind(by: u64, limits: Limits) -> Gap {
        Gap {
            old_offset: 100 + by,
            target_offset: 100,
            limits,
            ..Gap::default()
        }
    }

    const TEN: Limits = Limits {
        max_lag: 10,
        output_limit: None,
        backlog: None,
    };

    #[test]
    fn a_lag_passes_at_the_limit_and_fails_one_past_it() {
        check(behind(10, TEN), "");
        check(behind(11, TEN), "more than max_lag");
    }

    #[test]
    fn a_target_ahead_of_its_master_has_another_history() {
        let gap = Gap {
            target_offset: 101,
            ..behind(0, TEN)
        };
        check(gap, "is ahead of old");
    }

    #[test]
    fn the_buffers_of_the_old_master_and_the_target_must_suffice() {
        let output_limit = |limit| Limits {
            output_limit: Some(limit),
            max_lag: 100,
            ..TEN
        };
        check(behind(60, output_limit(120)), "");
        check(behind(60, output_limit(119)), "client-output-buffer-limit");
        let busy = |backlog| Gap {
            rate_per_s: 20_000_000,
            ..behind(
                0,
                Limits {
                    backlog: Some(backlog),
                    ..TEN
                },
            )
        };
        check(busy(1_000_000), "");
        check(busy(999_999), "repl-backlog-size");
    }

    #[test]
    fn a_target_that_is_too_far_behind_is_given_its_time() {
        let close = Limits {
            output_limit: Some(20),
            max_lag: 1000,
            ..TEN
        };
        let almost = CATCH_UP_TIME - Duration::from_millis(1);
        for limits in [TEN, close] {
            assert!(!behind(10, limits).may_close(Duration::ZERO));
            assert!(behind(11, limits).may_close(almost));
            assert!(!behind(11, limits).may_close(CATCH_UP_TIME));
        }
    }
}
