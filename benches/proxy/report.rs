//! The page of a run: for each workload, bars of throughput, latency and CPU over all paths.

use std::fmt::Write;

use crate::page::{self, Bar};
use crate::table::Row;

/// One picture: its title, its figure of a row, how many digits, and where a line is drawn.
struct Picture {
    title: &'static str,
    figure: fn(&Row) -> Option<f64>,
    digits: usize,
    mark: Option<f64>,
}

const PICTURES: [Picture; 3] = [
    Picture {
        title: "requests/s, of direct",
        figure: |row| row.ratio_to_direct,
        digits: 2,
        mark: Some(1.0),
    },
    Picture {
        title: "p99, ms",
        figure: |row| row.p99_ms,
        digits: 3,
        mark: None,
    },
    Picture {
        title: "CPU of the proxy, us/request",
        figure: |row| row.proxy_us,
        digits: 2,
        mark: None,
    },
];

pub fn page(rows: &[Row], machine: &str) -> String {
    let what = format!("Medians over interleaved rounds; {machine}.");
    let mut page = page::begin("What the proxy costs", &what);
    for group in rows.chunk_by(|a, b| a.workload == b.workload) {
        let Some(first) = group.first() else { continue };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n<div class=\"row\">",
            page::escaped(&first.workload)
        );
        for picture in &PICTURES {
            let bar = |row: &'_ Row| {
                let value = (picture.figure)(row)?;
                Some((row.path, value))
            };
            let figures: Vec<_> = group.iter().filter_map(bar).collect();
            let bars: Vec<Bar<'_>> = figures
                .iter()
                .map(|(name, value)| Bar {
                    name,
                    value: *value,
                    ours: name.starts_with("pointsman"),
                })
                .collect();
            page::bars(
                &mut page,
                picture.title,
                &bars,
                picture.digits,
                picture.mark,
            );
        }
        page.push_str("</div>\n");
    }
    page + page::END
}
