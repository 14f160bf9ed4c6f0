//! The scanners against redis-protocol, against themselves at every split, and against Redis.
//!
//! **Claim:** a frame ends where redis-protocol says that it ends; how the bytes are cut into reads
//! changes nothing; and what is refused is refused with the text that Redis uses.

mod protocol {
    pub mod frames;
    pub mod reading;
    pub mod redis;
    pub mod tokens;
}

use pointsman::resp::scan::{
    NESTING_MAX, ProtocolError, Reply, ReplyError, ReplyKind, ReplyScanner, Request,
    RequestScanner, args, split_inline,
};
use proptest::prelude::*;
use redis_protocol::resp2::types::Resp2Frame;
use redis_protocol::{resp2, resp3};

use protocol::frames::{hostile, inline_line, multibulk, pipeline, resp2_value, resp3_reply};
use protocol::reading::{Found, LIMITS, Reading, read_replies, read_requests};
use protocol::redis::Redis;

/// Reads `input` in the given pieces, with and without dropping what was scanned, and expects what
/// reading it at once gave.
fn check_cuts(input: &[u8], read: fn(&[&[u8]], Reading) -> Found, cuts: &[usize]) {
    let whole = read(&[input], Reading::Keep);
    let mut pieces = Vec::new();
    let mut start = 0;
    for &cut in cuts {
        pieces.push(&input[start..cut]);
        start = cut;
    }
    pieces.push(&input[start..]);
    for reading in [Reading::Keep, Reading::Stream, Reading::StreamHalf] {
        assert_eq!(
            read(&pieces, reading),
            whole,
            "{reading:?}, cuts {cuts:?} of {input:?}"
        );
    }
}

/// `check_cuts` at every single cut, and byte by byte.
fn check_every_split(input: &[u8], read: fn(&[&[u8]], Reading) -> Found) {
    for cut in 0..=input.len() {
        check_cuts(input, read, &[cut]);
    }
    let all: Vec<usize> = (0..input.len()).collect();
    check_cuts(input, read, &all);
}

/// Sorted places to cut an input of `len` bytes.
fn cuts(len: usize, at: &[prop::sample::Index]) -> Vec<usize> {
    let mut cuts: Vec<usize> = at.iter().map(|index| index.index(len + 1)).collect();
    cuts.sort_unstable();
    cuts
}

fn resp2_len(input: &[u8]) -> Option<usize> {
    resp2::decode::decode_range(input)
        .unwrap()
        .map(|(_, len)| len)
}

fn resp3_len(input: &[u8]) -> Option<usize> {
    resp3::decode::complete::decode_range(input)
        .unwrap()
        .map(|(_, len)| len)
}

