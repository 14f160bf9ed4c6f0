//! Pages of benchmark results: bars and curves in one file, without script, font or network.

use std::fmt::{Display, Write};

const STYLE: &str = "
:root{--fg:#1c1f24;--bg:#fff;--soft:#667;--line:#d8dbe2;--us:#2563c9;--other:#9aa4b5}
@media(prefers-color-scheme:dark){:root{--fg:#e6e8ec;--bg:#14171c;--soft:#99a;--line:#333944;--us:#6ba2ff;--other:#66707f}}
body{font:15px/1.45 system-ui,sans-serif;color:var(--fg);background:var(--bg);max-width:1100px;margin:2em auto;padding:0 1em}
h1{font-size:1.4em}h2{font-size:1.05em;margin:2em 0 .3em}p{color:var(--soft)}
.row{display:grid;grid-template-columns:repeat(3,1fr);gap:1.2em}
@media(max-width:800px){.row{grid-template-columns:1fr}}
svg{width:100%;height:auto}text{font:12px system-ui,sans-serif;fill:var(--fg)}text.soft{fill:var(--soft)}
.us{fill:var(--us)}.other{fill:var(--other)}.mark{stroke:var(--fg);stroke-dasharray:3 3}
.grid{stroke:var(--line);fill:none}.curve{stroke:var(--us);fill:none;stroke-width:1.6}
";

const WIDTH: f64 = 340.0;
const BAR: f64 = 18.0;
const STEP: f64 = 24.0;
const TOP: f64 = 24.0;
/// Room for the names of the bars, and for the figures behind them.
const LEFT: f64 = 128.0;
const RIGHT: f64 = 44.0;

/// A page up to its first picture; [`END`] ends it.
pub fn begin(title: &str, what: &str) -> String {
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width\">\
         <title>Pointsman: {0}</title>\n<style>{STYLE}</style></head><body>\n\
         <h1>{0}</h1>\n<p>{1}</p>\n",
        escaped(title),
        escaped(what)
    )
}

pub const END: &str = "</body></html>\n";

/// One bar: its name, its length, and whether it stands out.
pub struct Bar<'a> {
    pub name: &'a str,
    pub value: f64,
    pub ours: bool,
}

/// Bars with their figures behind them, and a line across at `mark`.
pub fn bars(page: &mut String, title: &str, bars: &[Bar<'_>], digits: usize, mark: Option<f64>) {
    let most = bars.iter().map(|bar| bar.value).chain(mark);
    let most = most.fold(1e-9, f64::max);
    let x = |value: f64| value / most * (WIDTH - LEFT - RIGHT);
    let height = TOP + STEP * bars.len() as f64 + 4.0;
    open(page, title, WIDTH, height);
    for (at, bar) in bars.iter().enumerate() {
        let y = TOP + STEP * at as f64;
        // Writing to a string cannot fail.
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{text:.0}\">{}</text><rect class=\"{class}\" x=\"{LEFT}\" \
             y=\"{y:.0}\" width=\"{width:.1}\" height=\"{BAR}\"/>\
             <text x=\"{behind:.1}\" y=\"{text:.0}\">{value:.digits$}</text>",
            escaped(bar.name),
            text = y + BAR - 5.0,
            class = if bar.ours { "us" } else { "other" },
            width = x(bar.value).max(0.5),
            behind = LEFT + x(bar.value) + 5.0,
            value = bar.value,
        );
    }
    if let Some(mark) = mark {
        let at = LEFT + x(mark);
        let _ = writeln!(page, "<path class=\"mark\" d=\"M{at:.1} {TOP}V{height}\"/>");
    }
    page.push_str("</svg>\n");
}

#[allow(dead_code)] // Not every benchmark draws one.
/// Figures from the smallest to the largest, on a logarithmic scale from `least` to `most`: how
/// many of them are no larger than what.
pub fn distribution(page: &mut String, title: &str, figures: &[f64], (least, most): (f64, f64)) {
    const HEIGHT: f64 = 200.0;
    const AXIS: f64 = 44.0;
    const BOTTOM: f64 = HEIGHT - 20.0;
    let mut sorted = figures.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    let (low, high) = (least.max(1e-3).log10(), most.max(1e-3).log10());
    let y = |value: f64| {
        let part = (value.max(1e-3).log10() - low) / (high - low).max(1e-9);
        BOTTOM - part.clamp(0.0, 1.0) * (BOTTOM - TOP)
    };
    let x = |part: f64| AXIS + part * (WIDTH - AXIS - 8.0);
    open(page, title, WIDTH, HEIGHT);
    for power in low.ceil() as i32..=high.floor() as i32 {
        let value = 10_f64.powi(power);
        grid(page, AXIS, y(value), WIDTH - 8.0, &value);
    }
    for (part, label) in [(0.0, "min"), (0.5, "median"), (0.99, "p99")] {
        let _ = writeln!(
            page,
            "<text class=\"soft\" x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            x(part),
            HEIGHT - 5.0
        );
    }
    let last = sorted.len().saturating_sub(1).max(1) as f64;
    let mut path = String::new();
    for (at, value) in sorted.iter().enumerate() {
        let letter = if at == 0 { 'M' } else { 'L' };
        let _ = write!(path, "{letter}{:.1} {:.1}", x(at as f64 / last), y(*value));
    }
    let _ = writeln!(page, "<path class=\"curve\" d=\"{path}\"/>");
    page.push_str("</svg>\n");
}

fn open(page: &mut String, title: &str, width: f64, height: f64) {
    let _ = writeln!(
        page,
        "<svg viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{0}\">\
         <text class=\"soft\" x=\"0\" y=\"14\">{0}</text>",
        escaped(title)
    );
}

#[allow(dead_code)]
fn grid(page: &mut String, from: f64, y: f64, to: f64, label: &impl Display) {
    let _ = writeln!(
        page,
        "<path class=\"grid\" d=\"M{from} {y:.1}H{to}\"/>\
         <text class=\"soft\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{label}</text>",
        from - 5.0,
        y + 4.0
    );
}

pub fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
