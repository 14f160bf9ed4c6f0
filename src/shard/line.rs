//! The line of those who wait on the master, over all workers: who has waited longest is served
//! first, on the next master too.
//!
//! A server serves blocked clients in the order in which they came. When the master changes, their
//! commands are sent to the next one, by several workers and on connections of their own; without
//! the line, whose turn it is would be decided by whose packet is first.
//!
//! # Trade-offs
//! A lock that workers share, taken when a command begins to wait, ends to, and at its turn; never
//! for any other command. It is held for a few look-ups in sorted sets.
//!
//! Each sends when the one before it has sent, and does not wait until that one's command was read:
//! a round trip each would hold a thousand of them for a tenth of a second. A server that got no
//! processor between the greeting of several connections and what came on them next may read them in
//! another order, since epoll (level-triggered) hands out the ones that it handed out last before
//! those that became ready first. Seen on Redis 7.0 with 24 who wait and six busy programs beside it
//! on two cores, in one of ten runs of six switchovers; in none of sixty when each slept for 20 ms
//! behind its greeting, and not without the busy programs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// Where those stand whom their node has let go and nobody has taken yet.
const NOWHERE: u64 = 0;

/// Everybody who waits, in the order of their coming.
#[derive(Debug, Default)]
pub struct Line {
    places: Mutex<Places>,
}

#[derive(Debug, Default)]
struct Places {
    next: u64,
    /// Tickets by the epoch of the node that they wait on.
    at: BTreeMap<u64, BTreeSet<u64>>,
    wakers: BTreeMap<u64, Waker>,
}

impl Places {
    fn put(&mut self, ticket: u64, epoch: u64) {
        self.at.entry(epoch).or_default().insert(ticket);
    }

    fn take(&mut self, ticket: u64, epoch: u64) {
        if let Some(tickets) = self.at.get_mut(&epoch) {
            tickets.remove(&ticket);
            if tickets.is_empty() {
                self.at.remove(&epoch);
            }
        }
    }

    /// Who has come first of those that do not wait on the node of `epoch` yet.
    fn first_before(&self, epoch: u64) -> Option<u64> {
        let behind = self.at.range(..epoch);
        behind
            .filter_map(|(_, tickets)| tickets.first())
            .min()
            .copied()
    }

    /// Who has to look whether it is their turn.
    fn next_waker(&mut self) -> Option<Waker> {
        self.wakers.pop_first().map(|(_, waker)| waker)
    }
}

impl Line {
    /// Takes a place at the end, waiting on the node of `epoch`.
    pub fn join(self: &Arc<Self>, epoch: u64) -> Place {
        let mut places = self.lock();
        places.next += 1;
        let ticket = places.next;
        places.put(ticket, epoch);
        drop(places);
        Place {
            line: Arc::clone(self),
            ticket,
            epoch,
        }
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        // Nothing that runs under the lock can leave the sets half changed.
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line; left when dropped.
#[derive(Debug)]
pub struct Place {
    line: Arc<Line>,
    ticket: u64,
    epoch: u64,
}

impl Place {
    /// The node has let this one go; it keeps its place.
    pub fn let_go(&mut self) {
        self.stand_at(NOWHERE);
    }

    /// This one waits on the node of `epoch` from now on.
    pub fn moved_to(&mut self, epoch: u64) {
        self.stand_at(epoch);
    }

    fn stand_at(&mut self, epoch: u64) {
        let mut places = self.line.lock();
        places.take(self.ticket, self.epoch);
        places.put(self.ticket, epoch);
        self.epoch = epoch;
        let next = places.next_waker();
        drop(places);
        if let Some(next) = next {
            next.wake();
        }
    }

    /// Whose turn it is to wait on the node of `epoch` before this one's, by ticket.
    pub fn awaits(&self, epoch: u64) -> Option<u64> {
        let first = self.line.lock().first_before(epoch);
        first.filter(|first| *first < self.ticket)
    }

    /// Ready when everybody who came before waits on the node of `epoch`, or does not wait any
    /// more.
    pub fn poll_turn(&self, epoch: u64, context: &mut Context<'_>) -> Poll<()> {
        let mut places = self.line.lock();
        let first = places.first_before(epoch);
        if first.is_none_or(|first| first >= self.ticket) {
            places.wakers.remove(&self.ticket);
            return Poll::Ready(());
        }
        places.wakers.insert(self.ticket, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut places = self.line.lock();
        places.take(self.ticket, self.epoch);
        places.wakers.remove(&self.ticket);
        let next = places.next_waker();
        drop(places);
        if let Some(next) = next {
            next.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_turn(place: &Place, epoch: u64) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        place.poll_turn(epoch, &mut context).is_ready()
    }

    #[test]
    fn who_came_first_moves_first() {
        let line = Arc::new(Line::default());
        let (mut first, mut second, third) = (line.join(1), line.join(1), line.join(1));
        second.let_go();
        assert!(!is_turn(&second, 2) && !is_turn(&third, 2));
        assert_eq!((first.awaits(2), third.awaits(2)), (None, Some(1)));
        assert!(is_turn(&first, 2));
        first.moved_to(2);
        assert_eq!((second.awaits(2), third.awaits(2)), (None, Some(2)));
        assert!(is_turn(&second, 2) && !is_turn(&third, 2));
        drop(second);
        assert!(is_turn(&third, 2));
    }

    #[test]
    fn who_is_let_go_by_a_node_that_stays_keeps_the_order_too() {
        let line = Arc::new(Line::default());
        let (mut first, mut second) = (line.join(1), line.join(1));
        first.let_go();
        second.let_go();
        assert!(is_turn(&first, 1) && !is_turn(&second, 1));
        first.moved_to(1);
        assert!(is_turn(&second, 1));
    }

    #[test]
    fn a_wake_up_is_for_the_first_in_line() {
        struct Woken(std::sync::atomic::AtomicBool);
        impl std::task::Wake for Woken {
            fn wake(self: Arc<Self>) {
                self.0.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
        let line = Arc::new(Line::default());
        let (mut first, second) = (line.join(1), line.join(1));
        let woken = Arc::new(Woken(false.into()));
        let waker = Waker::from(Arc::clone(&woken));
        assert!(
            second
                .poll_turn(2, &mut Context::from_waker(&waker))
                .is_pending()
        );
        first.moved_to(2);
        assert!(woken.0.load(std::sync::atomic::Ordering::Relaxed));
        assert!(is_turn(&second, 2));
    }
}
