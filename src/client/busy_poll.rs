//! Busy polling: a worker that serves few clients looks for the next bytes for a moment before it
//! sleeps.
//!
//! To put a core to sleep and to wake it takes longer than a server that is near needs for its
//! reply, and a client for its next request. With many clients it is the other way round: the
//! cores are busy anyhow, and while a worker sleeps more comes together for one system call.
//!
//! Each shard of a worker is looked at for itself. Clients on connections of their own stir it as
//! others do, and are not counted among those who wait.
//!
//! **Invariants:** it begins only when a client has asked for something, and ends when nothing has
//! come for `busy_poll_us`; an idle worker sleeps. Where it does not pay (a server, or a client,
//! that takes longer than that) it is tried ever more seldom. Nothing but the rhythm depends on
//! it.
//!
//! # Trade-offs
//! It takes CPU that would have been idle. `redis-benchmark`, SET of 64 B, medians of several
//! interleaved rounds on two cores that client, server and worker share, with 0 and with 100 us:
//!
//! | connections | requests/s | p50, us | CPU per request, us |
//! |---|---|---|---|
//! | 1 | 7 500, 14 000 | 119, 63 | 52, 67 |
//! | 4 | 26 500, 37 900 | 111, 79 | 18, 25 |
//!
//! With 8 it cost 4 us a request and gave nothing, with 50 there is no difference. One client that
//! asks once in 1.6 ms costs 7.6 % of a core instead of 7.1 %, one that asks every 0.5 ms 16 %
//! instead of 13 %. 50 us are enough in most runs, 30 are not.
//!
//! Tried and left out: giving the core away between two looks (`sched_yield`), which is a little
//! faster alone, but others keep what they are given for a whole time slice; and the same between
//! the steps of a switchover, where the cores are busy: the hold did not become shorter.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::seat::Seat;

/// Clients that wait for replies at a time; with more of them the worker sleeps.
const CROWD_MAX: u64 = 4;
/// Where it never pays it is tried once in 2 to the power of this.
const MISSES_MAX: u32 = 6;

/// Whether clients have asked for something since this was looked at last.
#[derive(Debug, Default)]
pub struct Stir {
    stirred: Cell<bool>,
    asleep: RefCell<Option<Waker>>,
}

impl Stir {
    /// A client has sent something.
    #[inline]
    pub fn stir(&self) {
        if !self.stirred.replace(true)
            && let Some(asleep) = self.asleep.take()
        {
            asleep.wake();
        }
    }

    fn take(&self) -> bool {
        self.stirred.replace(false)
    }

    async fn stirred(&self) {
        poll_fn(|context| {
            if self.take() {
                return Poll::Ready(());
            }
            *self.asleep.borrow_mut() = Some(context.waker().clone());
            Poll::Pending
        })
        .await;
    }
}

/// Keeps the worker of a seat awake while that pays; ends with the runtime.
pub async fn busy_poll(seat: Rc<Seat>, longest: Duration) {
    let mut vigil = Vigil::new(longest);
    loop {
        seat.stir.stirred().await;
        let mut sent = seat.counts.bytes_out.get();
        vigil.begin(seat.counts.waiting.get(), Instant::now());
        while vigil.is_awake() {
            // The runtime looks at its sockets before it comes back here.
            tokio::task::yield_now().await;
            let counts = &seat.counts;
            let before = std::mem::replace(&mut sent, counts.bytes_out.get());
            let heard = seat.stir.take() || before != sent;
            vigil.look(heard, counts.waiting.get(), Instant::now());
        }
    }
}

/// What is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Awaits {
    Nothing,
    /// A reply, until then.
    Reply(Instant),
    /// The next request, until then.
    Request(Instant),
}

/// Decides whether to look once more.
#[derive(Debug)]
struct Vigil {
    longest: Duration,
    awaits: Awaits,
    /// Clients that have waited at a time lately: it forgets one of them at each look.
    crowd: u64,
    replies: Luck,
    requests: Luck,
}

impl Vigil {
    fn new(longest: Duration) -> Self {
        Self {
            longest,
            awaits: Awaits::Nothing,
            crowd: 0,
            replies: Luck::default(),
            requests: Luck::default(),
        }
    }

    fn is_awake(&self) -> bool {
        self.awaits != Awaits::Nothing
    }

    /// `waiting` clients wait for a reply.
    fn begin(&mut self, waiting: u64, now: Instant) {
        let until = now + self.longest;
        // All of a crowd may just have been answered: what they ask next comes together as well.
        self.crowd = waiting.max(self.crowd.saturating_sub(1));
        self.awaits = match waiting {
            _ if self.crowd > CROWD_MAX => Awaits::Nothing,
            0 if self.requests.is_worth_it() => Awaits::Request(until),
            1.. if self.replies.is_worth_it() => Awaits::Reply(until),
            _ => Awaits::Nothing,
        };
    }

