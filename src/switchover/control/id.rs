//! Operation ids: UTC time and four hex digits, so that they sort by time.

use std::sync::atomic::{AtomicU16, Ordering};

use crate::switchover::exec::measure::unix_ms;

/// Counts operations of this proxy; two in one second differ by it.
static NEXT: AtomicU16 = AtomicU16::new(0);

/// `20261122T064455Z-3f2a`.
pub fn operation_id() -> String {
    let ms = unix_ms();
    // Another proxy starts its count elsewhere, most likely: by the millisecond of its first.
    let count = NEXT.fetch_add(1, Ordering::Relaxed);
    let digits = (ms % 1000) as u16 * 64 + (std::process::id() % 64) as u16;
    format!("{}-{:04x}", utc(ms / 1000), digits.wrapping_add(count))
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
    fn two_ids_differ() {
        assert_ne!(operation_id(), operation_id());
    }
}
