//! Reads that were on their way when their connection to the server broke.

use crate::support::*;
use crate::way::{Way, proxy_through};
use crate::{known, missed, proxy, replaced};

#[tokio::test]
async fn reads_under_way_when_the_master_dies_are_answered_by_the_next() {
    let mut shard = Shard::redis(1).await;
    Readers::prepare(&shard).await;
    let proxy = proxy(&shard, "hold").await;
    known(&proxy).await;
    let readers = Readers::start(&proxy).await;
    let mut waiting = client(&proxy).await.with_deadline(SOON);

    shard.set.nodes[0].freeze().unwrap();
    readers.are_stuck().await;
    shard.set.nodes[0].kill();
    missed(&proxy, &shard.addr(0)).await;
    waiting.send(&["GET", "which"]).await.unwrap();

    replaced(&shard, &proxy).await;
    let read = waiting.reply().await.unwrap();
    assert_eq!(read, Value::bulk("the new master"));
    readers.go_on().await;
    readers.finish().await;
}

#[tokio::test]
async fn a_read_that_ends_two_connections_in_a_row_is_not_sent_a_third_time() {
    let shard = Shard::redis(1).await;
    let way = Way::start(shard.addr(0)).await;
    let proxy = proxy_through(&way, &shard, &Settings::default()).await;
    let mut reader = client(&proxy).await.with_deadline(SOON);
    assert!(reader.run("SET whole 1").await.unwrap().ok());

    assert_eq!(reader.run("GET whole").await.unwrap(), Value::bulk("1"));
    let read = reader.run("GET broken").await;
    assert!(read.is_err(), "{read:?}");
    assert_eq!(way.broken(), 2);
}

#[tokio::test]
async fn no_read_of_a_pipeline_is_sent_a_third_time() {
    let shard = Shard::redis(1).await;
    let way = Way::start(shard.addr(0)).await;
    let proxy = proxy_through(&way, &shard, &Settings::default()).await;
    let mut reader = client(&proxy).await.with_deadline(SOON);
    assert!(reader.run("GET whole").await.is_ok());

    let mut pipeline = Vec::new();
    for _ in 0..5 {
        put_request(&mut pipeline, &["GET", "answer"]);
    }
    reader.send_raw(&pipeline).await.unwrap();
    // Each of two connections has answered one before it broke.
    for _ in 0..2 {
        assert_eq!(reader.reply().await.unwrap(), Value::Null);
    }
    let read = reader.reply().await;
    assert!(read.is_err(), "{read:?}");
    assert_eq!(way.broken(), 2);
}

#[tokio::test]
async fn of_a_read_that_was_lost_nobody_says_that_it_was_not_executed() {
    let shard = Shard::redis(1).await;
    let way = Way::start(shard.addr(0)).await;
    let settings = proxy_settings("workers = 1\nreads_without_master = \"error\"");
    let proxy = proxy_through(&way, &shard, &settings).await;
    let mut reader = client(&proxy).await.with_deadline(SOON);
    assert!(reader.run("GET whole").await.is_ok());

    way.close().await;
    let read = reader.run("GET broken").await.unwrap().text();
    assert!(read.starts_with("TRYAGAIN"), "{read}");
    assert!(!read.contains("executed"), "{read}");
    // What was never sent was not.
    let read = reader.run("GET whole").await.unwrap().text();
    assert!(read.contains("not executed"), "{read}");
}
