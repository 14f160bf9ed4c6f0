//! The checker on a recorded history: one acknowledged operation too many or too few is found.

use crate::book::Key;
use crate::checker::{Verdict, check};
use crate::dice::Dice;
use crate::history::{Call, End, Op, Reply};
use crate::nemesis::{Cruelty, Nemesis};
use crate::proof::judge;
use crate::runs::redis;
use crate::world::{Setting, World};

const PER_KEY: usize = 8;

/// Whether the history shows that `op` took effect, so that it would contradict itself without it.
fn is_seen(op: &Op, history: &[Op]) -> bool {
    let End::Replied { reply, .. } = &op.end else {
        return false;
    };
    let read = |value: u32| {
        history.iter().any(|other| match &other.end {
            End::Replied { reply, .. } => *reply == Reply::Value(Some(value)),
            _ => false,
        })
    };
    match (op.call, reply) {
        (Call::Set(to) | Call::GetSet(to), _) => read(to),
        (Call::SetNx(to) | Call::Cas { to, .. }, Reply::Number(1)) => read(to),
        _ => is_once(op, history),
    }
}

/// Whether the same request could not have been told the same a second time.
fn is_once(op: &Op, history: &[Op]) -> bool {
    let End::Replied { reply, at } = &op.end else {
        return false;
    };
    let alone = || {
        let overlap = |other: &&Op| {
            let begins_later = other.from > *at;
            let ended_before = matches!(&other.end, End::Replied { at, .. } if *at < op.from);
            !begins_later && !ended_before
        };
        history.iter().filter(overlap).count() == 1
    };
    match (op.call, reply) {
        (Call::GetSet(_) | Call::Add(_) | Call::AddTwice | Call::Push(_), _) => true,
        (Call::SetNx(_) | Call::Cas { .. }, Reply::Number(told)) => *told == 1,
        (Call::Pop | Call::AwaitPop, Reply::Value(value)) => value.is_some(),
        // Another one between the two could explain both.
        (Call::Join(_) | Call::Leave(_), Reply::Number(told)) => *told == 1 && alone(),
        _ => false,
    }
}

fn assert_caught(key: &Key, history: &[Op], what: &str, op: &Op) {
    let verdict = check(key.kind, history);
    assert!(
        matches!(verdict, Verdict::Violation { .. }),
        "{what} {op:?} of {} went unnoticed: {verdict:?}",
        key.name
    );
}

#[tokio::test]
async fn one_operation_too_many_or_too_few_in_a_recorded_history_is_found() {
    let mut dice = Dice::new(11);
    let setting = Setting {
        relayed: false,
        clients: 12,
        past: 0,
        patience_ms: 1500,
    };
    let mut world = World::start(&redis(), setting, &mut dice).await;
    let mut nemesis = Nemesis::new(dice.split(), Cruelty::None);
    for _ in 0..8 {
        nemesis.round(&mut world).await;
    }
    let (book, _) = world.finish().await;
    judge(&book).assert_linearizable();
    let (mut dropped, mut doubled) = (0, 0);
    for key in &book.keys {
        for _ in 0..PER_KEY.min(key.ops.len()) {
            let at = dice.below(key.ops.len());
            let op = &key.ops[at];
            if is_seen(op, &key.ops) {
                let mut history = key.ops.clone();
                history.remove(at);
                assert_caught(key, &history, "without", op);
                dropped += 1;
            }
            if is_once(op, &key.ops) {
                let mut history = key.ops.clone();
                history.insert(at, op.clone());
                assert_caught(key, &history, "with a second", op);
                doubled += 1;
            }
        }
    }
    assert!(
        dropped > 50 && doubled > 50,
        "{dropped} dropped, {doubled} doubled"
    );
}
