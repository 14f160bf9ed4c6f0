//! Programs killed at any moment of a switchover: the proxy, the old master, the target. Afterwards
//! there is one master, without fence and pause, and it has every write that was acknowledged.

mod support;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use pointsman::cli::demo::direct_writer::DirectWriter;
use pointsman::cli::demo::marked::Series;
use pointsman::cli::demo::proof::prove;
use support::*;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// A client of the proxy that dials again whenever it is cut off, as clients do.
struct Writer {
    stop: Arc<AtomicBool>,
    proxy: Arc<Mutex<String>>,
    acked: Arc<Mutex<Vec<u64>>>,
    series: Series,
    task: JoinHandle<()>,
}

impl Writer {
    fn start(name: &str, proxy: &Proxy) -> Writer {
        let writer = Writer {
            stop: Arc::default(),
            proxy: Arc::new(Mutex::new(proxy.addr.clone())),
            acked: Arc::default(),
            series: Series::new(name, 64),
            task: tokio::spawn(async {}),
        };
        let (stop, proxy, acked) = (
            writer.stop.clone(),
            writer.proxy.clone(),
            writer.acked.clone(),
        );
        let series = writer.series.clone();
        let task = tokio::spawn(async move {
            let (mut number, mut wire) = (0, None);
            while !stop.load(Relaxed) {
                let addr = proxy.lock().unwrap().clone();
                if wire.is_none() {
                    wire = Wire::connect(&addr).await.ok();
                }
                let Some(open) = wire.as_mut() else {
                    sleep(Duration::from_millis(1)).await;
                    continue;
                };
                number += 1;
                let (key, value) = (series.key(number), series.value(number));
                let set = [b"SET".to_vec(), key.into_bytes(), value];
                match open.call(&set).await {
                    Ok(reply) if reply.ok() => acked.lock().unwrap().push(number),
                    // Not executed, or nobody knows: neither counts.
                    Ok(_) => {}
                    Err(_) => wire = None,
                }
            }
        });
        Writer { task, ..writer }
    }

    fn acked(&self) -> usize {
        self.acked.lock().unwrap().len()
    }

    async fn finish(self) -> (Series, Vec<u64>) {
        self.stop.store(true, Relaxed);
        self.task.await.unwrap();
        let acked = std::mem::take(&mut *self.acked.lock().unwrap());
        (self.series, acked)
    }
}

/// Two writers through the proxy and one past it.
struct Load {
    writers: Vec<Writer>,
    direct: DirectWriter,
    direct_series: Series,
}

impl Load {
    async fn start(shard: &Shard, proxy: &Proxy) -> Load {
        let direct_series = Series::new("crash:d", 64);
        let load = Load {
            writers: ["crash:a", "crash:b"]
                .map(|name| Writer::start(name, proxy))
                .into(),
            direct: DirectWriter::start(shard.addrs(), direct_series.clone(), 400),
            direct_series,
        };
        load.go_on().await;
        load
    }

    fn moves_to(&self, proxy: &Proxy) {
        for writer in &self.writers {
            *writer.proxy.lock().unwrap() = proxy.addr.clone();
        }
    }

    /// Returns when each writer has further writes acknowledged: nothing is paused or fenced.
    async fn go_on(&self) {
        let before: Vec<usize> = self.writers.iter().map(Writer::acked).collect();
        let direct_before = self.direct.acked();
        wait_until("every writer goes on", async || {
            let mut all = self.writers.iter().zip(&before);
            all.all(|(writer, before)| writer.acked() > before + 10)
                && self.direct.acked() > direct_before + 8
        })
        .await;
    }

    async fn assert_nothing_lost(self, shard: &Shard) {
        let mut proofs = Vec::new();
        let direct = self.direct.stop().await.unwrap();
        let mut all = vec![(self.direct_series, direct.acked)];
        for writer in self.writers {
            all.push(writer.finish().await);
        }
        let master = shard.master().await.expect("exactly one master");
        for (series, acked) in &all {
            assert!(!acked.is_empty());
            proofs.push(prove(&master, series, acked).await.unwrap());
        }
        for proof in proofs {
            assert_eq!(proof.lost(), 0, "lost: {:?}", proof.examples);
        }
    }
}

/// Patient with a busy machine, and soon done with a dead node.
fn settings() -> Settings {
    switchover_settings(
        "sync_timeout_ms = 1500\ndrain_timeout_ms = 1500\npause_timeout_ms = 2000\n\
         demote_timeout_ms = 1000",
    )
}

/// Waits for the moment to strike, one of several: `round` ms after writes began to be held, or,
/// every third time, after the order. How far the switchover is by then is the machine's affair.
async fn moment(proxy: &Proxy, id: &str, round: u32) {
    let prepares = ["preflight", "journal", "pre_dial"];
    while !round.is_multiple_of(3)
        && prepares.contains(&operation(proxy, id).await.text("phase").as_str())
    {}
    sleep(Duration::from_micros(u64::from(round) * 700)).await;
}

/// Kills the proxy at `rounds` moments of as many switchovers, and starts it anew each time.
async fn kill_the_proxy(shard: &Shard, rounds: u32) {
    let mut proxy = shard.proxy_with(settings()).await;
    let load = Load::start(shard, &proxy).await;
    let nodes = shard.addrs();
    let (mut undone, mut done) = (0, 0);
    for round in 0..rounds {
        let from = shard.master().await.expect("exactly one master");
        let at = nodes.iter().position(|node| *node == from).unwrap();
        let to = &nodes[(at + 1) % nodes.len()];
        let id = begin_switchover(&proxy, to).await;
        moment(&proxy, &id, round).await;
        proxy.kill();
        proxy = shard.proxy_with(settings()).await;
        load.moves_to(&proxy);
        let master = shard.master().await.expect("exactly one master");
        assert_eq!(status(&proxy).await["master"], master.as_str());
        match master == from {
            true => undone += 1,
            false => done += 1,
        }
        load.go_on().await;
        shard.in_sync(&master).await;
        wait_until("nothing is left to do", async || {
            status(&proxy).await["operation"].is_null()
        })
        .await;
    }
    eprintln!("{undone} switchovers were undone or had not begun, {done} were finished");
    load.assert_nothing_lost(shard).await;
}

