//! A master that answers nobody and closes nothing, and another one in its place.

use pointsman::cli::demo::wire::Wire;

use crate::support::*;
use crate::{known, replaced};

/// Clients that wait for a reply of the frozen master.
struct Stuck {
    readers: Vec<Wire>,
    writers: Vec<Wire>,
}

impl Stuck {
    /// As many of each kind.
    async fn connect(proxy: &Proxy, count: usize) -> Stuck {
        let mut all = Vec::new();
        for _ in 0..2 * count {
            let mut wire = client(proxy).await.with_deadline(SOON);
            // Its connection to the server is there before the server freezes.
            assert!(wire.run("SET before 1").await.unwrap().ok());
            all.push(wire);
        }
        Stuck {
            writers: all.split_off(count),
            readers: all,
        }
    }

    async fn ask(&mut self) {
        for wire in &mut self.readers {
            wire.send(&["GET", "which"]).await.unwrap();
        }
        for wire in &mut self.writers {
            wire.send(&["INCR", "written"]).await.unwrap();
        }
    }

    async fn are_answered(&mut self) {
        for wire in &mut self.readers {
            let read = wire.reply().await.unwrap();
            assert_eq!(read, Value::bulk("the new master"));
        }
        // What became of these nobody knows.
        for wire in &mut self.writers {
            let written = wire.reply().await;
            assert!(written.is_err(), "{written:?}");
        }
    }
}

/// Clients that ask one thing and wait for the answer: nobody asks anything of the next master.
#[tokio::test]
async fn clients_that_all_wait_do_not_wait_for_a_frozen_master_for_ever() {
    let shard = Shard::redis(1).await;
    let settings = Settings {
        proxy: "workers = 1".into(),
        ..patient()
    };
    let proxy = shard.proxy_with(settings).await;
    let mut stuck = Stuck::connect(&proxy, 1).await;
    known(&proxy).await;

    shard.set.nodes[0].freeze().unwrap();
    stuck.ask().await;
    replaced(&shard, &proxy).await;
    stuck.are_answered().await;
    shard.set.nodes[0].thaw().unwrap();
}

#[tokio::test]
async fn a_master_that_froze_is_left_behind_with_what_it_owes() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut stuck = Stuck::connect(&proxy, 2).await;
    // This one has a connection of its own, and keeps it.
    let watches = stuck.writers[0].run("WATCH watched").await;
    assert!(watches.unwrap().ok());
    let mut idle = client(&proxy).await.with_deadline(SOON);
    assert!(idle.run("GET which").await.is_ok());
    known(&proxy).await;

    shard.set.nodes[0].freeze().unwrap();
    stuck.ask().await;
    replaced(&shard, &proxy).await;
    stuck.are_answered().await;
    assert!(idle.run("SET which another").await.unwrap().ok());

    // As soon as all nodes answer, there is nothing left that would keep the shard from being
    // drained.
    shard.set.nodes[0].thaw().unwrap();
    follow(&shard.addr(0), &shard.addr(1)).await.unwrap();
    shard.in_sync(&shard.addr(1)).await;
    let report = switchover(&proxy, &shard.addr(2)).await;
    assert_eq!(report.outcome, "switched", "{report:?}");
    assert!(idle.run("SET which another").await.unwrap().ok());
}