proptest! {
    // A failure prints the shrunk input, which belongs into a test of its own rather than a file.
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn requests_end_where_redis_protocol_says(requests in pipeline(multibulk())) {
        let input = requests.concat();
        let found = read_requests(&[&input], Reading::Keep);
        prop_assert_eq!(&found.frames, &requests);
        prop_assert_eq!((found.error, found.rest), (None, Vec::new()));
        let mut rest = &input[..];
        for request in &requests {
            prop_assert_eq!(resp2_len(rest), Some(request.len()));
            rest = &rest[request.len()..];
        }
    }

    #[test]
    fn arguments_are_those_that_redis_protocol_reads(request in multibulk()) {
        let (frame, _) = resp2::decode::decode(&request).unwrap().unwrap();
        let resp2::types::OwnedFrame::Array(elements) = frame else {
            return Err(TestCaseError::fail("not an array"));
        };
        let expected: Vec<&[u8]> = elements.iter().filter_map(Resp2Frame::as_bytes).collect();
        prop_assert_eq!(args(&request).collect::<Vec<_>>(), expected.clone());

        let mut scanner = RequestScanner::default();
        scanner.scan(&request, &LIMITS).unwrap();
        prop_assert_eq!(scanner.argc(), Some(expected.len() as u32));
        for (i, argument) in expected.iter().take(8).enumerate() {
            prop_assert_eq!(scanner.arg(&request, i), Some(*argument));
        }
    }

    #[test]
    fn requests_do_not_depend_on_how_they_arrive(
        requests in pipeline(prop_oneof![multibulk(), inline_line()]),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let input = requests.concat();
        check_cuts(&input, read_requests, &cuts(input.len(), &at));
    }

    #[test]
    fn an_argument_is_read_right_or_not_at_all_while_its_request_is_streamed(
        request in multibulk(),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
        part in 1_usize..4,
    ) {
        let expected: Vec<&[u8]> = args(&request).collect();
        let mut scanner = RequestScanner::default();
        let mut dropped = 0;
        for end in cuts(request.len(), &at) {
            let buffer = &request[dropped..end];
            let found = scanner.scan(buffer, &LIMITS).unwrap();
            for (i, expected) in expected.iter().enumerate() {
                let argument = scanner.arg(buffer, i);
                prop_assert!(argument.is_none_or(|argument| argument == *expected));
            }
            if found != Request::Incomplete {
                break;
            }
            let len = scanner.pos().min(buffer.len()) / part;
            scanner.consumed(len);
            dropped += len;
        }
    }

    #[test]
    fn resp2_replies_end_where_redis_protocol_says(replies in pipeline(resp2_value())) {
        let input = replies.concat();
        let found = read_replies(&[&input], Reading::Keep);
        prop_assert_eq!(&found.frames, &replies);
        prop_assert_eq!((found.error, found.rest), (None, Vec::new()));
        for reply in &replies {
            prop_assert_eq!(resp2_len(reply), Some(reply.len()));
        }
    }

    #[test]
    fn resp3_replies_end_where_redis_protocol_says(replies in pipeline(resp3_reply())) {
        let input = replies.concat();
        let found = read_replies(&[&input], Reading::Keep);
        prop_assert_eq!(&found.frames, &replies);
        for reply in &replies {
            prop_assert_eq!(resp3_len(reply), Some(reply.len()));
        }
    }

    #[test]
    fn replies_do_not_depend_on_how_they_arrive(
        replies in pipeline(prop_oneof![resp2_value(), resp3_reply()]),
        at in prop::collection::vec(any::<prop::sample::Index>(), 0..8),
    ) {
        let input = replies.concat();
        check_cuts(&input, read_replies, &cuts(input.len(), &at));
    }

    #[test]
    fn hostile_bytes_are_judged_the_same_at_every_split(input in hostile()) {
        check_every_split(&input, read_requests);
        check_every_split(&input, read_replies);
        args(&input).for_each(drop);
        drop(split_inline(&input));
    }

    #[test]
    fn a_frame_with_one_wrong_byte_is_judged_the_same_at_every_split(
        frame in prop_oneof![multibulk(), resp2_value(), resp3_reply()],
        at in any::<prop::sample::Index>(),
        byte in prop_oneof![any::<u8>(), prop::sample::select(&b"*$\r\n-+0123456789>|%"[..])],
    ) {
        let mut input = frame;
        let at = at.index(input.len());
        input[at] = byte;
        input.truncate(300);
        check_every_split(&input, read_requests);
        check_every_split(&input, read_replies);
    }

    #[test]
    fn no_prefix_of_a_frame_is_complete(request in multibulk(), reply in resp3_reply()) {
        for len in 0..request.len() {
            prop_assert!(read_requests(&[&request[..len]], Reading::Keep).frames.is_empty());
        }
        for len in 0..reply.len() {
            prop_assert!(read_replies(&[&reply[..len]], Reading::Keep).frames.is_empty());
        }
    }
}

#[test]
fn every_split_of_a_pipeline_gives_the_same_requests() {
    let input = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$12\r\nhello\r\nworld\r\n*0\r\n\r\nPING\r\n*-1\r\n\
                  *1\r\n$4\r\nPING\r\nSET a \"b c\"\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n*1\r\n$4\r\nPI";
    let found = read_requests(&[input], Reading::Keep);
    assert_eq!((found.frames.len(), found.rest.len()), (8, 10));
    check_every_split(input, read_requests);
}

#[test]
fn every_split_of_a_refused_request_gives_the_same_refusal() {
    let inputs: &[&[u8]] = &[
        b"*2\r\n$10\r\n0123456789\r\nx\r\n",
        b"*2\r\n$3\r\nGET\r\n$1\r\nabc",
        b"*2\r\n$3\r\nGET\r\n$1\rx",
        b"*1\rx",
        b"PING\r\n*1000000000000\r\n",
    ];
    for input in inputs {
        let found = read_requests(&[input], Reading::Keep);
        assert!(found.error.is_some(), "{}", input.escape_ascii());
        check_every_split(input, read_requests);
    }
}