#[tokio::test]
async fn a_proxy_killed_at_any_moment_leaves_one_master_and_every_acknowledged_write() {
    kill_the_proxy(&Shard::redis(2).await, 16).await;
}

#[tokio::test]
async fn a_proxy_killed_in_front_of_kvrocks_leaves_one_master_and_every_acknowledged_write() {
    if let Some(shard) = Shard::kvrocks(1).await {
        kill_the_proxy(&shard, 12).await;
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    OldMaster = 0,
    Target = 1,
}

/// Kills a node, for good, at several moments of a switchover to the second node.
async fn kill_a_node(victim: Victim) {
    for round in 0..6 {
        let mut shard = Shard::redis(2).await;
        let proxy = shard.proxy_with(settings()).await;
        let load = Load::start(&shard, &proxy).await;
        let id = begin_switchover(&proxy, &shard.addr(1)).await;
        moment(&proxy, &id, round).await;
        shard.set.nodes[victim as usize].kill();
        let report = ended(&proxy, &id).await;
        let switched = report.outcome.starts_with("switched");
        eprintln!("{victim:?} killed in round {round}: {}", report.outcome);
        let told = [
            "switched",
            "switched_with_leak",
            "rolled_back",
            "refused",
            "unknown",
        ];
        assert!(told.contains(&report.outcome.as_str()), "{report:?}");
        // What a master acknowledged and took with it into death, nobody can give back.
        let survivor = match (victim, switched) {
            (Victim::OldMaster, true) => shard.addr(1),
            (Victim::Target, false) if report.outcome != "unknown" => shard.addr(0),
            _ => continue,
        };
        load.go_on().await;
        assert_eq!(shard.master().await, Some(survivor));
        load.assert_nothing_lost(&shard).await;
    }
}

#[tokio::test]
async fn a_target_that_dies_leaves_the_old_master_writable_and_nothing_lost() {
    kill_a_node(Victim::Target).await;
}

#[tokio::test]
async fn an_old_master_that_dies_loses_nothing_that_the_new_one_was_promoted_with() {
    kill_a_node(Victim::OldMaster).await;
}

/// Freezes a node at several moments and thaws it when the outcome is told.
async fn freeze_a_node(victim: Victim) {
    for round in 0..6 {
        let shard = Shard::redis(2).await;
        let proxy = shard.proxy_with(settings()).await;
        let load = Load::start(&shard, &proxy).await;
        let id = begin_switchover(&proxy, &shard.addr(1)).await;
        moment(&proxy, &id, round).await;
        let node = &shard.set.nodes[victim as usize];
        node.freeze().unwrap();
        let report = ended(&proxy, &id).await;
        node.thaw().unwrap();
        eprintln!("{victim:?} frozen in round {round}: {}", report.outcome);
        assert!(report.hold_ms < 5000.0, "{report:?}");
        wait_until("nothing is left to do", async || {
            status(&proxy).await["operation"].is_null()
        })
        .await;
        load.go_on().await;
        let master = shard.master().await.expect("exactly one master");
        assert_eq!(status(&proxy).await["master"], master.as_str());
        load.assert_nothing_lost(&shard).await;
    }
}

#[tokio::test]
async fn a_target_that_hangs_for_a_while_costs_nothing_but_time() {
    freeze_a_node(Victim::Target).await;
}

#[tokio::test]
async fn an_old_master_that_hangs_for_a_while_costs_nothing_but_time() {
    freeze_a_node(Victim::OldMaster).await;
}

#[tokio::test]
async fn a_proxy_told_to_end_undoes_its_operation_first_and_a_second_time_ends_at_once() {
    let shard = Shard::redis(1).await;
    let mut proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    stick_writes(&shard, 8000).await;
    let id = begin_switchover(&proxy, &shard.addr(1)).await;
    in_phase(&proxy, &id, "hold").await;
    proxy.signal("TERM").unwrap();
    wait_until("the switchover is undone", async || {
        let said = proxy.log_tail();
        said.contains("rolled_back") && said.contains("stopped")
    })
    .await;
    let unpaused = shard.wire(0).await.run("CLIENT UNPAUSE").await.unwrap();
    assert!(unpaused.ok(), "{unpaused:?}");
    wait_until("the proxy ends", async || proxy.ended()).await;
    assert_eq!(shard.master().await, Some(shard.addr(0)));
    let checked = clients.finish(&shard).await;
    assert_eq!(checked.proof.lost(), 0, "{:?}", checked.proof.examples);

    let mut proxy = shard.proxy().await;
    // A client that is in the middle of something keeps the proxy from ending at once.
    let mut wire = client(&proxy).await;
    wire.send(&["BLPOP", "nothing", "0"]).await.unwrap();
    wait_until("the pop blocks", async || {
        let info = shard.wire(0).await.run("INFO clients").await.unwrap();
        field(&info.text(), "blocked_clients") == Some("1")
    })
    .await;
    proxy.signal("TERM").unwrap();
    wait_until("the first is heard", async || {
        proxy.log_tail().contains("a second signal does not wait")
    })
    .await;
    proxy.signal("TERM").unwrap();
    wait_until("the proxy ends", async || proxy.ended()).await;
    assert!(
        proxy.log_tail().contains("second signal"),
        "{}",
        proxy.log_tail()
    );
}
