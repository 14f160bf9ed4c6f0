//! The page of switchovers: for each size of values, how long writes were held, and by what.

use std::fmt::Write;

use crate::page::{self, Bar};
use crate::{Done, Outcome};

/// Phases in which writes are held.
const HELD: [&str; 6] = ["hold", "pause", "catch_up", "fence", "prove", "promote"];

pub fn page(outcomes: &[Outcome], machine: &str) -> String {
    let what = format!(
        "Each picture on the left: every switchover from the shortest hold to the longest, in ms, on a \
         logarithmic scale. {machine}."
    );
    let mut page = page::begin("How long a switchover holds writes", &what);
    let all = || {
        outcomes
            .iter()
            .flat_map(|one| &one.switchovers)
            .map(|done| done.report.hold_ms)
    };
    let bounds = (
        all().fold(1.0, f64::min) / 1.5,
        all().fold(1.0, f64::max) * 1.5,
    );
    for outcome in outcomes {
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<h2>{} bytes, {} writes/s, {} connections, {} switchovers</h2>\n<div class=\"row\">",
            outcome.value_bytes,
            outcome.writes_per_s,
            outcome.connections,
            outcome.switchovers.len()
        );
        let figures: Vec<f64> = outcome
            .switchovers
            .iter()
            .map(|done| done.report.hold_ms)
            .collect();
        page::distribution(&mut page, "hold, first gate to release", &figures, bounds);
        phases(&mut page, outcome);
        clients(&mut page, outcome);
        page.push_str("</div>\n");
    }
    page + page::END
}

fn phases(page: &mut String, outcome: &Outcome) {
    let bar = |name: &'static str| {
        let row = format!("phase {name}");
        let found = outcome.rows.iter().find(|one| one.name == row)?;
        Some(Bar {
            name,
            value: found.p50_ms,
            ours: true,
        })
    };
    let bars: Vec<Bar<'_>> = HELD.into_iter().filter_map(bar).collect();
    page::bars(page, "median of each phase of it, ms", &bars, 2, None);
}

fn clients(page: &mut String, outcome: &Outcome) {
    let most = |figure: fn(&Done) -> f64| {
        let all = outcome.switchovers.iter().map(figure);
        all.fold(0.0, f64::max)
    };
    let bar = |name, value, ours| Bar { name, value, ours };
    let bars = [
        bar("hold", most(|one| one.report.hold_ms), true),
        bar("write", most(|one| one.slowest_write_ms), true),
        bar("write before", most(|one| one.slowest_before_ms), false),
    ];
    page::bars(page, "the longest of all, ms", &bars, 2, None);
}