#[test]
fn every_split_of_a_stream_gives_the_same_replies() {
    let input = b"+OK\r\n$5\r\na\r\nb\r\r\n*2\r\n*1\r\n:1\r\n$-1\r\n>2\r\n+message\r\n$0\r\n\r\n\
                  |1\r\n+ttl\r\n:5\r\n%1\r\n+k\r\n~1\r\n#t\r\n!5\r\nERR x\r\n\
                  -ERR a\nb\r\n_\r\n*0\r\n$3\r\nab";
    let found = read_replies(&[input], Reading::Keep);
    assert_eq!((found.frames.len(), found.rest), (9, b"$3\r\nab".to_vec()));
    let kinds = [
        ReplyKind::Ordinary,
        ReplyKind::Ordinary,
        ReplyKind::Ordinary,
        ReplyKind::Push,
        ReplyKind::Ordinary,
        ReplyKind::Error,
        ReplyKind::Error,
        ReplyKind::Ordinary,
        ReplyKind::Ordinary,
    ];
    assert_eq!(found.kinds, kinds.map(|kind| format!("{kind:?}")));
    check_every_split(input, read_replies);
}

#[test]
fn frames_of_many_megabytes_pass_in_16_kib_reads() {
    let body = "x".repeat(16 * 1024 * 1024);
    let wide = format!("*200000\r\n{}", "$8\r\n12345678\r\n".repeat(200_000));
    let requests = [
        format!(
            "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{body}\r\n",
            body.len()
        ),
        wide.clone(),
    ];
    for request in requests {
        let pieces: Vec<&[u8]> = request.as_bytes().chunks(16 * 1024).collect();
        let found = read_requests(&pieces, Reading::Stream);
        assert_eq!(found.frames.len(), 1);
        assert!(found.frames[0] == request.as_bytes());
    }
    for reply in [
        format!("${}\r\n{body}\r\n", body.len()),
        wide,
        format!("+{body}\r\n"),
    ] {
        let pieces: Vec<&[u8]> = reply.as_bytes().chunks(16 * 1024).collect();
        let found = read_replies(&pieces, Reading::Stream);
        assert_eq!(found.frames.len(), 1);
        assert!(found.frames[0] == reply.as_bytes());
    }
}

#[test]
fn a_body_of_a_reply_is_never_kept_back() {
    let mut scanner = ReplyScanner::default();
    let header = format!("${}\r\n", u64::MAX / 4);
    assert_eq!(
        scanner.scan(header.as_bytes()),
        Ok(Reply::Partial { len: header.len() })
    );
    let read = [b'x'; 4096];
    for _ in 0..100 {
        assert_eq!(scanner.scan(&read), Ok(Reply::Partial { len: read.len() }));
    }
}

#[test]
fn requests_pass_at_each_limit_and_are_refused_one_past_it() {
    let scan = |input: String| RequestScanner::default().scan(input.as_bytes(), &LIMITS);
    let (count, length) = (LIMITS.elements_max, LIMITS.bulk_bytes_max);
    assert_eq!(scan(format!("*{count}\r\n")), Ok(Request::Incomplete));
    assert_eq!(
        scan(format!("*{}\r\n", count + 1)),
        Err(ProtocolError::MultibulkLength)
    );
    assert_eq!(
        scan(format!("*1\r\n${length}\r\n")),
        Ok(Request::Incomplete)
    );
    assert_eq!(
        scan(format!("*1\r\n${}\r\n", length + 1)),
        Err(ProtocolError::BulkLength)
    );
    let line = "x".repeat(LIMITS.inline_bytes_max);
    assert_eq!(scan(line.clone()), Ok(Request::Incomplete));
    assert!(matches!(
        scan(format!("{line}\r\n")),
        Err(ProtocolError::InlineTooBig)
    ));
    assert!(matches!(
        scan(format!("{line}\n")),
        Ok(Request::Complete { .. })
    ));
    assert_eq!(scan(format!("{line}x")), Err(ProtocolError::InlineTooBig));
}

#[test]
fn nesting_that_would_abort_a_recursive_decoder_is_refused() {
    let nested = |levels: usize| format!("{}+x\r\n", "*1\r\n".repeat(levels)).into_bytes();
    let fits = read_replies(&[&nested(NESTING_MAX)], Reading::Keep);
    assert_eq!((fits.frames.len(), fits.error), (1, None));
    for levels in [NESTING_MAX + 1, 100_000] {
        let refused = read_replies(&[&nested(levels)], Reading::Keep);
        assert_eq!(refused.error, Some(ReplyError::Nesting.to_string()));
    }
}

