//! The checker itself: histories of which is known whether one server could have told them.

use crate::checker::{Verdict, check};
use crate::dice::Dice;
use crate::history::{Call, End, Kind, Op, Reply};
use crate::model::State;

fn op(client: usize, from: u64, at: u64, call: Call, reply: Reply) -> Op {
    let end = End::Replied { at, reply };
    Op {
        client,
        from,
        call,
        end,
    }
}

fn cut_off(client: usize, from: u64, call: Call) -> Op {
    let end = End::Unknown;
    Op {
        client,
        from,
        call,
        end,
    }
}

fn refused(client: usize, from: u64, call: Call) -> Op {
    let end = End::Refused;
    Op {
        client,
        from,
        call,
        end,
    }
}

fn value(value: u32) -> Reply {
    Reply::Value(Some(value))
}

const NOTHING: Reply = Reply::Value(None);

fn holds(kind: Kind, history: &[Op]) {
    assert_eq!(check(kind, history), Verdict::Linearizable, "{history:?}");
}

fn broken(kind: Kind, history: &[Op]) {
    let verdict = check(kind, history);
    assert!(matches!(verdict, Verdict::Violation { .. }), "{history:?}");
}

#[test]
fn a_history_without_overlap_is_read_as_it_stands() {
    holds(Kind::Register, &[]);
    let set = op(0, 0, 1, Call::Set(1), Reply::Done);
    holds(
        Kind::Register,
        &[set.clone(), op(1, 2, 3, Call::Get, value(1))],
    );
    broken(Kind::Register, &[set, op(1, 2, 3, Call::Get, value(2))]);
}

#[test]
fn a_lost_update_is_found() {
    let written = [
        op(0, 0, 1, Call::Set(1), Reply::Done),
        op(0, 2, 3, Call::Set(2), Reply::Done),
    ];
    let mut history = written.to_vec();
    history.push(op(1, 4, 5, Call::Get, value(1)));
    broken(Kind::Register, &history);

    let counted = [
        op(0, 0, 1, Call::Add(1), Reply::Number(1)),
        op(1, 2, 3, Call::Add(1), Reply::Number(1)),
    ];
    broken(Kind::Counter, &counted);
}

#[test]
fn a_stale_read_is_found() {
    let history = |read_until| {
        [
            op(0, 0, 1, Call::Set(1), Reply::Done),
            op(0, 2, 6, Call::Set(2), Reply::Done),
            op(1, 3, 4, Call::Get, value(2)),
            op(2, 5, read_until, Call::Get, value(1)),
        ]
    };
    // Another client has read the new value before this read began.
    broken(Kind::Register, &history(7));
    let mut overlapping = history(7);
    overlapping[3].from = 3;
    holds(Kind::Register, &overlapping);
}

#[test]
fn a_double_execution_is_found() {
    let once = op(0, 0, 1, Call::Add(1), Reply::Number(2));
    broken(Kind::Counter, &[once]);
    let popped = [
        op(0, 0, 1, Call::Push(7), Reply::Number(1)),
        op(1, 2, 5, Call::Pop, value(7)),
        op(2, 3, 6, Call::Pop, value(7)),
    ];
    broken(Kind::List, &popped);
    let pushed = [
        op(0, 0, 1, Call::Push(7), Reply::Number(1)),
        op(1, 2, 3, Call::Range, Reply::List(vec![7, 7])),
    ];
    broken(Kind::List, &pushed);
}

#[test]
fn a_changed_order_is_found() {
    let history = |list: [u32; 2]| {
        [
            op(0, 0, 1, Call::Push(1), Reply::Number(1)),
            op(0, 2, 3, Call::Push(2), Reply::Number(2)),
            op(1, 4, 5, Call::Range, Reply::List(list.to_vec())),
        ]
    };
    holds(Kind::List, &history([2, 1]));
    broken(Kind::List, &history([1, 2]));
}

#[test]
fn a_resurrected_value_is_found() {
    let registers = [
        op(0, 0, 1, Call::Set(1), Reply::Done),
        op(0, 2, 3, Call::Set(2), Reply::Done),
        op(1, 4, 5, Call::Get, value(2)),
        op(1, 6, 7, Call::Get, value(1)),
    ];
    broken(Kind::Register, &registers);
    let members = [
        op(0, 0, 1, Call::Join(3), Reply::Number(1)),
        op(0, 2, 3, Call::Leave(3), Reply::Number(1)),
        op(1, 4, 5, Call::Members, Reply::Members(1 << 3)),
    ];
    broken(Kind::Set, &members);
}

