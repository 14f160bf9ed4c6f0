//! Iterations whose master freezes in the middle, and another one in its place.

use std::collections::BTreeSet;

use pointsman::cli::demo::wire::{Ending, Flat, Wire};

use crate::support::*;
use crate::{known, replaced};

const MEMBERS: usize = 1000;
const VALUE_BYTES: usize = 64 * 1024;

/// A set and a hash that no single step goes through, in sync everywhere.
async fn filled(shard: &Shard, value: &str) {
    let mut wire = shard.wire(0).await.with_deadline(SOON);
    let mut all = Vec::new();
    for at in 0..MEMBERS {
        let name = format!("member-{at}");
        put_request(&mut all, &["SADD", "set", &name]);
        put_request(&mut all, &["HSET", "hash", &name, value]);
    }
    wire.send_raw(&all).await.unwrap();
    for _ in 0..2 * MEMBERS {
        assert_eq!(wire.reply().await.unwrap(), Value::Int(1));
    }
    shard.in_sync(&shard.addr(0)).await;
}

/// A client of one iteration: the command and how many values belong to each member.
struct Iteration {
    wire: Wire,
    what: [&'static str; 2],
    values: usize,
    cursor: String,
    seen: BTreeSet<String>,
}

impl Iteration {
    async fn of(proxy: &Proxy, what: [&'static str; 2], values: usize) -> Iteration {
        Iteration {
            wire: client(proxy).await.with_deadline(SOON),
            what,
            values,
            cursor: "0".to_owned(),
            seen: BTreeSet::new(),
        }
    }

    async fn ask(&mut self) {
        let [name, key] = self.what;
        let step = [name, key, &self.cursor, "COUNT", "100"];
        self.wire.send(&step).await.unwrap();
    }

    async fn take(&mut self) {
        let reply = self.wire.reply().await.unwrap();
        let [cursor, page] = reply.items() else {
            panic!("no step: {reply:?}");
        };
        self.cursor = cursor.text();
        let members = page.items().iter().step_by(1 + self.values);
        self.seen.extend(members.map(Value::text));
    }

    async fn finish(mut self) {
        while self.cursor != "0" {
            self.ask().await;
            self.take().await;
        }
        assert_eq!(self.seen.len(), MEMBERS, "{:?}", self.what);
    }
}

#[tokio::test]
async fn a_step_that_a_frozen_master_owes_is_answered_by_the_new_one() {
    let shard = Shard::redis(2).await;
    filled(&shard, "value").await;
    let proxy = shard.proxy_with(patient()).await;
    let mut begun = Iteration::of(&proxy, ["SSCAN", "set"], 0).await;
    begun.ask().await;
    begun.take().await;
    assert_ne!(begun.cursor, "0", "one step is not all");
    let mut first = Iteration::of(&proxy, ["HSCAN", "hash"], 1).await;
    assert!(first.wire.run("GET which").await.is_ok());
    known(&proxy).await;

    shard.set.nodes[0].freeze().unwrap();
    begun.ask().await;
    first.ask().await;
    replaced(&shard, &proxy).await;
    for mut iteration in [begun, first] {
        iteration.take().await;
        iteration.finish().await;
    }
}

#[tokio::test]
async fn a_client_that_has_a_part_of_a_step_is_told_that_there_will_be_no_more() {
    let shard = Shard::redis(2).await;
    // More than what can be on its way while nobody reads.
    filled(&shard, &"v".repeat(VALUE_BYTES)).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await.with_deadline(SOON);
    known(&proxy).await;
    let step = ["HSCAN", "hash", "0", "COUNT", "1000000"];
    wire.send(&step).await.unwrap();
    assert!(wire.flat(|head| head == Flat::Elements(2)).await.unwrap());
    shard.set.nodes[0].freeze().unwrap();
    replaced(&shard, &proxy).await;
    let (part, ending) = wire.raw_until_quiet(SOON).await;
    assert_eq!(ending, Ending::Closed);
    assert!(part.len() < MEMBERS * VALUE_BYTES, "{}", part.len());
}
