//! Values so large that they are on their way when the master changes.

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

const MIB: usize = 1 << 20;
/// What is sent in one piece; large values take many.
const PIECE: usize = 256 * 1024;

/// The request that sets `key` to `len` bytes, all of them `byte`.
fn set(key: &str, len: usize, byte: u8) -> Vec<u8> {
    let mut request = Vec::with_capacity(len + 64);
    put_request(
        &mut request,
        &[&b"SET"[..], key.as_bytes(), &vec![byte; len]],
    );
    request
}

/// Sets a key to ever other values of `len` bytes and looks at some of them; gives the last byte
/// that was written.
async fn upload(mut wire: Wire, key: String, len: usize, work: Work) -> u8 {
    let mut dice = Dice::new(len as u64);
    let mut byte = 0;
    while !work.is_over() {
        byte = b'a' + dice.roll(26) as u8;
        for piece in set(&key, len, byte).chunks(PIECE) {
            wire.send_raw(piece).await.unwrap();
        }
        assert!(wire.reply().await.unwrap().ok());
        let end = format!("GETRANGE {key} {} -1", len - 4);
        assert_eq!(wire.run(&end).await.unwrap(), Value::bulk([byte; 4]));
        let length = wire.run(&format!("STRLEN {key}")).await.unwrap();
        assert_eq!(length, Value::Int(len as i64));
        work.did_one();
    }
    byte
}

/// Clients upload values of these sizes all the while.
async fn check_uploads(shard: Shard, lens: &[usize], switchovers: usize) {
    let mut settings = patient();
    // One value is more than a replica may usually be behind.
    settings.switchover.push_str("\nmax_lag = 1073741824");
    let proxy = shard.proxy_with(settings).await;
    let (mut uploading, mut works) = (Vec::new(), Vec::new());
    for (at, len) in lens.iter().enumerate() {
        let wire = client(&proxy).await.with_deadline(SOON);
        let (key, work) = (format!("large-{at}"), Work::default());
        works.push(work.clone());
        uploading.push(tokio::spawn(upload(wire, key, *len, work)));
    }
    to_and_fro(&shard, &proxy, switchovers, async || {
        for work in &works {
            work.goes_on(1).await;
        }
    })
    .await;
    for work in &works {
        work.end();
    }
    for (at, client) in uploading.into_iter().enumerate() {
        let byte = client.await.unwrap();
        let last = format!("GETRANGE large-{at} 0 3");
        let master = shard.wire(switchovers % 2).await.run(&last).await.unwrap();
        assert_eq!(master, Value::bulk([byte; 4]));
    }
}

#[tokio::test]
async fn large_values_on_their_way_arrive_whole_on_the_new_master() {
    let lens = [MIB, MIB + 17, 20 * MIB, 20 * MIB - 1];
    check_uploads(Shard::redis(1).await, &lens, 6).await;
}

#[tokio::test]
async fn huge_values_on_their_way_arrive_whole_on_the_new_master() {
    let shard = Shard::redis_with(1, &["--client-output-buffer-limit", "replica 0 0 0"]).await;
    check_uploads(shard, &[200 * MIB], 3).await;
}

#[tokio::test]
async fn large_values_on_their_way_arrive_whole_on_kvrocks() {
    if let Some(shard) = Shard::kvrocks(1).await {
        // The tail of its log is read before a switchover, and is refused when it is too long.
        check_uploads(shard, &[MIB / 8, MIB / 4], 4).await;
    }
}

async fn switch(shard: &Shard, proxy: &Proxy, to: usize) {
    let report = switchover(proxy, &shard.addr(to)).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    shard.in_sync(&shard.addr(to)).await;
}

/// Half of a request is sent, the master changes, and changes again, and then comes the rest.
#[tokio::test]
async fn half_a_value_waits_for_its_other_half_through_switchovers() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let mut wire = client(&proxy).await;
    for (lines, replies) in [(&[][..], 0), (&["MULTI", "SET k 1"][..], 2)] {
        for line in lines {
            wire.run(line).await.unwrap();
        }
        let mut request = set("large", 3 * MIB, b'x');
        put_request(&mut request, &["STRLEN", "large"]);
        let (first, rest) = request.split_at(2 * MIB);
        wire.send_raw(first).await.unwrap();
        for to in [1, 0] {
            switch(&shard, &proxy, to).await;
        }
        wire.send_raw(rest).await.unwrap();
        let stored = [Value::Simple("OK".into()), Value::Int(3 * MIB as i64)];
        if replies == 0 {
            for expected in stored {
                assert_eq!(wire.reply().await.unwrap(), expected);
            }
            continue;
        }
        for _ in 0..replies {
            assert_eq!(wire.reply().await.unwrap(), Value::Simple("QUEUED".into()));
        }
        let results = wire.run("EXEC").await.unwrap();
        assert_eq!(results.items()[1..], stored);
    }
}

/// Without room for it the client is disconnected, at once and before anything was executed.
#[tokio::test]
async fn half_a_value_that_is_not_kept_is_given_up_when_the_master_changes() {
    let shard = Shard::redis(1).await;
    let mut settings = patient();
    settings.proxy = "upload_buffer_bytes_max = 1048576".into();
    let proxy = shard.proxy_with(settings).await;
    let mut wire = client(&proxy).await;
    let request = set("large", 3 * MIB, b'x');
    wire.send_raw(&request[..2 * MIB]).await.unwrap();
    wait_until("the server has a part of it", async || {
        let list = shard.wire(0).await.run("CLIENT LIST").await.unwrap().text();
        let large = |word: &str| {
            let bytes = word
                .strip_prefix("qbuf=")
                .and_then(|bytes| bytes.parse().ok());
            bytes.is_some_and(|bytes: usize| bytes > MIB)
        };
        list.split_whitespace().any(large)
    })
    .await;
    switch(&shard, &proxy, 1).await;
    assert!(matches!(
        wire.reply().await,
        Err(WireError::Closed | WireError::Io(_))
    ));
    assert_eq!(
        client(&proxy).await.run("EXISTS large").await.unwrap(),
        Value::Int(0)
    );
}
