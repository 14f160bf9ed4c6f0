//! From the runs to the table: medians over rounds, as Markdown and as JSON.

use std::fmt::Write;

use serde::Serialize;

use crate::figures::percentile;
use crate::load::{Measured, Workload};

/// One run, as it is kept.
#[derive(Clone, Debug, Serialize)]
pub struct Run {
    pub round: u32,
    pub workload: String,
    pub path: &'static str,
    pub requests_per_s: f64,
    /// To the direct run of the same round and workload.
    pub ratio_to_direct: Option<f64>,
    pub proxy_us: Option<f64>,
    pub server_us: Option<f64>,
    pub p50_ms: f64,
    pub p99_ms: f64,
    /// To that of the direct run of the same round and workload.
    pub p99_to_direct: Option<f64>,
    pub proxy_rss_mb: Option<f64>,
}

/// A line of the table: the medians over rounds; memory is the most that was seen.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub workload: String,
    pub path: &'static str,
    pub rounds: usize,
    pub requests_per_s: Option<f64>,
    pub ratio_to_direct: Option<f64>,
    pub proxy_us: Option<f64>,
    pub server_us: Option<f64>,
    pub p50_ms: Option<f64>,
    pub p99_ms: Option<f64>,
    pub p99_to_direct: Option<f64>,
    pub proxy_rss_mb: Option<f64>,
}

impl Run {
    pub fn new(round: u32, of: &Workload, path: &'static str, measured: Measured) -> Run {
        Run {
            round,
            workload: of.to_string(),
            path,
            requests_per_s: measured.requests_per_s,
            ratio_to_direct: None,
            proxy_us: measured.proxy_us,
            server_us: measured.server_us,
            p50_ms: measured.p50_ms,
            p99_ms: measured.p99_ms,
            p99_to_direct: None,
            proxy_rss_mb: measured.proxy_rss_mb,
        }
    }
}

/// Fills in the ratios of the runs of one workload in one round.
pub fn compare(runs: &mut [Run]) {
    let direct = runs
        .iter()
        .find(|run| run.path == "direct")
        .map(|run| (run.requests_per_s, run.p99_ms));
    for run in runs {
        run.ratio_to_direct = direct.map(|direct| run.requests_per_s / direct.0);
        run.p99_to_direct = direct.map(|direct| run.p99_ms / direct.1);
    }
}

/// One row per workload and path, in the order in which they first ran.
pub fn rows(runs: &[Run], workloads: &[Workload], paths: &[&'static str]) -> Vec<Row> {
    let mut rows = Vec::new();
    for workload in workloads {
        for &path in paths {
            let workload = workload.to_string();
            let of_row = |run: &&Run| run.workload == workload && run.path == path;
            let these: Vec<&Run> = runs.iter().filter(of_row).collect();
            // What a path cannot do it is not listed with.
            if these.is_empty() {
                continue;
            }
            let middle = |figure: fn(&Run) -> Option<f64>| {
                percentile(these.iter().filter_map(|run| figure(run)), 0.5)
            };
            rows.push(Row {
                path,
                rounds: these.len(),
                requests_per_s: middle(|run| Some(run.requests_per_s)),
                ratio_to_direct: middle(|run| run.ratio_to_direct),
                proxy_us: middle(|run| run.proxy_us),
                server_us: middle(|run| run.server_us),
                p50_ms: middle(|run| Some(run.p50_ms)),
                p99_ms: middle(|run| Some(run.p99_ms)),
                p99_to_direct: middle(|run| run.p99_to_direct),
                proxy_rss_mb: percentile(these.iter().filter_map(|run| run.proxy_rss_mb), 1.0),
                workload,
            });
        }
    }
    rows
}

pub fn markdown(rows: &[Row]) -> String {
    let mut text = String::from(
        "| workload | path | requests/s | of direct | proxy CPU us/request | server CPU us/request \
         | p50 ms | p99 ms | p99 of direct | proxy RSS MB |\n|---|---|--:|--:|--:|--:|--:|--:|--:|--:|\n",
    );
    let mut last = "";
    for row in rows {
        let workload = if row.workload == last {
            ""
        } else {
            &row.workload
        };
        last = &row.workload;
        // Writing to a string cannot fail.
        let _ = writeln!(
            text,
            "| {workload} | {} | {} | {} | {} | {} | {} | {} | {} | {} |",
            row.path,
            cell(row.requests_per_s, 0),
            cell(row.ratio_to_direct, 2),
            cell(row.proxy_us, 2),
            cell(row.server_us, 2),
            cell(row.p50_ms, 3),
            cell(row.p99_ms, 3),
            cell(row.p99_to_direct, 2),
            cell(row.proxy_rss_mb, 1),
        );
    }
    text
}

fn cell(figure: Option<f64>, digits: usize) -> String {
    figure.map_or_else(|| "-".into(), |figure| format!("{figure:.digits$}"))
}
