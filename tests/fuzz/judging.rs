//! What requests and refusals mean: `classify` and `judge`.

use pointsman::resp::command::{Path, Verdict, classify, is_known};
use pointsman::resp::refusal::{self, judge};

use crate::counting::asked_by;
use crate::runner::{fuzz, fuzz_long};

/// Enough for an error line past the limit of a kilobyte.
const LINE_BYTES: usize = 1500;

/// The verdict when only the first `known` words can be seen.
fn verdict(words: &[Vec<u8>], known: usize) -> Verdict {
    let name = words.first().map(Vec::as_slice).unwrap_or_default();
    let arg = |at: usize| words.get(at).filter(|_| at < known).map(Vec::as_slice);
    let (verdict, asked) = asked_by(|| classify(name, arg, words.len().max(1)));
    assert_eq!(asked, 0, "a verdict allocates");
    verdict
}

/// Whether `lax` lets something through that `strict` does not.
fn is_laxer(lax: &Verdict, strict: &Verdict) -> bool {
    let held = strict.writes && !lax.writes;
    held || (lax.path == Path::Lane && strict.path != Path::Lane)
}

#[test]
fn a_command_is_judged_by_its_words_whatever_their_case_and_never_laxer_for_knowing_less() {
    fuzz("commands", |input| {
        let words: Vec<Vec<u8>> = input
            .split(|&byte| byte == b' ')
            .map(<[u8]>::to_vec)
            .collect();
        let known = verdict(&words, words.len());
        for fold in [<[u8]>::to_ascii_uppercase, <[u8]>::to_ascii_lowercase] {
            let folded: Vec<Vec<u8>> = words.iter().map(|word| fold(word)).collect();
            assert_eq!(verdict(&folded, folded.len()), known);
        }
        for seen in 1..words.len() {
            let guessed = verdict(&words, seen);
            assert!(
                !is_laxer(&guessed, &known),
                "{seen} words: {guessed:?}, all: {known:?}"
            );
        }
        if !is_known(&words[0], None) {
            assert!(known.writes && known.path != Path::Lane, "{known:?}");
        }
    });
}

#[test]
fn a_refusal_once_judged_stays_what_it_is() {
    fuzz_long("refusals", LINE_BYTES, 300, |input| {
        // The caller has seen a dash.
        let line = [b"-", input].concat();
        let whole = judge(&line);
        for cut in 1..line.len() {
            let (judged, asked) = asked_by(|| judge(&line[..cut]));
            assert_eq!(asked, 0, "a verdict allocates");
            match judged {
                refusal::Verdict::Incomplete => {
                    assert!(
                        cut < 1024 && !line[..cut].contains(&b'\n'),
                        "{cut} bytes wait"
                    );
                }
                judged => assert_eq!(judged, whole, "after {cut} bytes"),
            }
        }
        if let refusal::Verdict::Refused(refused) = whole {
            assert_eq!(refusal::refusal(&line), Some(refused));
        }
    });
}
