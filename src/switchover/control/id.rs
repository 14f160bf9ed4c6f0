//! Operation ids: UTC time and random hex digits, so that they sort by time.
//!
//! **Invariant:** two proxies that are told to switch in the same instant draw different ones, even
//! in containers that are alike: claims, fences and connections bear the id, and equal ones would
//! take each other's for their own.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use crate::switchover::exec::measure::unix_ms;

/// `20261122T064455Z-3f2a90b1c4d5e6f7`.
pub fn operation_id() -> String {
    // The standard library keys each hasher with the operating system's randomness.
    let ms = unix_ms();
    let drawn = RandomState::new().hash_one(ms);
    format!("{}-{drawn:016x}", utc(ms / 1000))
}

/// `YYYYMMDDTHHMMSSZ` of seconds since 1970, by the civil calendar's 400-year cycle.
fn utc(seconds: u64) -> String {
    let (days, in_day) = (seconds / 86_400, seconds % 86_400);
    // Years begin in March here, so that the leap day is the last of a year.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - (day_of_era / 1_460) + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 {
        month_from_march + 3
    } else {
        month_from_march - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (in_day / 3600, in_day / 60 % 60, in_day % 60);
    format!("{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_by_the_civil_calendar() {
        assert_eq!(utc(0), "19700101T000000Z");
        assert_eq!(utc(951_782_399), "20000228T235959Z");
        assert_eq!(utc(951_782_400), "20000229T000000Z");
        assert_eq!(utc(1_795_330_495), "20261122T065455Z");
    }

    #[test]
    fn of_many_ids_no_two_are_equal() {
        let ids: std::collections::HashSet<String> = (0..10_000).map(|_| operation_id()).collect();
        assert_eq!(ids.len(), 10_000);
    }
}
