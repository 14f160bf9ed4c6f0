//! Pipelines of reads and writes: one reply each, in order, with the right value, and never an
//! error that only a change of the master makes.

use crate::shuttle::{Dice, Work, to_and_fro};
use crate::support::*;

/// Values that look like what the proxy must not take for an answer about a role.
const ODD_VALUES: [&str; 6] = [
    "READONLY You can't write against a read only replica.",
    "-READONLY You can't write against a read only slave.\r\n",
    "NOSCRIPT No matching script. Please use EVAL.",
    "-UNBLOCKED force unblock from blocking operation",
    "LOADING kvrocks is restoring the db from backup",
    "+QUEUED\r\n",
];
/// Passes over an error of the command in it, as careless scripts do.
const CARELESS: &str = "redis.pcall('INCR', KEYS[1]); return redis.pcall('GET', KEYS[1])";

/// What a client knows of its own keys, and the replies it waits for.
struct Expected {
    pipeline: Vec<u8>,
    replies: Vec<Value>,
    counter: i64,
    value: String,
}

impl Expected {
    fn ask(&mut self, command: &[&str], reply: Value) {
        put_request(&mut self.pipeline, command);
        self.replies.push(reply);
    }

    fn add(&mut self, dice: &mut Dice, client: u64) {
        let (counter, text) = (format!("counter:{client}"), format!("text:{client}"));
        match dice.roll(7) {
            0 => {
                self.value = ODD_VALUES[dice.roll(ODD_VALUES.len() as u64) as usize].to_owned();
                self.ask(
                    &["SET", &text, &self.value.clone()],
                    Value::Simple("OK".into()),
                );
            }
            1 | 2 => self.ask(&["GET", &text], Value::bulk(&self.value)),
            3 => {
                self.counter += 1;
                self.ask(&["INCR", &counter], Value::Int(self.counter));
            }
            4 => {
                self.counter += 1;
                let count = Value::bulk(self.counter.to_string());
                self.ask(&["EVAL", CARELESS, "1", &counter], count);
            }
            5 => self.ask(&["ECHO", &self.value.clone()], Value::bulk(&self.value)),
            _ => {
                let queued = || Value::Simple("QUEUED".into());
                self.counter += 2;
                self.ask(&["MULTI"], Value::Simple("OK".into()));
                self.ask(&["INCR", &counter], queued());
                self.ask(&["GET", &text], queued());
                self.ask(&["EVAL", CARELESS, "1", &counter], queued());
                let results = vec![
                    Value::Int(self.counter - 1),
                    Value::bulk(&self.value),
                    Value::bulk(self.counter.to_string()),
                ];
                self.ask(&["EXEC"], Value::Array(results));
            }
        }
    }
}

async fn send_pipelines(mut wire: Wire, client: u64, work: Work) {
    let mut dice = Dice::new(client);
    let mut expected = Expected {
        pipeline: Vec::new(),
        replies: Vec::new(),
        counter: 0,
        value: "first".to_owned(),
    };
    let text = format!("text:{client}");
    expected.ask(&["SET", &text, "first"], Value::Simple("OK".into()));
    while !work.is_over() {
        for _ in 0..1 + dice.roll(60) {
            expected.add(&mut dice, client);
        }
        wire.send_raw(&expected.pipeline).await.unwrap();
        for (at, reply) in expected.replies.iter().enumerate() {
            assert_eq!(
                wire.reply().await.unwrap(),
                *reply,
                "client {client}, reply {at}"
            );
        }
        expected.pipeline.clear();
        expected.replies.clear();
        work.did_one();
    }
}

async fn check_pipelines(shard: Shard) {
    let proxy = shard.proxy_with(patient()).await;
    let work = Work::default();
    let mut sending = Vec::new();
    for number in 0..8 {
        let wire = client(&proxy).await;
        sending.push(tokio::spawn(send_pipelines(wire, number, work.clone())));
    }
    to_and_fro(&shard, &proxy, 8, async || work.goes_on(40).await).await;
    work.end();
    for client in sending {
        client.await.unwrap();
    }
}

#[tokio::test]
async fn pipelines_are_answered_in_order_and_with_the_right_values_through_switchovers() {
    check_pipelines(Shard::redis(1).await).await;
}

#[tokio::test]
async fn pipelines_to_kvrocks_are_answered_in_order_and_with_the_right_values_through_switchovers()
{
    if let Some(shard) = Shard::kvrocks(1).await {
        check_pipelines(shard).await;
    }
}

/// A pause that somebody else set keeps the hold going until the client has hung up.
#[tokio::test]
async fn a_write_is_not_executed_whose_client_hung_up_while_it_was_held() {
    let shard = Shard::redis(1).await;
    let proxy = shard.proxy_with(patient()).await;
    let clients = Clients::start(&shard, &proxy).await;
    stick_writes(&shard, 1500).await;
    let id = begin_switchover(&proxy, &shard.addr(1)).await;
    in_phase(&proxy, &id, "hold").await;
    let mut gone = client(&proxy).await;
    let mut pipeline = Vec::new();
    put_request(&mut pipeline, &["GET", "ghost"]);
    put_request(&mut pipeline, &["SET", "ghost", "1"]);
    gone.send_raw(&pipeline).await.unwrap();
    assert_eq!(
        gone.reply().await.unwrap(),
        Value::Null,
        "the read is not held"
    );
    drop(gone);
    let report = ended(&proxy, &id).await;
    assert_eq!(report.outcome, "switched", "{:?}", report.reasons);
    clients.go_on().await;
    clients.finish(&shard).await.assert_clean();
    let ghost = client(&proxy).await.run("GET ghost").await.unwrap();
    assert_eq!(ghost, Value::Null);
}
