//! From samples to figures: percentiles of a stretch of time, and what was worst in each instant.

use hdrhistogram::Histogram;
use serde::Serialize;

use super::load::Sample;

/// Latencies in milliseconds.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub struct Latency {
    pub count: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub p999_ms: f64,
    pub max_ms: f64,
}

/// A stretch of time, in microseconds from the origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub from_us: u64,
    pub to_us: u64,
}

impl Span {
    /// Whether the request fell due in this stretch.
    pub fn began(&self, sample: &Sample) -> bool {
        (self.from_us..self.to_us).contains(&u64::from(sample.due_us))
    }

    /// Whether the request was on its way at any time in this stretch.
    pub fn touched(&self, sample: &Sample) -> bool {
        let begin = u64::from(sample.due_us);
        begin < self.to_us && begin + u64::from(sample.latency_us) > self.from_us
    }

    /// As long a stretch, so much earlier.
    pub fn earlier(&self, by: std::time::Duration) -> Span {
        let by_us = by.as_micros() as u64 + (self.to_us - self.from_us);
        Span {
            from_us: self.from_us.saturating_sub(by_us),
            to_us: self.to_us.saturating_sub(by_us),
        }
    }
}

pub fn latency<'a>(samples: impl Iterator<Item = &'a Sample>) -> Latency {
    // One microsecond to one hour in three digits; a value past the end counts as the end.
    let Ok(mut histogram) = Histogram::<u64>::new_with_bounds(1, 3_600_000_000, 3) else {
        return Latency::default();
    };
    let mut max_us = 0;
    for sample in samples {
        histogram.saturating_record(u64::from(sample.latency_us));
        max_us = max_us.max(sample.latency_us);
    }
    // The histogram answers with the upper end of a step, which may lie above the largest value.
    let at = |quantile: f64| {
        histogram.value_at_quantile(quantile).min(u64::from(max_us)) as f64 / 1000.0
    };
    Latency {
        count: histogram.len(),
        p50_ms: at(0.5),
        p99_ms: at(0.99),
        p999_ms: at(0.999),
        max_ms: f64::from(max_us) / 1000.0,
    }
}

/// What the requests that fell due in one short stretch waited.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Bucket {
    pub at_us: u64,
    pub p50_ms: f64,
    pub p99_ms: f64,
    pub max_ms: f64,
}

/// Buckets of `width_us` in order of time; stretches without a request have none.
pub fn buckets(samples: &[Sample], span: Span, width_us: u64) -> Vec<Bucket> {
    let width_us = width_us.max(1);
    let mut sorted: Vec<(u64, u32)> = samples
        .iter()
        .filter(|sample| span.began(sample))
        .map(|sample| (u64::from(sample.due_us) / width_us, sample.latency_us))
        .collect();
    sorted.sort_unstable();
    let of_bucket = sorted.chunk_by(|a, b| a.0 == b.0);
    of_bucket
        .filter_map(|entries| bucket(entries, width_us))
        .collect()
}

fn bucket(entries: &[(u64, u32)], width_us: u64) -> Option<Bucket> {
    let ms = |entry: &(u64, u32)| f64::from(entry.1) / 1000.0;
    let rank = |part: f64| entries.get(((entries.len() - 1) as f64 * part).round() as usize);
    Some(Bucket {
        at_us: entries.first()?.0 * width_us,
        p50_ms: ms(rank(0.5)?),
        p99_ms: ms(rank(0.99)?),
        max_ms: ms(entries.last()?),
    })
}

/// `1234567` as `1 234 567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(' ');
        }
        text.push(digit);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(due_us: u32, latency_us: u32) -> Sample {
        Sample { due_us, latency_us }
    }

    #[test]
    fn a_request_touches_a_stretch_that_it_was_on_its_way_in() {
        let span = Span {
            from_us: 1000,
            to_us: 2000,
        };
        assert!(span.touched(&sample(500, 600)) && !span.began(&sample(500, 600)));
        assert!(span.touched(&sample(1999, 5)) && span.began(&sample(1999, 5)));
        assert!(!span.touched(&sample(500, 500)) && !span.touched(&sample(2000, 9)));
    }

    #[test]
    fn figures_are_those_of_the_samples() {
        let samples: Vec<Sample> = (1..=100).map(|n| sample(n * 10, n * 1000)).collect();
        let figures = latency(samples.iter());
        assert_eq!((figures.count, figures.max_ms), (100, 100.0));
        assert!((figures.p50_ms - 50.0).abs() < 0.1 && (figures.p99_ms - 99.0).abs() < 0.1);
        let parts = buckets(
            &samples,
            Span {
                from_us: 0,
                to_us: 10_000,
            },
            500,
        );
        assert_eq!(parts.len(), 3);
        assert_eq!((parts[0].at_us, parts[0].max_ms), (0, 49.0));
        assert_eq!((parts[2].at_us, parts[2].max_ms), (1000, 100.0));
    }

    #[test]
    fn numbers_are_grouped_by_thousands() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1 234 567");
    }
}
