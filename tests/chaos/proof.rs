//! The end of a run: every key is read on every node, and every history is judged.

use std::time::Instant;

use crate::book::{Book, Key};
use crate::checker::{Verdict, check};
use crate::clients::{put, understand};
use crate::history::{Call, Kind};
use crate::nodes::Nodes;

/// Keys that are asked for in one write.
const BATCH: usize = 200;
/// Who looks at the end.
const WITNESS: usize = usize::MAX;
const SHOWN_MAX: usize = 3;

fn look(kind: Kind) -> Call {
    match kind {
        Kind::Register => Call::Get,
        Kind::Counter => Call::Count,
        Kind::List => Call::Range,
        Kind::Set => Call::Members,
    }
}

/// Reads every key from the master, as the last operation of its history, and from the replicas,
/// which must hold the same. The proxy takes no part in it.
pub async fn look_at_all(book: &mut Book, nodes: &Nodes, master: &str) {
    let mut wires = nodes.wires().await;
    let leader = nodes.at(master);
    let all: Vec<usize> = (0..book.keys.len()).collect();
    for batch in all.chunks(BATCH) {
        let mut request = Vec::new();
        for &key in batch {
            put(
                &mut request,
                &book.keys[key].name,
                look(book.keys[key].kind),
            );
        }
        let mut places = Vec::new();
        for &key in batch {
            let call = look(book.keys[key].kind);
            places.push((book.begin(WITNESS, key, call), call));
        }
        for wire in &mut wires {
            wire.send_raw(&request).await.unwrap();
        }
        for (place, call) in places {
            let name = book.keys[place.key].name.clone();
            let mut seen = Vec::new();
            for wire in &mut wires {
                let value = wire.reply().await.unwrap();
                let reply = understand(&name, call, &value);
                seen.push(reply.unwrap_or_else(|| panic!("{name} holds {value:?}")));
            }
            if seen.iter().any(|reply| *reply != seen[leader]) {
                book.complain(format!("{name} differs between nodes: {seen:?}"));
            }
            book.replied(place, seen.swap_remove(leader));
        }
    }
}

/// What the checker says about all keys.
#[derive(Debug, Default)]
pub struct Judgement {
    pub keys: usize,
    pub violations: Vec<String>,
    pub undecided: usize,
    pub took_ms: u128,
}

pub fn judge(book: &Book) -> Judgement {
    let began = Instant::now();
    let mut judgement = Judgement::default();
    let halves = book.keys.split_at(book.keys.len() / 2);
    let verdicts: Vec<(&Key, Verdict)> = std::thread::scope(|scope| {
        let tasks = [halves.0, halves.1].map(|keys| {
            scope.spawn(move || {
                let verdicts = keys.iter().map(|key| (key, check(key.kind, &key.ops)));
                verdicts.collect::<Vec<_>>()
            })
        });
        let joined = tasks.map(|task| task.join().expect("the checker ends"));
        joined.into_iter().flatten().collect()
    });
    for (key, verdict) in verdicts {
        judgement.keys += 1;
        match verdict {
            Verdict::Linearizable => {}
            Verdict::Undecided => judgement.undecided += 1,
            Verdict::Violation { explained } => {
                judgement.violations.push(told(key, explained));
            }
        }
    }
    judgement.took_ms = began.elapsed().as_millis();
    judgement
}

/// A history as people read it.
fn told(key: &Key, explained: usize) -> String {
    let mut text = format!("{}: {explained} operations are explained\n", key.name);
    let mut ops: Vec<_> = key.ops.iter().collect();
    ops.sort_by_key(|op| op.from);
    for op in ops {
        text += &format!(
            "  {:>13} us client {:>3} {:?} {:?}\n",
            op.from / 1000,
            op.client as isize,
            op.call,
            op.end
        );
    }
    text
}

impl Judgement {
    pub fn assert_linearizable(&self) {
        for violation in self.violations.iter().take(SHOWN_MAX) {
            eprintln!("{violation}");
        }
        assert!(
            self.violations.is_empty(),
            "{} of {} keys have no explanation",
            self.violations.len(),
            self.keys
        );
        assert_eq!(self.undecided, 0, "histories that could not be judged");
    }
}
