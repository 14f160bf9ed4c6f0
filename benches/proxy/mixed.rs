//! What an application does that uses more than reads and writes: one request in twenty is a
//! transaction (`MULTI`, `SET`, `GET`, `EXEC` in one write), and meanwhile others wait for a list.

use std::rc::Rc;
use std::time::Instant;

use anyhow::{Context, bail};
use hdrhistogram::Histogram;
use pointsman::cli::demo::wire::{Value, Wire, put_request};
use tokio::task::LocalSet;

use crate::load::Seen;

pub const NAME: &str = "mixed: 5 % MULTI/EXEC, 20 blocked, 50 connections";
const BLOCKED: usize = 20;
const ONE_IN: u64 = 20;
const VALUE_BYTES: usize = 64;

/// What is sent in one write, how many requests it is and with what its last reply must agree.
struct Batch {
    bytes: Vec<u8>,
    requests: u64,
    fits: fn(&Value) -> bool,
}

fn batches() -> [Batch; 3] {
    let value = "v".repeat(VALUE_BYTES);
    let batch = |lines: &[&[&str]], fits| {
        let mut bytes = Vec::new();
        for words in lines {
            put_request(&mut bytes, words);
        }
        Batch {
            bytes,
            requests: lines.len() as u64,
            fits,
        }
    };
    let set: &[&str] = &["SET", "mixed", &value];
    let get: &[&str] = &["GET", "mixed"];
    [
        batch(&[set], Value::ok),
        batch(&[get], |reply| matches!(reply, Value::Bulk(_))),
        batch(&[&["MULTI"], set, get, &["EXEC"]], |reply| {
            reply.items().len() == 2
        }),
    ]
}

/// Sends about `requests` over `connections`, each as soon as its last one is answered.
pub async fn run(addr: &str, connections: usize, requests: u64) -> anyhow::Result<Seen> {
    let mut blocked = Vec::new();
    for number in 0..BLOCKED {
        let mut wire = Wire::connect(addr).await?;
        wire.send(&["BLPOP", &format!("nothing:{number}"), "0"])
            .await?;
        blocked.push(wire);
    }
    let mut wires = Vec::new();
    for _ in 0..connections {
        wires.push(Wire::connect(addr).await?);
    }
    let (batches, local) = (Rc::new(batches()), LocalSet::new());
    let turns = requests / connections as u64;
    let begin = Instant::now();
    let sending: Vec<_> = wires
        .into_iter()
        .map(|wire| local.spawn_local(send(wire, turns, batches.clone())))
        .collect();
    local.await;
    let took = begin.elapsed();
    let mut sent = 0;
    let mut all = histogram()?;
    for one in sending {
        let (count, times) = one.await??;
        sent += count;
        all.add(times)?;
    }
    let ms = |part| all.value_at_quantile(part) as f64 / 1000.0;
    Ok(Seen {
        requests: sent,
        requests_per_s: sent as f64 / took.as_secs_f64(),
        p50_ms: ms(0.5),
        p99_ms: ms(0.99),
    })
}

fn histogram() -> anyhow::Result<Histogram<u64>> {
    Histogram::new_with_bounds(1, 60_000_000, 3).context("bounds")
}

async fn send(
    mut wire: Wire,
    turns: u64,
    batches: Rc<[Batch; 3]>,
) -> anyhow::Result<(u64, Histogram<u64>)> {
    let (mut sent, mut times) = (0, histogram()?);
    for turn in 0..turns {
        let [set, get, transaction] = &*batches;
        let batch = match turn {
            turn if turn % ONE_IN == ONE_IN - 1 => transaction,
            turn if turn % 2 == 0 => set,
            _ => get,
        };
        let begin = Instant::now();
        wire.send_raw(&batch.bytes).await?;
        let mut last = Value::Null;
        for _ in 0..batch.requests {
            last = wire.reply().await?;
        }
        times.saturating_record(begin.elapsed().as_micros() as u64);
        if !(batch.fits)(&last) {
            bail!("answered {last:?}");
        }
        sent += batch.requests;
    }
    Ok((sent, times))
}
