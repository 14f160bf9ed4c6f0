//! What operators write and what crashes leave: the config and the journal.

use std::fs;
use std::path::Path;

use pointsman::config::{Config, ConfigErrors};
use pointsman::switchover::journal::{Journal, JournalError};

use crate::runner::fuzz_long;

const FILE_BYTES: usize = 4096;
/// Each opens and syncs files.
const JOURNAL_CASES: u32 = 60;

fn check_problems(text: &str, errors: &ConfigErrors) {
    assert!(!errors.problems().is_empty(), "refused without a problem");
    for problem in errors.problems() {
        let lines = text.matches('\n').count() + 1;
        assert!((1..=lines).contains(&problem.line), "{problem:?}");
        let line = text.split('\n').nth(problem.line - 1).unwrap_or_default();
        let columns = line.chars().count() + 1;
        assert!((1..=columns).contains(&problem.column), "{problem:?}");
        assert!(!problem.message.is_empty());
    }
}

fn check_ranges(config: &Config) {
    let proxy = &config.proxy;
    assert!(proxy.workers <= 256 && proxy.lanes <= 1024);
    assert!((1..=1_000_000).contains(&proxy.clients_max));
    assert!((1..=1_000_000).contains(&proxy.pipeline_max));
    assert!((64..=16 << 20).contains(&proxy.inline_bytes_max));
    assert!((1..=i32::MAX as u64).contains(&proxy.elements_max));
    assert!(!config.shards.is_empty());
    assert!(config.shards.iter().all(|shard| !shard.nodes.is_empty()));
}

#[test]
fn a_config_is_valid_or_every_problem_has_a_place_in_it() {
    fuzz_long("config", FILE_BYTES, 300, |input| {
        let text = String::from_utf8_lossy(input);
        let parsed = Config::parse(&text, "fuzz.toml");
        match &parsed {
            Ok(config) => check_ranges(config),
            Err(errors) => check_problems(&text, errors),
        }
        let again = Config::parse(&format!("{text}\n# a word\n"), "fuzz.toml");
        if let (Ok(config), Ok(again)) = (&parsed, &again) {
            assert_eq!(config, again, "a comment changes it");
        }
        assert!(parsed.is_err() || again.is_ok(), "a comment breaks it");
    });
}

/// What a proxy that starts finds in a journal of these bytes.
fn open(dir: &tempfile::TempDir, bytes: &[u8]) -> Result<String, usize> {
    fs::write(dir.path().join("pointsman-a.journal"), bytes).unwrap();
    reopen(dir)
}

fn reopen(dir: &tempfile::TempDir) -> Result<String, usize> {
    match Journal::open(dir.path(), "a") {
        Ok(journal) => Ok(format!("{:?}", journal.unfinished())),
        Err(JournalError::Damaged { line, .. }) => Err(line),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn a_journal_is_read_as_far_as_its_lines_are_whole_or_refused_by_line() {
    fuzz_long("journal", FILE_BYTES, JOURNAL_CASES, |bytes| {
        let dir = tempfile::tempdir().unwrap();
        let found = open(&dir, bytes);
        match &found {
            Ok(unfinished) => {
                assert_eq!(
                    reopen(&dir).as_ref(),
                    Ok(unfinished),
                    "after it was rewritten"
                );
            }
            Err(line) => {
                let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
                assert!((1..=lines).contains(line), "line {line} of {lines}");
                let left = fs::read(dir.path().join("pointsman-a.journal")).unwrap();
                assert_eq!(left, bytes, "evidence is left as it is");
            }
        }
        let whole = bytes
            .iter()
            .rposition(|&byte| byte == b'\n')
            .map_or(0, |end| end + 1);
        assert_eq!(
            open(&dir, &bytes[..whole]),
            found,
            "a line without its end counts"
        );
        let torn = [&bytes[..whole], br#"{"record":"begin","opera"#].concat();
        assert_eq!(open(&dir, &torn), found, "a torn line counts");
    });
}

// Changes of what is refused from the first byte on would be refused as well, and prove nothing.
#[test]
fn the_corpus_has_files_that_are_what_they_should_be() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus");
    for config in ["minimal.toml", "options.toml"] {
        let read = Config::load(corpus.join("config").join(config));
        read.unwrap_or_else(|errors| panic!("{errors}"));
    }
    let dir = tempfile::tempdir().unwrap();
    for (journal, unfinished) in [
        ("begun", r#"operation: "one""#),
        ("begun-again", r#"operation: "two""#),
        ("ended", "None"),
        ("torn", r#"operation: "one""#),
    ] {
        let bytes = fs::read(corpus.join("journal").join(journal)).unwrap();
        let found = open(&dir, &bytes).unwrap_or_else(|line| panic!("{journal}, line {line}"));
        assert!(found.contains(unfinished), "{journal}: {found}");
    }
}
