//! Pictures of latency over time as inline SVG, drawn by hand: no script, no fonts, no network.
//!
//! Colours are classes that the page defines for light and dark.

use std::fmt::Write;

use super::figures::{Bucket, Span, buckets};
use super::load::Sample;
use super::report::Ordered;

const WIDTH: f64 = 1100.0;
const HEIGHT: f64 = 340.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 26.0;
const BOTTOM: f64 = 30.0;
/// Narrow enough to show a hold of some milliseconds as a spike of its own.
const BUCKET_US: u64 = 20_000;

/// How much time a close-up shows before the order and, at least, in all.
const CLOSE_BEFORE_US: u64 = 20_000;
const CLOSE_US: u64 = 80_000;
const CLOSE_US_MAX: u64 = 2_000_000;
/// A close-up has one dot per write; past this many only every n-th is drawn, the slow ones always.
const DOTS_MAX: usize = 4_000;

/// Maps values to the plane.
struct Axes {
    x_from: f64,
    x_to: f64,
    y_from: f64,
    y_to: f64,
    log: bool,
    width: f64,
    height: f64,
}

impl Axes {
    fn x(&self, value: f64) -> f64 {
        let part = (value - self.x_from) / (self.x_to - self.x_from).max(1e-9);
        LEFT + part.clamp(0.0, 1.0) * (self.width - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        let scale = |value: f64| {
            if self.log {
                value.max(1e-3).log10()
            } else {
                value
            }
        };
        let (low, high) = (scale(self.y_from), scale(self.y_to));
        let part = (scale(value) - low) / (high - low).max(1e-9);
        self.height - BOTTOM - part.clamp(0.0, 1.0) * (self.height - TOP - BOTTOM)
    }

    fn open(&self, title: &str) -> String {
        format!(
            "<svg viewBox=\"0 0 {} {}\" role=\"img\" aria-label=\"{title}\">\n",
            self.width, self.height
        )
    }

    fn y_line(&self, svg: &mut String, value: f64, label: &str) {
        let y = self.y(value);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{LEFT} {y:.1}H{:.1}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"end\">{label}</text>",
            self.width - RIGHT,
            LEFT - 6.0,
            y + 4.0
        );
    }

    fn x_label(&self, svg: &mut String, value: f64, label: &str) {
        let (x, y) = (self.x(value), self.height - BOTTOM);
        let _ = writeln!(
            svg,
            "<path class=\"grid\" d=\"M{x:.1} {y:.1}v5\"/><text x=\"{x:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{label}</text>",
            y + 19.0
        );
    }

    fn band(&self, svg: &mut String, from: f64, to: f64, label: &str) {
        let (left, right) = (self.x(from), self.x(to));
        let _ = writeln!(
            svg,
            "<rect class=\"switch\" x=\"{left:.1}\" y=\"{TOP}\" width=\"{:.1}\" height=\"{:.1}\"/>\
             <text x=\"{left:.1}\" y=\"{:.1}\">{label}</text>",
            (right - left).max(1.5),
            self.height - TOP - BOTTOM,
            TOP - 8.0
        );
    }

    fn line(&self, svg: &mut String, class: &str, points: impl Iterator<Item = (f64, f64)>) {
        let mut path = String::new();
        for (x, y) in points {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let _ = write!(path, "{letter}{:.1} {:.1}", self.x(x), self.y(y));
        }
        let _ = writeln!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
    }
}

/// Write latency over the whole run: the slowest, p99 and p50 of each instant.
pub(super) fn overview(writes: &[Sample], span: Span, switchovers: &[Ordered]) -> String {
    let parts = buckets(writes, span, BUCKET_US);
    let highest = parts
        .iter()
        .fold(10.0_f64, |high, part| high.max(part.max_ms));
    let axes = Axes {
        x_from: seconds(span.from_us),
        x_to: seconds(span.to_us),
        y_from: 0.05,
        y_to: highest * 1.2,
        log: true,
        width: WIDTH,
        height: HEIGHT,
    };
    let mut svg = axes.open("Write latency over time, in milliseconds, on a logarithmic scale");
    for (value, label) in [
        (0.1, "0.1 ms"),
        (1.0, "1 ms"),
        (10.0, "10 ms"),
        (100.0, "100 ms"),
        (1000.0, "1 s"),
    ] {
        if value <= axes.y_to {
            axes.y_line(&mut svg, value, label);
        }
    }
    let step = ((axes.x_to - axes.x_from) / 16.0).ceil().max(1.0);
    let mut second = axes.x_from.ceil();
    while second <= axes.x_to {
        axes.x_label(&mut svg, second, &format!("{second:.0} s"));
        second += step;
    }
    for (number, done) in switchovers.iter().enumerate() {
        let (from, to) = (seconds(done.ordered_us), seconds(done.ended_us));
        axes.band(&mut svg, from, to, &(number + 1).to_string());
    }
    let mut draw = |class: &str, value: &dyn Fn(&Bucket) -> f64| {
        let points = parts.iter().map(|part| (seconds(part.at_us), value(part)));
        axes.line(&mut svg, class, points);
    };
    draw("max", &|part| part.max_ms);
    draw("p99", &|part| part.p99_ms);
    draw("p50", &|part| part.p50_ms);
    svg + "</svg>\n"
}

