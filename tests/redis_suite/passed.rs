//! Which tests passed, and which need not.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Names of tests that passed and how often each did: some files run one test in several settings.
#[derive(Debug, Default)]
pub struct Passed(BTreeMap<String, usize>);

impl Passed {
    pub fn add(&mut self, name: &str) {
        *self.0.entry(name.to_owned()).or_default() += 1;
    }

    pub fn len(&self) -> usize {
        self.0.values().sum()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Names that passed here and not, or not as often, there; one for each time.
    pub fn missing_in(&self, there: &Passed) -> Vec<String> {
        let mut missing = Vec::new();
        for (name, times) in &self.0 {
            let found = there.0.get(name).copied().unwrap_or_default();
            missing.extend((found..*times).map(|_| name.clone()));
        }
        missing
    }
}

/// Tests that cannot pass, each with its reason.
#[derive(Debug)]
pub struct Exclusions {
    tests: Vec<(String, String)>,
    used: AtomicUsize,
}

impl Exclusions {
    /// Lines of `file | test | reason`; empty ones and those that begin with `#` don't count.
    pub fn read(text: &str) -> Exclusions {
        let lines = text.lines().map(str::trim);
        let meant = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
        let tests = meant.map(|line| {
            let fields: Vec<&str> = line.split('|').map(str::trim).collect();
            let [file, test, reason] = fields[..] else {
                panic!("not `file | test | reason`: {line}");
            };
            assert!(!reason.is_empty(), "without a reason: {line}");
            (file.to_owned(), test.to_owned())
        });
        Exclusions {
            tests: tests.collect(),
            used: AtomicUsize::new(0),
        }
    }

    pub fn without(&self, file: &str, missing: Vec<String>) -> Vec<String> {
        let (excluded, missing): (Vec<String>, Vec<String>) =
            missing.into_iter().partition(|name| {
                let is = |(of, test): &(String, String)| of == file && test == name;
                self.tests.iter().any(is)
            });
        self.used.fetch_add(excluded.len(), Ordering::Relaxed);
        missing
    }

    /// The tests of a file that are listed.
    pub fn of<'a>(&'a self, file: &'a str) -> impl Iterator<Item = &'a str> {
        let listed = self.tests.iter().filter(move |(of, _)| of == file);
        listed.map(|(_, test)| test.as_str())
    }

    pub fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }
}

#[test]
fn a_test_that_passes_less_often_is_missing() {
    let (mut here, mut there) = (Passed::default(), Passed::default());
    for name in ["twice", "twice", "once"] {
        here.add(name);
    }
    there.add("twice");
    there.add("elsewhere");
    assert_eq!(here.missing_in(&there), ["once", "twice"]);
    let exclusions = Exclusions::read("# file | test | why\nf | once | it sees the proxy\n");
    assert_eq!(exclusions.without("f", here.missing_in(&there)), ["twice"]);
    assert_eq!(exclusions.without("g", vec!["once".into()]), ["once"]);
}
