//! The page of a run: figures, pictures and phases in one file that needs nothing else.

use std::fmt::Write;

use super::chart;
use super::figures::{Latency, Span, grouped};
use super::load::Sample;
use super::report::{Ordered, Summary};

const STYLE: &str = include_str!("page.css");

pub(super) fn page(summary: &Summary, writes: &[Sample]) -> String {
    let mut page = String::from(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Pointsman demo</title>\n<style>",
    );
    page.push_str(STYLE);
    page.push_str("</style></head><body>\n");
    headline(&mut page, summary);
    page.push_str(
        "<h2>Write latency over time</h2>\n<p class=\"key soft\">\
         <span><i style=\"background:var(--max)\"></i>slowest in 20 ms</span>\
         <span><i style=\"background:var(--p99)\"></i>p99</span>\
         <span><i style=\"background:var(--p50)\"></i>p50</span>\
         <span><i style=\"background:var(--band);height:.9em\"></i>switchover, from the order to \
         the end</span>before the first band: the same load without one; logarithmic scale</p>\n",
    );
    page.push_str(&chart::overview(
        writes,
        whole(writes),
        &summary.switchovers,
    ));
    if !summary.switchovers.is_empty() {
        page.push_str(
            "<h2>Each switchover from close by</h2>\n<p class=\"soft\">One dot per write: across, \
             when it was due, counted from the order; up, how long its client waited.</p>\n\
             <div class=\"pair\">\n",
        );
        for (number, done) in summary.switchovers.iter().enumerate() {
            let _ = write!(page, "<div>{}</div>", chart::close_up(writes, number, done));
        }
        page.push_str("</div>\n");
        phases(&mut page, &summary.switchovers);
    }
    latencies(&mut page, summary);
    page + "</body></html>\n"
}

/// All samples, with a little room at the end.
fn whole(writes: &[Sample]) -> Span {
    let due = || writes.iter().map(|sample| u64::from(sample.due_us));
    Span {
        from_us: due().min().unwrap_or(0),
        to_us: due().max().unwrap_or(0) + 100_000,
    }
}

fn headline(page: &mut String, summary: &Summary) {
    let _ = writeln!(
        page,
        "<h1>{} switchovers under load</h1>\n<p class=\"soft\">{}; a master and {} replicas on one \
         machine; {} writes/s of {} bytes and {} reads/s from {} clients ({} of them only read), \
         and \
         one writer that goes past the proxy.</p>",
        summary.switchovers.len(),
        escape(&summary.server),
        summary.nodes - 1,
        grouped(summary.writes_per_s),
        grouped(summary.value_bytes as u64),
        grouped(summary.reads_per_s),
        summary.connections,
        summary.connections_read_only,
    );
    let errors = summary.client_errors + summary.unanswered;
    let acked = summary.writes_acked + summary.direct_writes_acked;
    let worst = summary
        .switchovers
        .iter()
        .fold(0.0, |worst: f64, done| worst.max(done.report.hold_ms));
    let class = |bad: u64| if bad == 0 { "good" } else { "bad" };
    let _ = writeln!(
        page,
        "<div class=\"big\"><div><b>{}</b>writes acknowledged</div>\
         <div><b class=\"{}\">{}</b>of them lost</div>\
         <div><b class=\"{}\">{}</b>errors to clients</div>\
         <div><b>{worst:.1} ms</b>longest hold</div>\
         <div><b>{:.1} ms</b>slowest write while switching</div>\
         <div><b>{:.1} ms</b>slowest write without</div></div>",
        grouped(acked),
        class(summary.lost),
        grouped(summary.lost),
        class(errors),
        grouped(errors),
        summary.writes.inside.max_ms,
        summary.writes.without.max_ms,
    );
    for failure in summary.failures() {
        let _ = writeln!(page, "<p class=\"bad\">{}</p>", escape(&failure));
    }
}

fn phases(page: &mut String, switchovers: &[Ordered]) {
    let mut names: Vec<&str> = Vec::new();
    for done in switchovers {
        for phase in &done.report.phases {
            if !names.contains(&phase.name.as_str()) {
                names.push(&phase.name);
            }
        }
    }
    page.push_str(
        "<h2>Phases, in milliseconds</h2>\n<div class=\"wide\"><table><tr><th></th>\
         <th class=\"l\">outcome</th><th>hold</th><th>slowest write</th><th>slowest lone read</th>\
         <th>writes held</th>",
    );
    for name in &names {
        let _ = write!(page, "<th>{}</th>", escape(name));
    }
    page.push_str("<th class=\"l\">replicas</th></tr>\n");
    for (number, done) in switchovers.iter().enumerate() {
        let report = &done.report;
        let _ = write!(
            page,
            "<tr><td>{}</td><td class=\"l\">{}</td><td>{:.2}</td><td>{:.2}</td><td>{:.2}</td>\
             <td>{}</td>",
            number + 1,
            escape(&report.outcome),
            report.hold_ms,
            done.slowest_write_ms,
            done.slowest_read_ms,
            report.writes_held
        );
        for name in &names {
            let spent: f64 = report
                .phases
                .iter()
                .filter(|phase| phase.name == *name)
                .map(|phase| phase.ms)
                .sum();
            let _ = write!(page, "<td>{spent:.2}</td>");
        }
        let resyncs: Vec<&str> = report
            .replicas
            .iter()
            .map(|replica| replica.resync.as_str())
            .collect();
        let _ = writeln!(
            page,
            "<td class=\"l\">{}</td></tr>",
            escape(&resyncs.join(", "))
        );
    }
    page.push_str("</table></div>\n");
}

fn latencies(page: &mut String, summary: &Summary) {
    page.push_str(
        "<h2>Latency, in milliseconds</h2>\n<p class=\"soft\">From the moment a request was due, \
         whether or not the generator was on time; so a wait in front of the proxy counts as \
         well.</p>\n<div class=\"wide\"><table><tr><th class=\"l\"></th><th class=\"l\"></th>\
         <th>requests</th><th>p50</th><th>p99</th><th>p99.9</th><th>max</th></tr>\n",
    );
    let kinds = [
        ("writes", &summary.writes),
        ("reads beside writes", &summary.reads_mixed),
        ("reads alone", &summary.reads_alone),
    ];
    for (name, compared) in kinds {
        row(page, name, "without a switchover", &compared.without);
        row(
            page,
            "",
            "with switchovers, pauses between included",
            &compared.with,
        );
        row(page, "", "while switching", &compared.inside);
    }
    let _ = writeln!(
        page,
        "</table></div>\n<p class=\"soft\">The load generator itself was late by {:.2} ms at p99 \
         and \
         {:.2} ms at most.</p>",
        summary.generator_late_p99_ms, summary.generator_late_max_ms
    );
}

fn row(page: &mut String, name: &str, stretch: &str, latency: &Latency) {
    if latency.count == 0 {
        return;
    }
    let _ = writeln!(
        page,
        "<tr><td class=\"l\">{name}</td><td class=\"l\">{stretch}</td><td>{}</td><td>{:.2}</td>\
         <td>{:.2}</td><td>{:.2}</td><td>{:.2}</td></tr>",
        grouped(latency.count),
        latency.p50_ms,
        latency.p99_ms,
        latency.p999_ms,
        latency.max_ms
    );
}

pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