    /// Something has been `heard`, from a client or from the server, or not.
    fn look(&mut self, heard: bool, waiting: u64, now: Instant) {
        let (luck, until) = match self.awaits {
            Awaits::Nothing => return,
            Awaits::Reply(until) => (&mut self.replies, until),
            Awaits::Request(until) => (&mut self.requests, until),
        };
        if heard {
            luck.hit();
            self.begin(waiting, now);
        } else if now >= until {
            luck.miss();
            self.awaits = Awaits::Nothing;
        }
    }
}

/// Whether it has paid lately.
#[derive(Debug, Default)]
struct Luck {
    misses: u32,
    skips: u32,
}

impl Luck {
    fn is_worth_it(&mut self) -> bool {
        let skips = self.skips;
        self.skips = skips.saturating_sub(1);
        skips == 0
    }

    /// Two hits make up for a miss: what comes now and then is not waited for.
    fn hit(&mut self) {
        self.misses = self.misses.saturating_sub(1);
    }

    fn miss(&mut self) {
        self.misses = (self.misses + 2).min(MISSES_MAX);
        self.skips = (1 << self.misses) - 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONGEST: Duration = Duration::from_micros(50);

    fn awake(waiting: u64) -> (Vigil, Instant) {
        let (mut vigil, now) = (Vigil::new(LONGEST), Instant::now());
        vigil.begin(waiting, now);
        (vigil, now)
    }

    #[test]
    fn it_looks_until_nothing_has_come_for_long_enough() {
        let (mut vigil, start) = awake(1);
        vigil.look(false, 1, start + LONGEST / 2);
        assert!(vigil.is_awake());
        vigil.look(true, 0, start + LONGEST / 2);
        vigil.look(false, 0, start + LONGEST);
        assert!(vigil.is_awake(), "what was heard begins the time anew");
        vigil.look(false, 0, start + LONGEST * 2);
        assert!(!vigil.is_awake());
    }

    #[test]
    fn many_waiting_clients_let_it_sleep() {
        let (mut vigil, now) = awake(CROWD_MAX);
        assert!(vigil.is_awake());
        vigil.look(true, CROWD_MAX + 1, now);
        assert!(!vigil.is_awake());
        assert!(!awake(CROWD_MAX + 1).0.is_awake());
    }

    #[test]
    fn a_crowd_is_remembered_for_a_while() {
        let (mut vigil, now) = awake(CROWD_MAX + 3);
        vigil.begin(0, now);
        vigil.begin(1, now);
        assert!(!vigil.is_awake());
        vigil.begin(1, now);
        assert!(vigil.is_awake());
    }

    /// How many of so many requests find it awake, if none is answered in time.
    fn tries(vigil: &mut Vigil, requests: usize) -> usize {
        let mut now = Instant::now();
        let mut tries = 0;
        for _ in 0..requests {
            vigil.begin(1, now);
            tries += usize::from(vigil.is_awake());
            now += LONGEST * 2;
            vigil.look(false, 1, now);
        }
        tries
    }

    #[test]
    fn a_slow_server_is_waited_for_ever_more_seldom() {
        let mut vigil = Vigil::new(LONGEST);
        assert!((5..=12).contains(&tries(&mut vigil, 320)));
        assert_eq!(tries(&mut vigil, 64 * 10), 10);
    }

    #[test]
    fn one_quick_reply_is_enough_to_try_again() {
        let (mut vigil, mut now) = (Vigil::new(LONGEST), Instant::now());
        tries(&mut vigil, 320);
        while !vigil.is_awake() {
            vigil.begin(1, now);
        }
        for _ in 0..10 {
            now += LONGEST / 2;
            vigil.look(true, 1, now);
            assert!(vigil.is_awake());
        }
    }

    #[test]
    fn a_slow_client_does_not_speak_against_a_quick_server() {
        let mut vigil = Vigil::new(LONGEST);
        let mut now = Instant::now();
        for _ in 0..100 {
            vigil.begin(1, now);
            assert!(vigil.is_awake());
            vigil.look(true, 0, now + LONGEST / 2);
            now += LONGEST * 20;
            vigil.look(false, 0, now);
            assert!(!vigil.is_awake());
        }
    }

    #[tokio::test]
    async fn a_client_wakes_it() {
        let stir = Rc::new(Stir::default());
        let local = tokio::task::LocalSet::new();
        let woken = local.spawn_local({
            let stir = Rc::clone(&stir);
            async move { stir.stirred().await }
        });
        local
            .run_until(async {
                tokio::task::yield_now().await;
                assert!(!woken.is_finished());
                stir.stir();
                woken.await.expect("it ends");
            })
            .await;
        assert!(!stir.take(), "it counts once");
    }
}