#[test]
fn an_operation_of_unknown_fate_may_have_happened_late_or_never_but_not_twice() {
    let write = cut_off(0, 0, Call::Set(1));
    let read = |from, reply| op(1, from, from + 1, Call::Get, reply);
    holds(Kind::Register, &[write.clone(), read(2, NOTHING)]);
    holds(
        Kind::Register,
        &[write.clone(), read(2, NOTHING), read(90, value(1))],
    );
    broken(
        Kind::Register,
        &[write.clone(), read(2, value(1)), read(4, NOTHING)],
    );
    // Nothing happens before it began.
    let late = cut_off(0, 5, Call::Set(1));
    broken(Kind::Register, &[late, read(2, value(1))]);
    let count = |from, number| op(1, from, from + 1, Call::Count, Reply::Number(number));
    let add = cut_off(0, 0, Call::Add(1));
    holds(Kind::Counter, &[add.clone(), count(2, 0), count(4, 1)]);
    broken(Kind::Counter, &[add, count(2, 2)]);
}

#[test]
fn a_refused_operation_must_not_have_happened() {
    let history = |number| {
        [
            refused(0, 0, Call::Add(1)),
            op(1, 2, 3, Call::Count, Reply::Number(number)),
        ]
    };
    holds(Kind::Counter, &history(0));
    broken(Kind::Counter, &history(1));
}

#[test]
fn conditions_are_judged_by_the_order_that_explains_them() {
    let swap = |client, to, told| op(client, 2, 9, Call::Cas { from: 1, to }, Reply::Number(told));
    let set = op(0, 0, 1, Call::Set(1), Reply::Done);
    holds(
        Kind::Register,
        &[
            set.clone(),
            swap(1, 2, 1),
            swap(2, 3, 0),
            op(3, 2, 9, Call::GetSet(4), value(2)),
            op(4, 2, 9, Call::SetNx(5), Reply::Number(0)),
        ],
    );
    broken(Kind::Register, &[set, swap(1, 2, 1), swap(2, 3, 1)]);
}

#[test]
fn a_transaction_is_one_operation() {
    let history = |seen| {
        [
            op(0, 0, 9, Call::AddTwice, Reply::Number(2)),
            op(1, 1, 8, Call::Count, Reply::Number(seen)),
        ]
    };
    holds(Kind::Counter, &history(0));
    holds(Kind::Counter, &history(2));
    broken(Kind::Counter, &history(1));
}

/// Clients of a server that serves one after the other, each at a moment between request and reply.
fn honest(kind: Kind, dice: &mut Dice) -> Vec<Op> {
    let mut points: Vec<(u64, u64, u64, Call)> = Vec::new();
    for number in 0..60 {
        let point = dice.below(600) as u64;
        let (before, after) = (dice.below(40) as u64, dice.below(40) as u64);
        let call = match kind {
            Kind::Register => [Call::Set(number), Call::Get, Call::GetSet(number)][dice.below(3)],
            Kind::Counter => [Call::Add(1), Call::Count, Call::AddTwice][dice.below(3)],
            Kind::List => [Call::Push(number), Call::Pop, Call::Range][dice.below(3)],
            Kind::Set => {
                [Call::Join(number as u8 % 4), Call::Leave(1), Call::Members][dice.below(3)]
            }
        };
        points.push((point, point.saturating_sub(before), point + after, call));
    }
    points.sort_by_key(|(point, ..)| *point);
    let mut state = State::new(kind);
    let mut history = Vec::new();
    for (client, (_, from, at, call)) in points.into_iter().enumerate() {
        let (next, reply) = state.apply(call);
        let lost = dice.percent(8);
        if !lost || dice.percent(50) {
            state = next;
        }
        history.push(match lost {
            true => cut_off(client, from, call),
            false => op(client, from, at, call, reply),
        });
    }
    history
}

#[test]
fn what_one_server_told_is_always_explained() {
    let mut dice = Dice::new(7);
    for _ in 0..100 {
        for kind in Kind::ALL {
            holds(kind, &honest(kind, &mut dice));
        }
    }
}
