//! Random changes of an input that shrink towards no change at all.

use proptest::prelude::*;
use proptest::sample::Index;

use crate::tokens::TOKENS;

/// Longer inputs are cut: every place to split one is tried.
pub const INPUT_BYTES_MAX: usize = 400;

/// What breaks other formats than the protocol.
const TOKENS_OF_FILES: &[&str] = &[
    "\\x",
    "[",
    "]",
    "{",
    "}",
    "PING\r\n",
    "BLOCK",
    "STREAMS",
    "\u{e9}",
    "-READONLY ",
    "\"record\":",
    "null",
    "[[shard]]\n",
    "= ",
];

/// What is done at one place.
#[derive(Clone, Debug)]
pub struct Change {
    at: Index,
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Insert(Vec<u8>),
    Overwrite(Vec<u8>),
    Delete(usize),
    /// The next bytes, so many, come so often.
    Repeat(usize, usize),
    /// Everything behind it is taken from another input of the corpus.
    Splice(Index, Index),
}

pub fn changes() -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec(change(), 0..6)
}

fn change() -> impl Strategy<Value = Change> {
    let what = prop_oneof![
        4 => bytes().prop_map(What::Insert),
        4 => bytes().prop_map(What::Overwrite),
        3 => (1_usize..40).prop_map(What::Delete),
        1 => (1_usize..12, 2_usize..60).prop_map(|(len, times)| What::Repeat(len, times)),
        2 => any::<(Index, Index)>().prop_map(|(other, from)| What::Splice(other, from)),
    ];
    (any::<Index>(), what).prop_map(|(at, what)| Change { at, what })
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        3 => prop::sample::select([TOKENS, TOKENS_OF_FILES].concat()).prop_map(|token| token.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 1..6),
        1 => "[0-9]{1,20}".prop_map(String::into_bytes),
    ]
}

/// One input of the corpus after some changes.
pub fn changed(corpus: &[Vec<u8>], of: Index, changes: &[Change], bytes_max: usize) -> Vec<u8> {
    let mut input = of.get(corpus).clone();
    for change in changes {
        let at = change.at.index(input.len() + 1);
        let end = |len: usize| (at + len).min(input.len());
        match &change.what {
            What::Insert(bytes) => drop(input.splice(at..at, bytes.iter().copied())),
            What::Overwrite(bytes) => {
                drop(input.splice(at..end(bytes.len()), bytes.iter().copied()));
            }
            What::Delete(len) => drop(input.drain(at..end(*len))),
            What::Repeat(len, times) => {
                let repeated = input[at..end(*len)].repeat(*times);
                drop(input.splice(at..at, repeated));
            }
            What::Splice(other, from) => {
                let other = other.get(corpus);
                input.truncate(at);
                input.extend_from_slice(&other[from.index(other.len() + 1)..]);
            }
        }
        input.truncate(bytes_max);
    }
    input
}
