//! Reads typed values out of toml's spanned tree and collects what is wrong instead of stopping.
//!
//! **Invariant:** a value that is wrong is reported once and read as its default, so that reading
//! can go on to the next key.

use std::ops::{Range, RangeInclusive};

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::check::Key;
use super::locate::{self, Excerpt, Problem};

/// How far a misspelled key may be from a known one to be taken for it.
const TYPO_DISTANCE_MAX: usize = 3;

/// What reading has brought to light so far.
pub struct Findings<'t> {
    text: &'t str,
    problems: Vec<Problem>,
    keys: Vec<Key>,
}

impl<'t> Findings<'t> {
    pub fn new(text: &'t str) -> Self {
        Findings {
            text,
            problems: Vec::new(),
            keys: Vec::new(),
        }
    }

    pub fn report(&mut self, span: Range<usize>, message: String) {
        let problem = locate::problem(self.text, span, message, Excerpt::Line);
        self.problems.push(problem);
    }

    pub fn report_key(&mut self, span: Range<usize>, message: String) {
        let problem = locate::problem(self.text, span, message, Excerpt::KeyOnly);
        self.problems.push(problem);
    }

    /// Something that should stand in the file and does not.
    pub fn report_absent(&mut self, message: String) {
        let problem = locate::problem(self.text, 0..0, message, Excerpt::Absent);
        self.problems.push(problem);
    }

    pub fn is_clean(&self) -> bool {
        self.problems.is_empty()
    }

    /// Every problem in the order of the file, and every key that was looked for.
    pub fn finish(mut self) -> (Vec<Problem>, Vec<Key>) {
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        (self.problems, self.keys)
    }
}

/// Whether what the file only names, secrets and certificates, is fetched from where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outside {
    Read,
    Skip,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub struct Found<T> {
    pub value: T,
    pub span: Range<usize>,
}

/// One table of the file, read key by key.
pub struct Section<'a, 't> {
    findings: &'a mut Findings<'t>,
    /// As the file spells it: `[proxy]` or `[[shard]]`.
    header: &'static str,
    table: Option<&'a DeTable<'a>>,
    span: Range<usize>,
    known: Vec<&'static str>,
}

impl<'a, 't> Section<'a, 't> {
    /// `table` is `None` when the file has no such table: everything is then at its default.
    pub fn new(
        findings: &'a mut Findings<'t>,
        header: &'static str,
        table: Option<&'a DeTable<'a>>,
        span: Range<usize>,
    ) -> Self {
        Section {
            findings,
            header,
            table,
            span,
            known: Vec::new(),
        }
    }

    /// Reports something that only the caller can judge.
    pub fn report(&mut self, span: Range<usize>, message: String) {
        self.findings.report(span, message);
    }

    /// [`Section::report`] at the value of a key that is written.
    pub fn report_at(&mut self, key: &str, message: String) {
        if let Some(value) = self.get(key) {
            self.findings.report(value.span(), message);
        }
    }

    pub fn is_written(&self, key: &str) -> bool {
        self.get(key).is_some()
    }

