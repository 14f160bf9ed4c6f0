use super::*;
use crate::switchover::plan::Dialect;

fn begun(operation: &str) -> Begin {
    Begin {
        operation: operation.to_owned(),
        shard: "a".to_owned(),
        from: "h:1".to_owned(),
        to: "h:2".to_owned(),
        others: vec!["h:3".to_owned()],
        engine: "redis".to_owned(),
        role_command: "REPLICAOF".to_owned(),
        sink_host: "127.0.0.1".to_owned(),
        sink_port: 1,
        replica_read_only: "yes".to_owned(),
        facts: Facts {
            dialect: Dialect::Redis,
            knows_pause: true,
            lag: 0,
            lag_small: 1,
            old_is_down: false,
        },
        terms: Terms::default(),
        started_at_ms: 7,
        old_life: None,
        target_offset: 0,
        sentinel_terms: Vec::new(),
    }
}

fn directory() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn file_of(directory: &tempfile::TempDir) -> PathBuf {
    directory.path().join("pointsman-a.journal")
}

#[test]
fn an_operation_without_an_end_is_found_again() {
    let directory = directory();
    let mut journal = Journal::open(directory.path(), "a").unwrap();
    assert_eq!(journal.unfinished(), None);
    journal.begin(&begun("one")).unwrap();
    journal.end("one", Outcome::Switched).unwrap();
    journal.begin(&begun("two")).unwrap();
    drop(journal);
    let mut journal = Journal::open(directory.path(), "a").unwrap();
    assert_eq!(journal.unfinished(), Some(&begun("two")));
    journal.end("two", Outcome::RolledBack).unwrap();
    drop(journal);
    let journal = Journal::open(directory.path(), "a").unwrap();
    assert_eq!(journal.unfinished(), None);
    assert_eq!(
        std::fs::metadata(file_of(&directory)).unwrap().len(),
        0,
        "rewritten compactly"
    );
}

#[test]
fn a_write_torn_at_any_byte_leaves_what_was_durable_before() {
    let first = encode(&Line::Begin(Box::new(begun("one"))));
    let outcome = Outcome::Switched;
    let second = encode(&Line::End {
        operation: "one".to_owned(),
        outcome,
    });
    let whole = [first.clone(), second].concat();
    for cut in 0..=whole.len() {
        let directory = directory();
        std::fs::write(file_of(&directory), &whole[..cut]).unwrap();
        let mut journal = Journal::open(directory.path(), "a").unwrap();
        let expected = (first.len()..whole.len())
            .contains(&cut)
            .then(|| begun("one"));
        assert_eq!(journal.unfinished(), expected.as_ref(), "torn at {cut}");
        journal.begin(&begun("two")).unwrap();
        drop(journal);
        let journal = Journal::open(directory.path(), "a").unwrap();
        assert_eq!(journal.unfinished(), Some(&begun("two")), "torn at {cut}");
    }
}

#[test]
fn damage_before_the_last_line_is_told_and_not_guessed_over() {
    let directory = directory();
    let mut text = b"{\"record\":\"beg\n".to_vec();
    text.extend(encode(&Line::Begin(Box::new(begun("one")))));
    std::fs::write(file_of(&directory), text).unwrap();
    let error = Journal::open(directory.path(), "a").unwrap_err();
    assert!(
        matches!(error, JournalError::Damaged { line: 1, .. }),
        "{error}"
    );
}

#[test]
fn a_second_proxy_is_kept_out_while_the_first_runs() {
    let directory = directory();
    let _first = Journal::open(directory.path(), "a").unwrap();
    let error = Journal::open(directory.path(), "a").unwrap_err();
    assert!(matches!(error, JournalError::InUse { .. }), "{error}");
    Journal::open(directory.path(), "b").unwrap();
}

#[test]
fn an_unwritable_directory_is_an_error_that_names_the_setting() {
    let error = Journal::open(Path::new("/proc/nowhere"), "a").unwrap_err();
    assert!(error.to_string().contains("state_dir"), "{error}");
}

#[test]
fn a_full_disk_is_an_error_at_the_record_and_nothing_is_remembered() {
    // /dev/full refuses every write as a full disk does.
    let full = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/full")
        .unwrap();
    let path = PathBuf::from("/dev/full");
    let mut journal = Journal {
        path,
        file: full,
        len: 0,
        unfinished: None,
    };
    assert!(journal.begin(&begun("one")).is_err());
    assert_eq!(journal.unfinished(), None);
}

#[test]
fn a_long_journal_begins_anew_and_still_finds_the_newest_operation() {
    let directory = directory();
    let mut journal = Journal::open(directory.path(), "a").unwrap();
    journal.len = COMPACT_BYTES + 1;
    journal.begin(&begun("one")).unwrap();
    assert!(std::fs::metadata(file_of(&directory)).unwrap().len() < 4096);
    let again = Journal::open(directory.path(), "a");
    assert!(
        matches!(again, Err(JournalError::InUse { .. })),
        "{again:?}"
    );
    drop(journal);
    let journal = Journal::open(directory.path(), "a").unwrap();
    assert_eq!(journal.unfinished(), Some(&begun("one")));
}
