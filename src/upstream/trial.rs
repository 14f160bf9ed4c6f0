//! The question with which the proxy tries a connection: one that is new, before it serves anybody,
//! and one that has to say that it has come to some point.
//!
//! `MONITOR` shows it, and a client that monitors asks what clients do: the question bears a word
//! by which its line is known, and left out.
//!
//! **Invariant:** the word is another in every run of the proxy, so that nobody else can use it to
//! stay unseen. Two proxies before one server see each other's.

use std::hash::{BuildHasher, RandomState};
use std::sync::LazyLock;

use bytes::{Bytes, BytesMut};

use crate::resp::scan::write_request;

struct Trial {
    request: Bytes,
    /// How a line of `MONITOR` about it ends.
    shown: Vec<u8>,
}

static TRIAL: LazyLock<Trial> = LazyLock::new(|| {
    let random = || RandomState::new().hash_one(0);
    let word = format!("pointsman-{:016x}{:016x}", random(), random());
    let mut request = BytesMut::new();
    write_request(&mut request, &["PING", &word]);
    Trial {
        request: request.freeze(),
        shown: format!("] \"PING\" \"{word}\"\r\n").into_bytes(),
    }
});

/// `PING` with the word.
pub fn request() -> &'static [u8] {
    &TRIAL.request
}

/// Whether a line of `MONITOR` is about it.
pub fn is_shown_in(line: &[u8]) -> bool {
    line.ends_with(&TRIAL.shown)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resp::scan::args;

    #[test]
    fn only_the_line_of_the_trial_is_known_by_its_word() {
        let word = args(request()).nth(1).map(String::from_utf8_lossy).unwrap();
        let shown = |asked: &str| {
            is_shown_in(format!("+1795366467.166000 [0 127.0.0.1:46076] {asked}\r\n").as_bytes())
        };
        assert!(shown(&format!("\"PING\" \"{word}\"")));
        assert!(!shown("\"PING\""));
        assert!(!shown("\"PING\" \"pointsman\""));
        assert!(!shown(&format!("\"SET\" \"k\" \"{word}\"")));
    }
}
