//! The record: keys with short lives, what was done to each, and what clients were told.
//!
//! A key is retired after so many operations, or a few of unknown fate, because the search of the
//! checker grows with both. **Invariant:** an operation is in the record before its request is
//! sent, as one of unknown fate.

use std::collections::BTreeMap;
use std::time::Instant;

use crate::dice::Dice;
use crate::history::{Call, End, Kind, OPS_MAX, Op, Reply};

/// Leaves room for the operations of those who hold the key when it is retired, and for the last
/// look at it.
const OPS_KEPT: usize = OPS_MAX - 48;
const UNKNOWN_KEPT: usize = 3;
/// Keys of one kind that are in use at once.
const LIVE: usize = 5;
const COMPLAINTS_MAX: usize = 20;
/// Members of sets.
const MEMBERS: usize = 6;

pub struct Key {
    pub kind: Kind,
    pub name: String,
    user: User,
    pub ops: Vec<Op>,
    unknown: usize,
    /// Values are written once, so that a value names its write.
    values: u32,
}

/// Who uses a key.
///
/// Those who go past the proxy have keys of their own. They may find the new master an instant
/// before the proxy has the reply to its promotion, and reads through the proxy, which never wait
/// for a switchover, still show the old master's state then.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum User {
    Proxied = 0,
    /// They only write: a fenced master would tell them old values, and not that it is none.
    Past = 1,
}

/// Where an operation is recorded.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    pub key: usize,
    op: usize,
}

pub struct Book {
    pub keys: Vec<Key>,
    live: [[Vec<usize>; 4]; 2],
    /// Whether clients wait with `BRPOP`. Kvrocks before 2.12 crashes when a transaction runs while
    /// one of them is being woken.
    blocks: bool,
    origin: Instant,
    pub ok: u64,
    pub unknown: u64,
    /// Refusals of those who use the proxy, by their first word.
    pub refused: BTreeMap<String, u64>,
    /// Refusals of those who go past it; to look for the new master is their daily bread.
    pub refused_past: u64,
    /// What no server says: replies that belong to somebody else, broken replies, odd errors.
    pub complaints: Vec<String>,
}

impl Book {
    pub fn new(blocks: bool) -> Book {
        let mut book = Book {
            keys: Vec::new(),
            live: Default::default(),
            blocks,
            origin: Instant::now(),
            ok: 0,
            unknown: 0,
            refused: BTreeMap::new(),
            refused_past: 0,
            complaints: Vec::new(),
        };
        for user in [User::Proxied, User::Past] {
            for kind in 0..Kind::ALL.len() {
                for _ in 0..LIVE {
                    let key = book.new_key(Kind::ALL[kind], user);
                    book.live[user as usize][kind].push(key);
                }
            }
        }
        book
    }

    fn new_key(&mut self, kind: Kind, user: User) -> usize {
        let at = self.keys.len();
        self.keys.push(Key {
            kind,
            name: format!("{kind:?}:{at}").to_lowercase(),
            user,
            ops: Vec::new(),
            unknown: 0,
            values: 0,
        });
        at
    }

    pub fn now(&self) -> u64 {
        self.origin.elapsed().as_nanos() as u64
    }

    /// A key that is in use.
    pub fn some_key(&mut self, dice: &mut Dice, user: User) -> usize {
        let (kind, slot) = (dice.below(Kind::ALL.len()), dice.below(LIVE));
        let at = self.live[user as usize][kind][slot];
        let key = &self.keys[at];
        if key.ops.len() < OPS_KEPT && key.unknown < UNKNOWN_KEPT {
            return at;
        }
        let fresh = self.new_key(Kind::ALL[kind], user);
        self.live[user as usize][kind][slot] = fresh;
        fresh
    }

    /// Something to do with a key.
    pub fn some_call(&mut self, key: usize, dice: &mut Dice, user: User) -> Call {
        let key = &mut self.keys[key];
        key.values += 1;
        let value = key.values;
        let member = dice.below(MEMBERS) as u8;
        let recent = value.saturating_sub(1 + dice.below(3) as u32).max(1);
        let calls: &[Call] = match key.kind {
            Kind::Register => &[
                Call::Set(value),
                Call::GetSet(value),
                Call::SetNx(value),
                Call::Cas {
                    from: recent,
                    to: value,
                },
                Call::Get,
                Call::Get,
            ],
            Kind::Counter => &[
                Call::Add(1),
                Call::Add(10),
                Call::AddTwice,
                Call::Count,
                Call::Count,
            ],
            Kind::List => &[
                Call::Push(value),
                Call::Push(value),
                Call::Pop,
                Call::AwaitPop,
                Call::Range,
            ],
            Kind::Set => &[
                Call::Join(member),
                Call::Leave(member),
                Call::Members,
                Call::Members,
            ],
        };
        loop {
            let call = dice.pick(calls);
            // A script that comes to no write is no write to a fenced master either.
            let may_read = matches!(call, Call::AwaitPop | Call::Cas { .. });
            if call == Call::AwaitPop && !self.blocks {
                continue;
            }
            if user == User::Proxied || !call.is_read() && !may_read {
                return call;
            }
        }
    }

    /// Before the request is sent.
    pub fn begin(&mut self, client: usize, key: usize, call: Call) -> Place {
        let from = self.now();
        let ops = &mut self.keys[key].ops;
        ops.push(Op {
            client,
            from,
            call,
            end: End::Unknown,
        });
        let op = ops.len() - 1;
        Place { key, op }
    }

    pub fn replied(&mut self, place: Place, reply: Reply) {
        self.ok += 1;
        let at = self.now();
        self.keys[place.key].ops[place.op].end = End::Replied { at, reply };
    }

    /// An error that proves that nothing happened, or one that nobody expects.
    pub fn refused(&mut self, place: Place, text: &str) {
        let word = text.split(' ').next().unwrap_or_default().to_owned();
        let proves = [
            "TRYAGAIN",
            "READONLY",
            "LOADING",
            "MASTERDOWN",
            "NOREPLICAS",
            "EXECABORT",
            "UNBLOCKED",
        ];
        if !proves.contains(&word.as_str()) {
            let call = self.keys[place.key].ops[place.op].call;
            let name = self.keys[place.key].name.clone();
            self.complain(format!("{call:?} of {name} was answered {text:?}"));
        }
        match self.keys[place.key].user {
            User::Proxied => *self.refused.entry(word).or_default() += 1,
            User::Past => self.refused_past += 1,
        }
        self.keys[place.key].ops[place.op].end = End::Refused;
    }

    /// Took no effect and says nothing: a wait that ran out, a request that was never sent.
    pub fn forgotten(&mut self, place: Place) {
        self.keys[place.key].ops[place.op].end = End::Refused;
    }

    /// The connection broke. What is recorded stays what it is.
    pub fn unknown(&mut self, place: Place) {
        self.unknown += 1;
        let key = &mut self.keys[place.key];
        let call = key.ops[place.op].call;
        key.unknown += usize::from(!call.is_read());
    }

    pub fn complain(&mut self, what: String) {
        if self.complaints.len() < COMPLAINTS_MAX {
            self.complaints.push(what);
        }
    }
}
