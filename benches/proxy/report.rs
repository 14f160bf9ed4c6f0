//! The page of a run: for each workload, bars of throughput, latency and CPU over all paths.
//!
//! One file with its pictures in it: no script, no font, no network.

use std::fmt::Write;

use crate::table::Row;

const STYLE: &str = "
:root{--fg:#1c1f24;--bg:#fff;--soft:#667;--line:#d8dbe2;--us:#2563c9;--other:#9aa4b5}
@media(prefers-color-scheme:dark){:root{--fg:#e6e8ec;--bg:#14171c;--soft:#99a;--line:#333944;--us:#6ba2ff;--other:#66707f}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.4em}h2{font-size:1.05em;margin:2em 0 .3em}p{color:var(--soft)}
.row{display:grid;grid-template-columns:repeat(3,1fr);gap:1.2em}
@media(max-width:800px){.row{grid-template-columns:1fr}}
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:var(--fg)}text.soft{fill:var(--soft)}
.us{fill:var(--us)}.other{fill:var(--other)}.mark{stroke:var(--fg);stroke-dasharray:3 3}
";

const WIDTH: f64 = 340.0;
const BAR: f64 = 18.0;
const STEP: f64 = 24.0;
const TOP: f64 = 24.0;
/// Room for the names of the paths, and for the figures behind the bars.
const LEFT: f64 = 128.0;
const RIGHT: f64 = 44.0;

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
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Pointsman: what the proxy costs</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>What the proxy costs</h1>\n<p>Medians over interleaved rounds; {}.</p>\n",
        escaped(machine)
    );
    for group in rows.chunk_by(|a, b| a.workload == b.workload) {
        let Some(first) = group.first() else { continue };
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<h2>{}</h2>\n<div class=\"row\">",
            escaped(&first.workload)
        );
        for picture in &PICTURES {
            bars(&mut page, picture, group);
        }
        page.push_str("</div>\n");
    }
    page + "</body></html>\n"
}

fn bars(page: &mut String, picture: &Picture, rows: &[Row]) {
    let figures: Vec<(&str, f64)> = rows
        .iter()
        .filter_map(|row| Some((row.path, (picture.figure)(row)?)))
        .collect();
    let most = figures.iter().map(|one| one.1).chain(picture.mark);
    let most = most.fold(1e-9, f64::max);
    let x = |value: f64| value / most * (WIDTH - LEFT - RIGHT);
    let height = TOP + STEP * figures.len() as f64 + 4.0;
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\" aria-label=\"{0}\">\
         <text class=\"soft\" x=\"0\" y=\"14\">{0}</text>",
        picture.title
    );
    for (at, (path, value)) in figures.iter().enumerate() {
        let y = TOP + STEP * at as f64;
        let class = if path.starts_with("pointsman") {
            "us"
        } else {
            "other"
        };
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{text:.0}\">{}</text><rect class=\"{class}\" x=\"{LEFT}\" \
             y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR}\"/>\
             <text x=\"{behind:.1}\" y=\"{text:.0}\">{value:.digits$}</text>",
            escaped(path),
            text = y + BAR - 5.0,
            width = x(*value).max(0.5),
            behind = LEFT + x(*value) + 5.0,
            digits = picture.digits,
        );
    }
    if let Some(mark) = picture.mark {
        let at = LEFT + x(mark);
        let _ = writeln!(page, "<path class=\"mark\" d=\"M{at:.1} {TOP}V{height}\"/>");
    }
    page.push_str("</svg>\n");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
