//! A master that answers nobody and closes nothing, and another one in its place.

use pointsman::cli::demo::wire::Wire;

use crate::support::*;
use crate::{followed, known, promote};

/// Clients that wait for a reply of the frozen master, on connections of all kinds.
struct Stuck {
    reads: Vec<Wire>,
    writes: Vec<Wire>,
}

impl Stuck {
    async fn connect(proxy: &Proxy) -> Stuck {
        let mut all = Vec::new();
        for _ in 0..4 {
            let mut wire = client(proxy).await.with_deadline(SOON);
            // Its connection to the server is there before the server freezes.
            assert!(wire.run("SET before 1").await.unwrap().ok());
            all.push(wire);
        }
        // This one has a connection of its own, and keeps it.
        assert!(all[3].run("WATCH watched").await.unwrap().ok());
        let writes = all.split_off(2);
        Stuck { reads: all, writes }
    }

    async fn ask(&mut self) {
        for wire in &mut self.reads {
            wire.send(&["GET", "which"]).await.unwrap();
        }
        for wire in &mut self.writes {
            wire.send(&["INCR", "written"]).await.unwrap();
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
    let mut reader = client(&proxy).await.with_deadline(SOON);
    let mut writer = client(&proxy).await.with_deadline(SOON);
    for wire in [&mut reader, &mut writer] {
        assert!(wire.run("SET before 1").await.unwrap().ok());
    }
    known(&proxy).await;

    shard.set.nodes[0].freeze().unwrap();
    reader.send(&["GET", "which"]).await.unwrap();
    writer.send(&["INCR", "written"]).await.unwrap();
    promote(&shard, 1, "which", "the new master").await;
    followed(&proxy, &shard.addr(1)).await;

    let read = reader.reply().await.unwrap();
    assert_eq!(read, Value::bulk("the new master"));
    let written = writer.reply().await;
    assert!(written.is_err(), "{written:?}");
    shard.set.nodes[0].thaw().unwrap();
}

#[tokio::test]
async fn a_master_that_froze_is_left_behind_with_what_it_owes() {
    let shard = Shard::redis(2).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut stuck = Stuck::connect(&proxy).await;
    let mut idle = client(&proxy).await.with_deadline(SOON);
    assert!(idle.run("GET which").await.is_ok());
    known(&proxy).await;

    shard.set.nodes[0].freeze().unwrap();
    stuck.ask().await;
    promote(&shard, 1, "which", "the new master").await;
    follow(&shard.addr(2), &shard.addr(1)).await.unwrap();
    followed(&proxy, &shard.addr(1)).await;

    for wire in &mut stuck.reads {
        let read = wire.reply().await.unwrap();
        assert_eq!(read, Value::bulk("the new master"));
    }
    // What became of these nobody knows.
    for wire in &mut stuck.writes {
        let written = wire.reply().await;
        assert!(written.is_err(), "{written:?}");
    }
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
