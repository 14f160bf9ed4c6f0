//! The load, the direct writer and the proof against plain servers.

use std::time::{Duration, Instant};

use super::super::direct_writer::DirectWriter;
use super::super::proof::prove;
use super::super::servers::{Engine, EngineChoice, NodeSet, plain_role_change};
use super::super::workspace::Workspace;
use super::*;

async fn set(replicas: usize) -> NodeSet {
    let engine = Engine::find(EngineChoice::Redis).unwrap();
    let workspace = Workspace::create("pointsman-test").unwrap();
    NodeSet::start(&engine, &workspace, replicas, &[])
        .await
        .unwrap()
}

fn plan(addr: &str) -> Plan {
    let series = Series::new("test:w", 512);
    Plan {
        addr: addr.to_owned(),
        connections: 10,
        read_only: 2,
        writes_per_s: 2000,
        reads_per_s: 1000,
        series,
    }
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !condition() {
        assert!(Instant::now() < deadline, "still waiting: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn an_undisturbed_load_sees_no_error_and_is_all_there() {
    let set = set(0).await;
    let plan = plan(&set.nodes[0].addr);
    let load = Load::start(plan.clone(), Instant::now()).await.unwrap();
    until("1000 writes", || load.live().acked.load(Relaxed) > 1000).await;
    let record = load.stop().await.unwrap();
    assert_eq!(
        (record.errors, record.unanswered),
        (0, 0),
        "{:?}",
        record.error_texts
    );
    assert_eq!(record.acked.len(), record.writes.len());
    assert!(!record.reads_alone.is_empty() && !record.reads_mixed.is_empty());
    let proof = prove(&set.nodes[0].addr, &plan.series, &record.acked)
        .await
        .unwrap();
    assert_eq!(
        (proof.looked_for, proof.lost()),
        (record.acked.len() as u64, 0)
    );
}

#[tokio::test]
async fn the_proof_finds_each_write_that_is_missing_or_altered() {
    let set = set(0).await;
    let plan = plan(&set.nodes[0].addr);
    let load = Load::start(plan.clone(), Instant::now()).await.unwrap();
    until("500 writes", || load.live().acked.load(Relaxed) > 500).await;
    let record = load.stop().await.unwrap();
    let mut wire = set.nodes[0].wire().await.unwrap();
    for &number in &record.acked[10..13] {
        wire.call(&["DEL", &plan.series.key(number)]).await.unwrap();
    }
    wire.call(&["APPEND", &plan.series.key(record.acked[20]), "x"])
        .await
        .unwrap();
    let proof = prove(&set.nodes[0].addr, &plan.series, &record.acked)
        .await
        .unwrap();
    assert_eq!(
        (proof.missing, proof.altered, proof.examples.len()),
        (3, 1, 4)
    );
}

#[tokio::test]
async fn clients_without_a_proxy_notice_a_role_change_and_a_deletion() {
    let set = set(1).await;
    let addrs = set.addrs();
    let plan = plan(&addrs[0]);
    let load = Load::start(plan, Instant::now()).await.unwrap();
    until("500 writes", || load.live().acked.load(Relaxed) > 500).await;
    plain_role_change(&addrs, &addrs[0], &addrs[1])
        .await
        .unwrap();
    until("an error", || load.live().errors.load(Relaxed) > 0).await;
    let record = load.stop().await.unwrap();
    assert!(
        record
            .error_texts
            .iter()
            .all(|text| text.contains("READONLY"))
    );
}

#[tokio::test]
async fn clients_notice_a_server_that_dies_and_comes_back_for_nobody() {
    let mut set = set(0).await;
    let load = Load::start(plan(&set.nodes[0].addr), Instant::now())
        .await
        .unwrap();
    until("500 writes", || load.live().acked.load(Relaxed) > 500).await;
    set.nodes[0].kill();
    until("an error of each connection", || {
        load.live().errors.load(Relaxed) >= 10
    })
    .await;
    let record = load.stop().await.unwrap();
    assert!(record.error_texts.iter().any(|text| text.contains("lost")));
}

#[tokio::test]
async fn a_direct_writer_follows_the_master_and_loses_nothing() {
    let set = set(2).await;
    let addrs = set.addrs();
    let series = Series::new("test:d", 200);
    let writer = DirectWriter::start(addrs.clone(), series.clone(), 2000);
    let mut master = 0;
    for target in [1, 0, 2] {
        let before = writer.acked();
        until("further writes", || writer.acked() > before + 300).await;
        plain_role_change(&addrs, &addrs[master], &addrs[target])
            .await
            .unwrap();
        set.wait_in_sync(&addrs[target], Duration::from_secs(20))
            .await
            .unwrap();
        master = target;
    }
    let before = writer.acked();
    until("writes on the last master", || {
        writer.acked() > before + 300
    })
    .await;
    let record = writer.stop().await.unwrap();
    assert!(record.moves >= 4 && record.refused > 0);
    let proof = prove(&addrs[master], &series, &record.acked).await.unwrap();
    assert_eq!(
        (proof.looked_for, proof.lost()),
        (record.acked.len() as u64, 0)
    );
}
