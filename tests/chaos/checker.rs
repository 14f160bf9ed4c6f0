//! Is there an order in which one server, serving one request after the other, would have told the
//! clients what they were told? If so the history of the key is linearizable.
//!
//! The search of Wing and Gong with Lowe's memory: operations are taken one by one, each only while
//! no other one that is left had ended before it began, and a set of operations that led to the
//! same state before is not followed twice. Keys are independent, so each is searched alone.
//! Operations of unknown fate have no end: they may be taken at any time after their beginning, and
//! need not be.
//!
//! **Invariant:** no recursion, whatever the history: the path is a stack of its own. The memory
//! has a limit, and a search that reaches it says so instead of guessing.

use std::collections::HashSet;

use crate::history::{End, Kind, OPS_MAX, Op};
use crate::model::State;

/// Pairs of operations taken and state that are remembered, about 100 bytes each.
const MEMORY_MAX: usize = 2_000_000;

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    Linearizable,
    /// No order explains it; at most so many operations in a row are explained.
    Violation {
        explained: usize,
    },
    /// Too many orders to look at.
    Undecided,
}

pub fn check(kind: Kind, history: &[Op]) -> Verdict {
    let counts = |op: &&Op| match op.end {
        End::Refused => false,
        // A read of unknown fate says nothing and changes nothing.
        End::Unknown => !op.call.is_read(),
        End::Replied { .. } => true,
    };
    let ops: Vec<&Op> = history.iter().filter(counts).collect();
    assert!(ops.len() <= OPS_MAX, "{} operations on one key", ops.len());
    Search::new(kind, &ops).run()
}

/// A beginning or an end on the common clock.
#[derive(Clone, Copy, Debug)]
enum Moment {
    Begin(usize),
    End,
}

/// The moments that are left, as a list from which an operation can be taken out and put back.
struct Line {
    moments: Vec<Moment>,
    next: Vec<usize>,
    previous: Vec<usize>,
    /// Where the end of an operation is, by the operation; none for one of unknown fate.
    end_of: Vec<Option<usize>>,
}

/// Of [`Line`]: before the first moment.
const HEAD: usize = 0;

impl Line {
    fn new(ops: &[&Op]) -> Line {
        let mut times = Vec::new();
        for (at, op) in ops.iter().enumerate() {
            // On a tie the beginning comes first: the two overlap then, which permits more.
            times.push((op.from, 0, Some(at), at));
            if let End::Replied { at: until, .. } = op.end {
                times.push((until, 1, None, at));
            }
        }
        times.sort_unstable();
        let mut moments = vec![Moment::End];
        let mut end_of = vec![None; ops.len()];
        for (_, _, begins, op) in times {
            match begins {
                Some(op) => moments.push(Moment::Begin(op)),
                None => {
                    end_of[op] = Some(moments.len());
                    moments.push(Moment::End);
                }
            }
        }
        let count = moments.len();
        Line {
            moments,
            next: (1..=count).collect(),
            previous: (0..=count).map(|at| at.saturating_sub(1)).collect(),
            end_of,
        }
    }

    fn first(&self) -> usize {
        self.next[HEAD]
    }

    fn unlink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = next;
        self.previous[next] = previous;
    }

    fn relink(&mut self, at: usize) {
        let (previous, next) = (self.previous[at], self.next[at]);
        self.next[previous] = at;
        self.previous[next] = at;
    }

    fn take(&mut self, begin: usize, op: usize) {
        self.unlink(begin);
        if let Some(end) = self.end_of[op] {
            self.unlink(end);
        }
    }

    /// Takes back the last [`Line::take`] that was not taken back.
    fn put_back(&mut self, begin: usize, op: usize) {
        if let Some(end) = self.end_of[op] {
            self.relink(end);
        }
        self.relink(begin);
    }
}

struct Search<'a> {
    ops: &'a [&'a Op],
    line: Line,
    /// Operations taken, as bits.
    taken: u128,
    state: State,
    /// Ends that no order has explained yet.
    ends_left: usize,
    /// Which moment was taken, its operation, and the state before it.
    path: Vec<(usize, usize, State)>,
    known: HashSet<(u128, State)>,
}

impl<'a> Search<'a> {
    fn new(kind: Kind, ops: &'a [&'a Op]) -> Search<'a> {
        let line = Line::new(ops);
        let ends_left = line.end_of.iter().flatten().count();
        Search {
            ops,
            line,
            taken: 0,
            state: State::new(kind),
            ends_left,
            path: Vec::new(),
            known: HashSet::new(),
        }
    }

    fn run(mut self) -> Verdict {
        let mut explained = 0;
        let mut at = self.line.first();
        while self.ends_left > 0 {
            if self.known.len() >= MEMORY_MAX {
                return Verdict::Undecided;
            }
            let moment = self.line.moments[at];
            at = match moment {
                Moment::Begin(op) if self.advance(at, op) => {
                    explained = explained.max(self.path.len());
                    self.line.first()
                }
                Moment::Begin(_) => self.line.next[at],
                // Whatever is left begins after this end: the one that it ends is overdue.
                Moment::End => match self.retreat() {
                    Some(next) => next,
                    None => return Verdict::Violation { explained },
                },
            };
        }
        Verdict::Linearizable
    }

    /// Takes an operation, if the clients were told what they would be told then.
    fn advance(&mut self, at: usize, op: usize) -> bool {
        let Some(state) = self.state.step(self.ops[op]) else {
            return false;
        };
        let has_end = self.line.end_of[op].is_some();
        if !has_end && state == self.state {
            return false;
        }
        let taken = self.taken | 1 << op;
        if !self.known.insert((taken, state.clone())) {
            return false;
        }
        self.taken = taken;
        let before = std::mem::replace(&mut self.state, state);
        self.path.push((at, op, before));
        self.line.take(at, op);
        self.ends_left -= usize::from(has_end);
        true
    }

    /// Takes the last step back; where to go on from.
    fn retreat(&mut self) -> Option<usize> {
        let (at, op, before) = self.path.pop()?;
        self.line.put_back(at, op);
        self.taken &= !(1 << op);
        self.state = before;
        self.ends_left += usize::from(self.line.end_of[op].is_some());
        Some(self.line.next[at])
    }
}
