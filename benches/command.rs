//! What it costs to judge a command: once per request, on the data path.

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::resp::command::{Verdict, classify};

fn judge(words: &[&[u8]]) -> Verdict {
    let words = black_box(words);
    classify(
        words.first().copied().unwrap_or_default(),
        |at| words.get(at).copied(),
        words.len(),
    )
}

fn command(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("classify");
    let mut bench = |name: &str, words: &[&[u8]]| {
        group.bench_function(name, |bencher| bencher.iter(|| judge(words)));
    };
    bench("get, lower case", &[b"get", b"key"]);
    bench("SET", &[b"SET", b"key", b"value"]);
    bench("zrangebyscore", &[b"zrangebyscore", b"key", b"0", b"1"]);
    bench("GEORADIUSBYMEMBER_RO", &[b"GEORADIUSBYMEMBER_RO", b"key"]);
    bench("unknown", &[b"nosuchcommand", b"key"]);
    bench("CLIENT ID", &[b"CLIENT", b"ID"]);
    bench(
        "CLUSTER SYNCSLOTS, the last of 36",
        &[b"CLUSTER", b"SYNCSLOTS"],
    );
    let group_read: [&[u8]; 8] = [
        b"XREADGROUP",
        b"GROUP",
        b"g",
        b"c",
        b"COUNT",
        b"10",
        b"STREAMS",
        b"key",
    ];
    bench("XREADGROUP without BLOCK", &group_read);
    // Names as they come in practice: the branches are not always predicted.
    let mixed: Vec<[&[u8]; 2]> = [
        "get",
        "SET",
        "hget",
        "HSET",
        "expire",
        "INCR",
        "lpush",
        "zadd",
        "DEL",
        "mget",
        "EXISTS",
        "sadd",
        "ttl",
        "zrangebyscore",
        "setex",
        "HGETALL",
    ]
    .iter()
    .map(|name| [name.as_bytes(), b"key".as_slice()])
    .collect();
    group.bench_function("a mix of 16 commands", |bencher| {
        bencher.iter(|| mixed.iter().filter(|words| judge(*words).writes).count());
    });
    group.finish();
}

criterion_group!(benches, command);
criterion_main!(benches);
