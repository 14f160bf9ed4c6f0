#![allow(clippy::indexing_slicing, clippy::unwrap_used)]

use super::*;

const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 64,
    elements_max: 16,
    bulk_bytes_max: 1000,
};

fn scan(input: &[u8]) -> Result<Request, ProtocolError> {
    RequestScanner::default().scan(input, &LIMITS)
}

fn refused(input: &str, expected: ProtocolError) {
    assert_eq!(scan(input.as_bytes()), Err(expected), "{input:?}");
}

#[test]
fn a_request_ends_where_its_last_argument_ends() {
    let input = b"*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$5\r\nvalue\r\n*1\r\n";
    let mut scanner = RequestScanner::default();
    let found = scanner.scan(input, &LIMITS);
    assert_eq!(
        found,
        Ok(Request::Complete {
            len: input.len() - 4,
            form: Form::Multibulk
        })
    );
    assert_eq!(scanner.argc(), Some(3));
    let arguments: Vec<_> = (0..4).map(|i| scanner.arg(input, i)).collect();
    assert_eq!(
        arguments,
        [Some(&b"SET"[..]), Some(b"key"), Some(b"value"), None]
    );
    assert!(!scanner.mid_request());
}

#[test]
fn an_inline_request_ends_at_its_line_feed() {
    for (input, len) in [("PING\r\nPING", 6), ("PING\n", 5), ("\tGET \"a\r\n", 9)] {
        let expected = Ok(Request::Complete {
            len,
            form: Form::Inline,
        });
        assert_eq!(scan(input.as_bytes()), expected, "{input:?}");
    }
    assert_eq!(scan(b"PING\r"), Ok(Request::Incomplete));
}

#[test]
fn requests_for_nothing_are_blank() {
    let lines = [
        ("*0\r\n*1", 4),
        ("*-1\r\n", 5),
        ("*-77\r\n", 6),
        ("\r\nx", 2),
        ("\n", 1),
    ];
    for (input, len) in lines.into_iter().chain([(" \t \r\n", 5)]) {
        assert_eq!(
            scan(input.as_bytes()),
            Ok(Request::Blank { len }),
            "{input:?}"
        );
    }
}

#[test]
fn what_redis_refuses_is_refused() {
    for count in [
        "",
        "x",
        "+1",
        "01",
        "-0",
        "1x",
        " 1",
        "17",
        "99999999999999999999",
    ] {
        refused(&format!("*{count}\r\n"), ProtocolError::MultibulkLength);
    }
    for length in [
        "",
        "x",
        "-1",
        "+3",
        "03",
        "3 ",
        "1001",
        "99999999999999999999",
    ] {
        refused(&format!("*1\r\n${length}\r\n"), ProtocolError::BulkLength);
    }
    refused("*1\r\nGET\r\n", ProtocolError::ExpectedBulk { got: b'G' });
    refused("*1\r\n\r\n", ProtocolError::ExpectedBulk { got: b'\r' });
    refused("*1\rx", ProtocolError::MultibulkLength);
    refused("*1\r\n$1\rx", ProtocolError::BulkLength);
    refused("*1\r\n$1\r\nabc", ProtocolError::BulkEnd);
}

#[test]
fn lines_pass_at_the_limit_and_are_refused_one_past_it() {
    let fits = "x".repeat(LIMITS.inline_bytes_max);
    let complete = Request::Complete {
        len: fits.len() + 1,
        form: Form::Inline,
    };
    assert_eq!(scan(format!("{fits}\n").as_bytes()), Ok(complete));
    assert_eq!(scan(fits.as_bytes()), Ok(Request::Incomplete));
    refused(&format!("{fits}x"), ProtocolError::InlineTooBig);
    refused(&format!("{fits}x\n"), ProtocolError::InlineTooBig);

    let line = &fits[1..];
    assert_eq!(scan(format!("*{line}").as_bytes()), Ok(Request::Incomplete));
    refused(&format!("*{line}\r\n"), ProtocolError::MultibulkLength);
    refused(&format!("*{line}x"), ProtocolError::CountLineTooBig);
    assert_eq!(
        scan(format!("*1\r\n${line}").as_bytes()),
        Ok(Request::Incomplete)
    );
    refused(&format!("*1\r\n${line}\r\n"), ProtocolError::BulkLength);
    refused(&format!("*1\r\n${line}x"), ProtocolError::BulkLineTooBig);
}

#[test]
fn counts_and_lengths_pass_at_the_limit() {
    assert_eq!(scan(b"*16\r\n"), Ok(Request::Incomplete));
    assert_eq!(scan(b"*1\r\n$1000\r\n"), Ok(Request::Incomplete));
}

#[test]
fn a_large_argument_can_be_streamed_away() {
    let mut scanner = RequestScanner::default();
    let head = b"*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1000\r\nabc";
    assert_eq!(scanner.scan(head, &LIMITS), Ok(Request::Incomplete));
    assert!(scanner.mid_request());
    assert_eq!(scanner.argc(), Some(3));
    assert_eq!(scanner.arg(head, 1), Some(&b"k"[..]));
    assert_eq!(scanner.arg(head, 2), None);
    assert_eq!(scanner.needed(), 999);
    assert!(scanner.pos() > head.len());

    scanner.consumed(head.len());
    let body = [b'x'; 997];
    assert_eq!(scanner.scan(&body, &LIMITS), Ok(Request::Incomplete));
    assert_eq!((scanner.pos(), scanner.needed()), (997, 2));
    assert_eq!(scanner.arg(&body, 1), None);
    scanner.consumed(997);
    let complete = Request::Complete {
        len: 2,
        form: Form::Multibulk,
    };
    assert_eq!(scanner.scan(b"\r\n*1", &LIMITS), Ok(complete));
}

#[test]
fn only_the_first_arguments_are_remembered() {
    let input = format!("*9\r\n{}", "$1\r\nx\r\n".repeat(9));
    let mut scanner = RequestScanner::default();
    let len = input.len();
    let complete = Request::Complete {
        len,
        form: Form::Multibulk,
    };
    assert_eq!(scanner.scan(input.as_bytes(), &LIMITS), Ok(complete));
    assert_eq!(
        scanner.arg(input.as_bytes(), ARGS_KEPT - 1),
        Some(&b"x"[..])
    );
    assert_eq!(scanner.arg(input.as_bytes(), ARGS_KEPT), None);
}
