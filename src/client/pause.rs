//! A pause that a client of this proxy has set (`CLIENT PAUSE`), as long as it is known to last.
//!
//! A server that is paused stops reading a connection at its first write. On a lane that would
//! stop everybody behind it, reads included, and the server would count one blocked client for all
//! of them. So while a pause lasts, what it may stop goes on connections of the sessions' own.
//!
//! **Invariants:** the pause is noted before it is sent, so that no write is put on a lane behind
//! it. A request pays one plain load for this as long as there is no pause, and reads no clock.
//!
//! Trade-off: a pause that somebody sets past the proxy is not known here; reads and writes have
//! lanes of their own for that case.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Longer pauses are taken for this one: 100 years in milliseconds.
const PAUSE_MS_MAX: u64 = 100 * 365 * 24 * 3_600_000;

/// The pause of one shard, shared by its workers.
#[derive(Debug, Clone)]
pub struct Pause {
    /// 0, or the millisecond of `origin` in which it ends, times two, plus one if reads are paused.
    state: Arc<AtomicU64>,
    origin: Instant,
}

/// A pause that was noted and not answered yet.
#[derive(Debug, Clone, Copy)]
pub struct Noted {
    before: u64,
    set: u64,
}

impl Default for Pause {
    fn default() -> Self {
        Self {
            state: Arc::default(),
            origin: Instant::now(),
        }
    }
}

impl Pause {
    /// Whether a request may be stopped by a pause.
    #[inline]
    pub fn stops(&self, write: bool) -> bool {
        match self.state.load(Ordering::Relaxed) {
            0 => false,
            state => self.lasts(state) && (write || state & 1 == 1),
        }
    }

    #[cold]
    fn lasts(&self, state: u64) -> bool {
        if self.now_ms() <= state >> 1 {
            return true;
        }
        let ended = self
            .state
            .compare_exchange(state, 0, Ordering::Relaxed, Ordering::Relaxed);
        ended.is_err()
    }

    fn now_ms(&self) -> u64 {
        u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX >> 2)
    }

    /// Takes note of the arguments of a `CLIENT PAUSE` that is about to be sent. `None`: the server
    /// will refuse it.
    pub fn note(&self, words: &[&[u8]]) -> Option<Noted> {
        let ms: u64 = std::str::from_utf8(words.get(2)?).ok()?.parse().ok()?;
        let all = match words.get(3) {
            Some(mode) => !mode.eq_ignore_ascii_case(b"write"),
            None => true,
        };
        let until = self.now_ms() + 1 + ms.min(PAUSE_MS_MAX);
        let before = self.state.load(Ordering::Relaxed);
        // As on the server: a second pause makes the first neither shorter nor weaker.
        let lasting = if self.lasts(before) { before } else { 0 };
        let set = (until.max(lasting >> 1) << 1) | u64::from(all) | (lasting & 1);
        self.state.store(set, Ordering::Relaxed);
        Some(Noted { before, set })
    }

    /// The server has refused it.
    pub fn forget(&self, noted: Noted) {
        // Somebody else may have set another one meanwhile.
        let _ = self.state.compare_exchange(
            noted.set,
            noted.before,
            Ordering::Relaxed,
            Ordering::Relaxed,
        );
    }

    /// The server has ended it.
    pub fn end(&self) {
        self.state.store(0, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(pause: &Pause, line: &str) -> Option<Noted> {
        let words: Vec<&[u8]> = line.split(' ').map(str::as_bytes).collect();
        pause.note(&words)
    }

    #[test]
    fn a_pause_of_writes_lets_reads_go_on_and_a_stronger_one_stays() {
        let pause = Pause::default();
        assert!(!pause.stops(true));
        note(&pause, "CLIENT PAUSE 100000 write").unwrap();
        assert!(pause.stops(true) && !pause.stops(false));
        note(&pause, "CLIENT PAUSE 1").unwrap();
        assert!(pause.stops(false));
        note(&pause, "CLIENT PAUSE 100000 WRITE").unwrap();
        assert!(pause.stops(false));
        pause.end();
        assert!(!pause.stops(true));
    }

    #[test]
    fn a_refused_pause_leaves_the_one_before() {
        let pause = Pause::default();
        assert!(note(&pause, "CLIENT PAUSE").is_none());
        assert!(note(&pause, "CLIENT PAUSE soon").is_none());
        note(&pause, "CLIENT PAUSE 100000 WRITE").unwrap();
        let refused = note(&pause, "CLIENT PAUSE 100000 ALL").unwrap();
        pause.forget(refused);
        assert!(pause.stops(true) && !pause.stops(false));
    }

    #[test]
    fn the_longest_pause_that_can_be_asked_for_is_one() {
        let pause = Pause::default();
        note(&pause, &format!("CLIENT PAUSE {}", u64::MAX)).unwrap();
        assert!(pause.stops(true));
    }
}