/// What Redis 7.0 refuses, and the bytes that bring it to say so. Lines that are too long end one
/// byte past the limit, so that the server has nothing left to read when it closes.
fn refused_requests() -> Vec<Vec<u8>> {
    let long = "1".repeat(64 * 1024);
    let mut inputs: Vec<Vec<u8>> = [
        "*x\r\n",
        "*\r\n",
        "*+1\r\n",
        "*01\r\n",
        "*-0\r\n",
        "* 1\r\n",
        "*2147483648\r\n",
        "*99999999999999999999\r\n",
        "*1\r\n$x\r\n",
        "*1\r\n$\r\n",
        "*1\r\n$-1\r\n",
        "*1\r\n$+3\r\n",
        "*1\r\n$03\r\n",
        "*1\r\n$536870913\r\n",
        "*1\r\nGET\r\n",
        "*1\r\n\r\n",
        "*1\r\n\n\r\n",
        "*2\r\n$4\r\nECHO\r\n:1\r\n",
        "SET \"a\r\n",
        "SET 'a\r\n",
        "SET \"a\"b\r\n",
    ]
    .iter()
    .map(|input| input.as_bytes().to_vec())
    .collect();
    inputs.push(b"*1\r\n\xff\r\n".to_vec());
    inputs.push(format!("*{long}").into_bytes());
    inputs.push(format!("*1\r\n${long}").into_bytes());
    inputs.push(format!("x{long}").into_bytes());
    inputs
}

#[test]
fn refusals_have_the_words_of_redis() {
    let Some(redis) = Redis::start() else { return };
    // Our own limit is lower than Redis'; here the texts are compared, so the limits must agree.
    for input in refused_requests() {
        let mut limits = LIMITS;
        limits.elements_max = i32::MAX as u64;
        let mut scanner = RequestScanner::default();
        let refusal = match scanner.scan(&input, &limits) {
            Ok(Request::Complete { len, .. }) => split_inline(&input[..len]).unwrap_err(),
            Ok(other) => panic!("{other:?} for {:?}", input.escape_ascii().to_string()),
            Err(refusal) => refusal,
        };
        let said = redis.until_closed(&input);
        assert_eq!(
            refusal.reply().escape_ascii().to_string(),
            said.escape_ascii().to_string(),
            "{}",
            input[..input.len().min(80)].escape_ascii()
        );
    }
}

#[test]
fn what_is_blank_gets_no_reply_from_redis() {
    let Some(redis) = Redis::start() else { return };
    let blank = b"*0\r\n*-1\r\n*-77\r\n\r\n\n \t \r\n";
    let found = read_requests(&[blank], Reading::Keep);
    assert!(
        found.kinds.iter().all(|kind| kind == "Blank"),
        "{:?}",
        found.kinds
    );
    let mut input = blank.to_vec();
    input.extend_from_slice(b"*1\r\n$4\r\nPING\r\nQUIT\r\n");
    assert_eq!(redis.until_closed(&input), b"+PONG\r\n+OK\r\n");
}

#[test]
fn inline_requests_are_split_as_redis_splits_them() {
    let Some(redis) = Redis::start() else { return };
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let tokens = prop::sample::select(vec![
        " ", "\t", "\"", "'", "\\", "\\x", "4", "f", "g", "\\n", "\\r", "\\t", "\\b", "\\a", "a",
        "\x0b", "\x0c", "\r", "\\\"", "\\'", "\u{e9}",
    ]);
    let lines = prop::collection::vec(tokens, 0..12);
    runner
        .run(&lines, |tokens| {
            // The script gives its arguments back, so the reply shows how the line was split.
            let line = format!("EVAL \"return ARGV\" 0 {}\r\n", tokens.concat());
            let expected = match split_inline(line.as_bytes()) {
                Ok(arguments) => {
                    let mut reply = bytes::BytesMut::new();
                    pointsman::resp::scan::write_request(&mut reply, &arguments[3..]);
                    reply.extend_from_slice(b"+OK\r\n");
                    reply.to_vec()
                }
                Err(refusal) => refusal.reply(),
            };
            let said = redis.until_closed(format!("{line}QUIT\r\n").as_bytes());
            prop_assert_eq!(
                said.escape_ascii().to_string(),
                expected.escape_ascii().to_string(),
                "{:?}",
                line
            );
            Ok(())
        })
        .unwrap();
}
