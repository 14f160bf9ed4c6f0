//! How long writes are held at the word of others: a share of the time, whoever asks and however
//! often.
//!
//! **Invariant:** whoever may `PUBLISH` can say `HOLD`, again and again and under ever new names.
//! Each of them holds writes for `limit` at most, all together for a fifth of the time in the long
//! run. A switchover holds for a few milliseconds, so hundreds in a minute are no obstacle to one
//! another.
//!
//! A driver that was told yes counts on all that it asked for, up to the limit: what is left must
//! do for that, or nothing is granted. (One whose `pause_timeout_ms` is longer than ours gets our
//! limit.)

use std::time::Duration;

use tokio::time::Instant;

/// One part of the time in which others may hold.
const SHARE: u32 = 5;
/// What may be saved up, in limits: one hold that lasted for a while leaves room for the next.
const SAVED_MAX: u32 = 2;

/// What is left, as of a moment.
#[derive(Debug)]
pub struct Allowance {
    left: Duration,
    at: Instant,
}

impl Allowance {
    pub fn full(limit: Duration, now: Instant) -> Allowance {
        Allowance {
            left: limit * SAVED_MAX,
            at: now,
        }
    }

    /// How long writes may be held now when `wanted` is asked for; `None` when too much was held
    /// lately.
    pub fn grant(&mut self, wanted: Duration, limit: Duration, now: Instant) -> Option<Duration> {
        let grown = now.saturating_duration_since(self.at) / SHARE;
        self.left = (self.left + grown).min(limit * SAVED_MAX);
        self.at = now;
        let granted = wanted.min(limit);
        (self.left >= granted && !granted.is_zero()).then_some(granted)
    }

    /// Writes were held for so long, until `now`.
    pub fn spend(&mut self, held: Duration, now: Instant) {
        self.left = self.left.saturating_sub(held);
        self.at = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_millis(500);

    #[test]
    fn nobody_holds_for_longer_than_the_limit_nor_without_end() {
        let mut now = Instant::now();
        let mut allowance = Allowance::full(LIMIT, now);
        let hour = Duration::from_secs(3600);
        for _ in 0..SAVED_MAX {
            assert_eq!(allowance.grant(hour, LIMIT, now), Some(LIMIT));
            now += LIMIT;
            allowance.spend(LIMIT, now);
        }
        assert_eq!(allowance.grant(hour, LIMIT, now), None);
        assert_eq!(allowance.grant(Duration::ZERO, LIMIT, now), None);
    }

    #[test]
    fn however_often_it_is_asked_for_a_fifth_of_the_time_is_held() {
        let begin = Instant::now();
        let mut allowance = Allowance::full(LIMIT, begin);
        let (mut now, mut held) = (begin, Duration::ZERO);
        while now < begin + Duration::from_secs(60) {
            match allowance.grant(LIMIT, LIMIT, now) {
                Some(granted) => {
                    now += granted;
                    held += granted;
                    allowance.spend(granted, now);
                }
                None => now += Duration::from_millis(1),
            }
        }
        let most = LIMIT * SAVED_MAX + Duration::from_secs(61) / SHARE;
        assert!(held <= most, "{held:?}");
    }

    #[test]
    fn short_holds_are_no_obstacle_to_one_another() {
        let mut now = Instant::now();
        let mut allowance = Allowance::full(LIMIT, now);
        let short = Duration::from_millis(5);
        for _ in 0..1000 {
            assert_eq!(allowance.grant(LIMIT, LIMIT, now), Some(LIMIT));
            allowance.spend(short, now + short);
            now += Duration::from_millis(50);
        }
    }
}
