//! What a single server does that serves one request after the other: the specification.

use crate::history::{Call, End, Kind, Op, Reply};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum State {
    Register(Option<u32>),
    Counter(i64),
    /// The head, where is pushed, comes last.
    List(Vec<u32>),
    Set(u64),
}

impl State {
    pub fn new(kind: Kind) -> State {
        match kind {
            Kind::Register => State::Register(None),
            Kind::Counter => State::Counter(0),
            Kind::List => State::List(Vec::new()),
            Kind::Set => State::Set(0),
        }
    }

    /// What becomes of the state, and what the client is told.
    pub fn apply(&self, call: Call) -> (State, Reply) {
        match self {
            State::Register(value) => {
                let (value, reply) = register(*value, call);
                (State::Register(value), reply)
            }
            State::Counter(count) => {
                let (count, reply) = counter(*count, call);
                (State::Counter(count), reply)
            }
            State::List(items) => {
                let (items, reply) = list(items.clone(), call);
                (State::List(items), reply)
            }
            State::Set(members) => {
                let (members, reply) = set(*members, call);
                (State::Set(members), reply)
            }
        }
    }

    /// The state behind `op`, or `None` when the client would have been told something else.
    pub fn step(&self, op: &Op) -> Option<State> {
        let (state, told) = self.apply(op.call);
        match &op.end {
            End::Replied { reply, .. } => (told == *reply).then_some(state),
            End::Unknown => Some(state),
            End::Refused => None,
        }
    }
}

fn register(value: Option<u32>, call: Call) -> (Option<u32>, Reply) {
    match call {
        Call::Set(new) => (Some(new), Reply::Done),
        Call::Get => (value, Reply::Value(value)),
        Call::GetSet(new) => (Some(new), Reply::Value(value)),
        Call::SetNx(new) => match value {
            None => (Some(new), Reply::Number(1)),
            Some(_) => (value, Reply::Number(0)),
        },
        Call::Cas { from, to } if value == Some(from) => (Some(to), Reply::Number(1)),
        Call::Cas { .. } => (value, Reply::Number(0)),
        other => unreachable!("{other:?} of a register"),
    }
}

fn counter(count: i64, call: Call) -> (i64, Reply) {
    match call {
        Call::Add(by) => (count + by, Reply::Number(count + by)),
        // The second of the two; the first is one less, or the client has not understood it.
        Call::AddTwice => (count + 2, Reply::Number(count + 2)),
        Call::Count => (count, Reply::Number(count)),
        other => unreachable!("{other:?} of a counter"),
    }
}

fn list(mut items: Vec<u32>, call: Call) -> (Vec<u32>, Reply) {
    match call {
        Call::Push(item) => {
            items.push(item);
            let length = items.len() as i64;
            (items, Reply::Number(length))
        }
        Call::Pop | Call::AwaitPop if items.is_empty() => (items, Reply::Value(None)),
        Call::Pop | Call::AwaitPop => {
            let tail = items.remove(0);
            (items, Reply::Value(Some(tail)))
        }
        Call::Range => {
            let from_head = items.iter().rev().copied().collect();
            (items, Reply::List(from_head))
        }
        other => unreachable!("{other:?} of a list"),
    }
}

fn set(members: u64, call: Call) -> (u64, Reply) {
    match call {
        Call::Join(member) => {
            let joined = members | 1 << member;
            (joined, Reply::Number(i64::from(joined != members)))
        }
        Call::Leave(member) => {
            let left = members & !(1 << member);
            (left, Reply::Number(i64::from(left != members)))
        }
        Call::Members => (members, Reply::Members(members)),
        other => unreachable!("{other:?} of a set"),
    }
}
