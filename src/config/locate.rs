//! Where in the file a problem is, and how it is shown.
//!
//! **Invariant:** an excerpt never shows the value of a key that may be a password: everything
//! behind the equals sign is replaced, also when the line is not even TOML.

use std::fmt::Write as _;
use std::ops::Range;

/// Longer lines are cut in the excerpt.
const EXCERPT_CHARS_MAX: usize = 120;
/// More problems than this are counted instead of shown: the first ones are what to repair first.
const PROBLEMS_SHOWN_MAX: usize = 50;
/// A line in which one of these stands is shown without its values.
const SECRET_WORDS: [&str; 5] = ["pass", "pwd", "secret", "auth", "token"];

/// One thing that is wrong with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Counted from 1.
    pub line: usize,
    /// In characters, counted from 1.
    pub column: usize,
    /// What is wrong and what to do.
    pub message: String,
    /// The line, with secrets replaced; empty when there is no line to show.
    pub excerpt: String,
    /// How many characters of the excerpt are meant.
    pub width: usize,
}

/// How much of the faulty line may be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Excerpt {
    /// The whole line, unless a word in it looks like a password's key.
    Line,
    /// Only what is left of the equals sign: nobody knows what the value of an unknown key is.
    KeyOnly,
    /// No line, because what is meant is not in the file.
    Absent,
}

/// Makes a problem out of a span in bytes.
pub fn problem(text: &str, span: Range<usize>, message: String, excerpt: Excerpt) -> Problem {
    let start = floor_boundary(text, span.start);
    let end = floor_boundary(text, span.end.max(start));
    let before = text.get(..start).unwrap_or_default();
    let line_start = before.rfind('\n').map_or(0, |at| at + 1);
    let rest = text.get(line_start..).unwrap_or_default();
    let line = rest.lines().next().unwrap_or_default();
    let column = before.get(line_start..).unwrap_or_default().chars().count() + 1;
    let spanned = text.get(start..end).unwrap_or_default();
    let meant = spanned.lines().next().unwrap_or_default().chars().count();
    let shown = match excerpt {
        Excerpt::Absent => String::new(),
        Excerpt::Line | Excerpt::KeyOnly => shown(line, excerpt),
    };
    Problem {
        line: before.matches('\n').count() + 1,
        column,
        message,
        width: meant.clamp(1, (shown.chars().count() + 1).saturating_sub(column).max(1)),
        excerpt: shown,
    }
}

/// All problems as one text, in the order of the file.
pub fn listing(file_name: &str, problems: &[Problem]) -> String {
    let mut out = String::new();
    for problem in problems.iter().take(PROBLEMS_SHOWN_MAX) {
        let Problem {
            line,
            column,
            message,
            ..
        } = problem;
        let _ = writeln!(out, "{file_name}:{line}:{column}: {message}");
        if !problem.excerpt.is_empty() {
            let number = line.to_string();
            let margin = " ".repeat(number.len());
            let indent = " ".repeat(column - 1);
            let carets = "^".repeat(problem.width);
            let _ = writeln!(out, "  {number} | {}", problem.excerpt);
            let _ = writeln!(out, "  {margin} | {indent}{carets}");
        }
    }
    match problems.len() {
        1 => out.push_str("1 problem in the config file"),
        count => {
            let _ = write!(out, "{count} problems in the config file");
        }
    }
    if problems.len() > PROBLEMS_SHOWN_MAX {
        let _ = write!(out, ", the first {PROBLEMS_SHOWN_MAX} are shown");
    }
    out
}

/// The line as it may be shown.
fn shown(line: &str, excerpt: Excerpt) -> String {
    let lower = line.to_ascii_lowercase();
    let secret = SECRET_WORDS
        .iter()
        .filter_map(|word| lower.find(word))
        .min();
    let hide_from = match excerpt {
        Excerpt::KeyOnly => Some(0),
        Excerpt::Line | Excerpt::Absent => secret,
    };
    let hidden = hide_from.and_then(|from| {
        let equals = from + line.get(from..)?.find('=')?;
        Some(format!("{} ***", line.get(..=equals)?))
    });
    // A line with a suspicious word and no equals sign may be the inside of a multi-line string.
    let shown = match (hidden, secret) {
        (Some(hidden), _) => hidden,
        (None, Some(_)) => "***".to_owned(),
        (None, None) => line.to_owned(),
    };
    let shown = shown.replace('\t', " ");
    if shown.chars().count() <= EXCERPT_CHARS_MAX {
        return shown;
    }
    shown
        .chars()
        .take(EXCERPT_CHARS_MAX)
        .chain("...".chars())
        .collect()
}

/// The nearest position at or before `at` that does not split a character.
fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}