/// Each write around one switchover as a dot: when it was due, and how long it took.
pub(super) fn close_up(writes: &[Sample], number: usize, done: &Ordered) -> String {
    let from_us = done.ordered_us.saturating_sub(CLOSE_BEFORE_US);
    let wanted_us = (done.ended_us + CLOSE_BEFORE_US).saturating_sub(from_us);
    let span = Span {
        from_us,
        to_us: from_us + wanted_us.clamp(CLOSE_US, CLOSE_US_MAX),
    };
    let near: Vec<&Sample> = writes.iter().filter(|sample| span.began(sample)).collect();
    let highest = near.iter().map(|sample| ms(sample)).fold(2.0_f64, f64::max);
    let since_order = |at_us: u64| (at_us as f64 - done.ordered_us as f64) / 1000.0;
    let axes = Axes {
        x_from: since_order(span.from_us),
        x_to: since_order(span.to_us),
        y_from: 0.0,
        y_to: highest * 1.1,
        log: false,
        width: WIDTH / 2.0,
        height: HEIGHT * 0.7,
    };
    let mut svg = axes.open(&format!("Each write around switchover {}", number + 1));
    let step = nice_step(highest / 4.0);
    for line in 0..6 {
        let value = step * f64::from(line);
        if value <= axes.y_to {
            axes.y_line(&mut svg, value, &format!("{} ms", short(value)));
        }
    }
    let x_step = nice_step((axes.x_to - axes.x_from) / 5.0);
    let mut at = (axes.x_from / x_step).ceil() * x_step;
    while at <= axes.x_to {
        axes.x_label(&mut svg, at, &format!("{} ms", short(at)));
        at += x_step;
    }
    let label = format!("{}: {} to {}", number + 1, done.report.from, done.report.to);
    axes.band(
        &mut svg,
        0.0,
        since_order(done.ended_us),
        &super::html::escape(&label),
    );
    let every = near.len().div_ceil(DOTS_MAX).max(1);
    let mut path = String::new();
    for (at, sample) in near.iter().enumerate() {
        if at.is_multiple_of(every) || ms(sample) > highest / 4.0 {
            let x = axes.x(since_order(u64::from(sample.due_us)));
            let _ = write!(path, "M{x:.1} {:.1}h0", axes.y(ms(sample)));
        }
    }
    let _ = writeln!(svg, "<path class=\"dots\" d=\"{path}\"/>");
    svg + "</svg>\n"
}

fn seconds(at_us: u64) -> f64 {
    at_us as f64 / 1e6
}

fn ms(sample: &Sample) -> f64 {
    f64::from(sample.latency_us) / 1000.0
}

/// 1, 2 or 5 times a power of ten, at least `wanted`.
fn nice_step(wanted: f64) -> f64 {
    let power = 10_f64.powf(wanted.max(1e-3).log10().floor());
    [1.0, 2.0, 5.0]
        .into_iter()
        .map(|part| part * power)
        .find(|step| *step >= wanted)
        .unwrap_or(10.0 * power)
}

fn short(value: f64) -> String {
    let text = format!("{value:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    if text == "-0" {
        "0".into()
    } else {
        text.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_are_round_numbers() {
        assert_eq!(
            [nice_step(0.7), nice_step(3.0), nice_step(12.0)].map(short),
            ["1", "5", "20"]
        );
        assert_eq!([short(0.0), short(-0.001), short(2.5)], ["0", "0", "2.5"]);
    }
}
