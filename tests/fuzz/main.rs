//! Bytes that nobody would send in good faith, against everything that reads bytes.
//!
//! **Claims:** what is read is the same however it arrives; a length that is told lies within what
//! came; a limit is never exceeded; what a peer merely announces costs no memory; files that are
//! not what they should be are refused with the place, or read as far as they are whole.
//!
//! Each target starts from the files in `corpus/<target>`, which run as they are each time, and
//! changes them at random. The seed is fixed, so that `cargo test` does the same everywhere;
//! `make fuzz` takes others for as long as it is given. What fails is made small and kept in the
//! corpus.
//!
//! Trade-off: without coverage to guide it, it finds less than libFuzzer does in the same time, but
//! it runs on the stable compiler, in every `cargo test`, and a find is a file that everybody runs.

mod change;
mod counting;
mod files;
mod inline;
mod judging;
mod replies;
mod requests;
mod runner;
#[path = "../protocol/tokens.rs"]
mod tokens;