    pub fn number(&mut self, key: &'static str, default: u64, range: RangeInclusive<u64>) -> u64 {
        self.know(key, Some(default.to_string()));
        let Some(value) = self.get(key) else {
            return default;
        };
        let Some(integer) = value.get_ref().as_integer() else {
            self.wrong_type(key, value, "a number without quotes");
            return default;
        };
        match u64::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) if range.contains(&number) => number,
            _ => {
                let (low, high) = range.into_inner();
                let given = excerpt_of(integer.as_str());
                self.findings.report(
                    value.span(),
                    format!("`{key}` is {given}: set it to a number from {low} to {high}"),
                );
                default
            }
        }
    }

    pub fn flag(&mut self, key: &'static str, default: bool) -> bool {
        self.know(key, Some(default.to_string()));
        let Some(value) = self.get(key) else {
            return default;
        };
        value.get_ref().as_bool().unwrap_or_else(|| {
            self.wrong_type(key, value, "true or false without quotes");
            default
        })
    }

    /// One of a few words, each standing for a value.
    pub fn choice<T: Copy>(
        &mut self,
        key: &'static str,
        default: (&str, T),
        others: &[(&str, T)],
    ) -> T {
        self.know(key, Some(format!("\"{}\"", default.0)));
        let Some(given) = self.text_of(key) else {
            return default.1;
        };
        let mut words = std::iter::once(&default).chain(others);
        if let Some((_, value)) = words.find(|(word, _)| *word == given.value) {
            return *value;
        }
        let words = std::iter::once(&default).chain(others);
        let allowed: Vec<_> = words.map(|(word, _)| format!("\"{word}\"")).collect();
        let (wrong, allowed) = (excerpt_of(&given.value), allowed.join(" or "));
        self.report(
            given.span,
            format!("`{key}` is \"{wrong}\": set it to {allowed}"),
        );
        default.1
    }

    /// A text that may be left out.
    pub fn text(&mut self, key: &'static str, default: Option<&str>) -> Option<Found<String>> {
        self.know(key, default.map(|default| format!("\"{default}\"")));
        let found = self.text_of(key)?;
        if found.value.is_empty() {
            self.findings.report(
                found.span,
                format!("`{key}` is empty: write a value or remove the key"),
            );
            return None;
        }
        Some(found)
    }

    /// A text that must be there.
    pub fn required_text(&mut self, key: &'static str, example: &str) -> Option<Found<String>> {
        self.require(key, example);
        self.text(key, None)
    }

    /// A list of texts that must be there; entries of another type are reported and left out.
    pub fn required_texts(&mut self, key: &'static str, example: &str) -> Vec<Found<String>> {
        self.require(key, example);
        self.texts(key, example)
    }

    /// A list of texts, empty when it is not there; what is written must not be empty.
    pub fn texts(&mut self, key: &'static str, example: &str) -> Vec<Found<String>> {
        self.know(key, None);
        let Some(value) = self.get(key) else {
            return Vec::new();
        };
        let Some(array) = value.get_ref().as_array() else {
            self.wrong_type(key, value, &format!("a list of texts, as in {example}"));
            return Vec::new();
        };
        if array.is_empty() {
            let message = format!("`{key}` is empty: write at least one, as in {example}");
            self.findings.report(value.span(), message);
        }
        let mut texts = Vec::new();
        for (index, entry) in array.iter().enumerate() {
            match entry.get_ref().as_str() {
                Some(text) => texts.push(Found {
                    value: text.to_owned(),
                    span: entry.span(),
                }),
                None => self.wrong_type(&format!("{key}[{index}]"), entry, "a text in quotes"),
            }
        }
        texts
    }

    /// Reports every key that nobody asked for.
    pub fn finish(self) {
        let Section {
            findings,
            header,
            table,
            known,
            ..
        } = self;
        report_unknown(findings, &format!("in {header}"), table, &known);
    }

    fn know(&mut self, key: &'static str, default: Option<String>) {
        self.known.push(key);
        self.findings.keys.push(Key {
            section: self.header,
            name: key,
            default,
        });
    }

    fn require(&mut self, key: &'static str, example: &str) {
        // A table that is missing as a whole was reported by who looked for it.
        if self.table.is_some() && self.get(key).is_none() {
            let message = format!("{} has no `{key}`: add {key} = {example}", self.header);
            self.findings.report(self.span.clone(), message);
        }
    }

    fn get(&self, key: &str) -> Option<&'a Spanned<DeValue<'a>>> {
        self.table?.get(key)
    }

    fn text_of(&mut self, key: &'static str) -> Option<Found<String>> {
        let value = self.get(key)?;
        match value.get_ref().as_str() {
            Some(text) => Some(Found {
                value: text.to_owned(),
                span: value.span(),
            }),
            None => {
                self.wrong_type(key, value, "a text in quotes");
                None
            }
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Spanned<DeValue<'_>>, wanted: &str) {
        let is = type_name(value.get_ref());
        self.findings
            .report(value.span(), format!("`{key}` is {is}: write {wanted}"));
    }
}

/// Reports every key of a table that is not in the list.
pub fn report_unknown(
    findings: &mut Findings<'_>,
    place: &str,
    table: Option<&DeTable<'_>>,
    known: &[&str],
) {
    for key in table.into_iter().flat_map(|table| table.keys()) {
        let name = key.get_ref().as_ref();
        if known.contains(&name) {
            continue;
        }
        let advice = match nearest(name, known) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("the keys are {}", known.join(", ")),
        };
        let message = format!("there is no key `{}` {place}: {advice}", excerpt_of(name));
        findings.report_key(key.span(), message);
    }
}

/// The type of a value, as a person would call it.
pub fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a text",
        DeValue::Integer(_) => "a number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

/// A given text, cut to what fits in a message.
pub fn excerpt_of(text: &str) -> String {
    const CHARS_MAX: usize = 64;
    let short: String = text
        .chars()
        .take(CHARS_MAX)
        .flat_map(char::escape_debug)
        .collect();
    if text.chars().count() > CHARS_MAX {
        format!("{short}...")
    } else {
        short
    }
}

/// The known key that was probably meant.
fn nearest<'k>(name: &str, known: &[&'k str]) -> Option<&'k str> {
    let plain = name.to_ascii_lowercase().replace('-', "_");
    let distances = known.iter().map(|known| (distance(&plain, known), *known));
    let (distance, near) = distances.min()?;
    let prefix = known.iter().find(|known| {
        plain.len() >= TYPO_DISTANCE_MAX
            && (known.starts_with(&plain) || plain.starts_with(**known))
    });
    if distance <= TYPO_DISTANCE_MAX && distance * 2 < plain.len() {
        return Some(near);
    }
    prefix.copied()
}

/// How many characters must be inserted, removed or replaced to turn one text into the other.
fn distance(left: &str, right: &str) -> usize {
    let right: Vec<char> = right.chars().collect();
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (above, l) in left.chars().enumerate() {
        let mut next = vec![above + 1];
        for ((r, diagonal), up) in right.iter().zip(&row).zip(row.iter().skip(1)) {
            let beside = next.last().copied().unwrap_or_default();
            next.push(
                (diagonal + usize::from(l != *r))
                    .min(up + 1)
                    .min(beside + 1),
            );
        }
        row = next;
    }
    row.last().copied().unwrap_or_default()
}
