//! Runs a property over the corpus, and over what random changes make of it.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};

use crate::change::{INPUT_BYTES_MAX, changed, changes};

/// What `cargo test` does; `FUZZ_SEED` begins elsewhere.
const SEED: u64 = 20_261_122;
/// Changed inputs of one seed; `FUZZ_SECONDS` goes on with the next seeds until they are over.
const CASES: u32 = 300;

/// Bytes in which `property` fails are made small, kept in the corpus and told.
pub fn fuzz(target: &str, property: impl Fn(&[u8])) {
    fuzz_long(target, INPUT_BYTES_MAX, CASES, property);
}

/// The same with inputs of up to `bytes_max` bytes and `cases` cases of one seed.
pub fn fuzz_long(target: &str, bytes_max: usize, cases: u32, property: impl Fn(&[u8])) {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fuzz/corpus")
        .join(target);
    let corpus = corpus(&dir);
    for (file, input) in &corpus {
        let passed = catch_unwind(AssertUnwindSafe(|| property(input)));
        assert!(passed.is_ok(), "{} fails, see above", file.display());
    }
    let inputs: Vec<Vec<u8>> = corpus.into_iter().map(|(_, input)| input).collect();
    let seconds = number("FUZZ_SECONDS").unwrap_or(0);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut seed = number("FUZZ_SEED").unwrap_or(SEED);
    loop {
        println!("{target}: {cases} cases of FUZZ_SEED={seed}");
        if let Err(found) = run(seed, cases, &inputs, bytes_max, &property) {
            let file = keep(&dir, &found.input);
            panic!(
                "{target}, FUZZ_SEED={seed}: {}\ninput: {}\nkept as {}",
                found.why,
                found.input.escape_ascii(),
                file.display()
            );
        }
        if Instant::now() >= until {
            return;
        }
        seed = seed.wrapping_add(1);
    }
}

struct Found {
    why: String,
    input: Vec<u8>,
}

fn run(
    seed: u64,
    cases: u32,
    corpus: &[Vec<u8>],
    bytes_max: usize,
    property: &impl Fn(&[u8]),
) -> Result<(), Found> {
    let config = Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    };
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let input = (any::<Index>(), changes())
        .prop_map(|(of, changes)| changed(corpus, of, &changes, bytes_max));
    let result = runner.run(&input, |input| {
        let passed = catch_unwind(AssertUnwindSafe(|| property(&input)));
        passed.map_err(|panic| TestCaseError::fail(text_of(&*panic)))
    });
    result.map_err(|error| match error {
        TestError::Fail(why, input) => Found {
            why: why.to_string(),
            input,
        },
        TestError::Abort(why) => panic!("the run was given up: {why}"),
    })
}

fn text_of(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    text.unwrap_or("a panic without a text").to_owned()
}

/// In the order of their names, because the seed chooses by position.
fn corpus(dir: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let entries = fs::read_dir(dir).unwrap_or_else(|error| panic!("{}: {error}", dir.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.sort();
    assert!(!files.is_empty(), "{} is empty", dir.display());
    let read = |file: PathBuf| {
        let input = fs::read(&file).unwrap();
        (file, input)
    };
    files.into_iter().map(read).collect()
}

fn keep(dir: &Path, input: &[u8]) -> PathBuf {
    let hash = input.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
    });
    let file = dir.join(format!("found-{hash:016x}"));
    fs::write(&file, input).unwrap();
    file
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable)
        .ok()
        .filter(|text| !text.is_empty())?;
    Some(
        text.parse()
            .unwrap_or_else(|_| panic!("{variable} is no number: {text}")),
    )
}
