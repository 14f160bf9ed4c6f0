//! What finding a boundary costs, per request and per reply, against redis-protocol.

use std::hint::black_box;

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use pointsman::resp::scan::{
    Reply, ReplyScanner, Request, RequestLimits, RequestScanner, args, write_request,
};
use redis_protocol::resp2::decode::decode_range;

const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 65_536,
    elements_max: 1_048_576,
    bulk_bytes_max: 536_870_912,
};

/// Frames in one buffer: what one read brings from a pipelining client.
const PIPELINE: usize = 1000;

/// One read of the 16 KiB that a socket gives at most.
const READ_BYTES: usize = 16 * 1024;

fn requests(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("request");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    let kib = "v".repeat(1024);
    for (name, value) in [("SET 3 B", "abc"), ("SET 1 KiB", kib.as_str())] {
        let mut frame = BytesMut::new();
        write_request(&mut frame, &["SET", "key:000000000001", value]);
        let input = frame.repeat(PIPELINE);
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(scan_requests(black_box(&input)), PIPELINE));
        });
        group.bench_function(format!("{name}, redis-protocol"), |bencher| {
            bencher.iter(|| assert_eq!(decode_all(black_box(&input)), PIPELINE));
        });
        group.bench_function(format!("{name}, walk arguments"), |bencher| {
            bencher.iter(|| {
                for _ in 0..PIPELINE {
                    black_box(args(black_box(&frame)).count());
                }
            });
        });
    }
    let inline = b"SET key:000000000001 abc\r\n".repeat(PIPELINE);
    group.bench_function("inline", |bencher| {
        bencher.iter(|| assert_eq!(scan_requests(black_box(&inline)), PIPELINE));
    });
    group.finish();
}

fn replies(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("reply");
    group.throughput(Throughput::Elements(PIPELINE as u64));
    let bulk = format!("$100\r\n{}\r\n", "v".repeat(100));
    let ten = format!("*10\r\n{}", "$8\r\n12345678\r\n".repeat(10));
    for (name, frame) in [("+OK", "+OK\r\n"), ("$100", &bulk), ("*10 of $8", &ten)] {
        let input = frame.repeat(PIPELINE).into_bytes();
        group.bench_function(name, |bencher| {
            bencher.iter(|| assert_eq!(scan_replies(black_box(&input)), PIPELINE));
        });
        group.bench_function(format!("{name}, redis-protocol"), |bencher| {
            bencher.iter(|| assert_eq!(decode_all(black_box(&input)), PIPELINE));
        });
    }
    group.finish();
}

/// Frames that arrive in many reads. The scanner's cost must grow with the bytes, not with the
/// bytes times the reads.
fn arriving_in_reads(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("in 16 KiB reads");
    group.sample_size(10);
    for elements in [100_000, 400_000] {
        let input = format!("*{elements}\r\n{}", "$8\r\n12345678\r\n".repeat(elements));
        group.throughput(Throughput::Bytes(input.len() as u64));
        group.bench_function(format!("*{elements} of $8"), |bencher| {
            bencher.iter(|| assert!(scan_in_reads(black_box(input.as_bytes()))));
        });
    }
    let line = format!("+{}\r\n", "x".repeat(4 * 1024 * 1024));
    group.throughput(Throughput::Bytes(line.len() as u64));
    group.bench_function("+4 MiB", |bencher| {
        bencher.iter(|| assert!(scan_in_reads(black_box(line.as_bytes()))));
    });
    group.finish();
}

fn scan_requests(input: &[u8]) -> usize {
    let mut scanner = RequestScanner::default();
    let mut rest = input;
    let mut count = 0;
    while let Ok(Request::Complete { len, .. }) = scanner.scan(rest, &LIMITS) {
        rest = &rest[len..];
        count += 1;
    }
    count
}

fn scan_replies(input: &[u8]) -> usize {
    let mut scanner = ReplyScanner::default();
    let mut rest = input;
    let mut count = 0;
    while let Ok(Reply::Complete { len, .. }) = scanner.scan(rest) {
        rest = &rest[len..];
        count += 1;
    }
    count
}

fn decode_all(input: &[u8]) -> usize {
    let mut rest = input;
    let mut count = 0;
    while let Ok(Some((_, len))) = decode_range(rest) {
        rest = &rest[len..];
        count += 1;
    }
    count
}

fn scan_in_reads(input: &[u8]) -> bool {
    let mut scanner = ReplyScanner::default();
    let (mut start, mut end) = (0, 0);
    while end < input.len() {
        end = input.len().min(end + READ_BYTES);
        match scanner.scan(&input[start..end]) {
            Ok(Reply::Partial { len }) => start += len,
            Ok(Reply::Complete { len, .. }) => return start + len == input.len(),
            Err(_) => return false,
        }
    }
    false
}

criterion_group!(benches, requests, replies, arriving_in_reads);
criterion_main!(benches);
