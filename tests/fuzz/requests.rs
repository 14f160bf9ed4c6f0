//! What clients send: `RequestScanner`.

use pointsman::resp::scan::{
    ARGS_KEPT, Form, ProtocolError, Request, RequestLimits, RequestScanner, args, split_inline,
};

use crate::counting::asked_by;
use crate::runner::fuzz;

/// Small, so that inputs reach them.
const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 60,
    elements_max: 16,
    bulk_bytes_max: 100,
};

/// What must not depend on how the input arrived.
#[derive(Debug, Default, PartialEq)]
struct Read {
    found: Vec<(Request, Vec<u8>)>,
    error: Option<ProtocolError>,
    rest: usize,
}

fn read(pieces: &[&[u8]]) -> Read {
    let mut scanner = RequestScanner::default();
    let mut read = Read::default();
    let mut buffer = Vec::new();
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            let (scanned, asked) = asked_by(|| scanner.scan(&buffer, &LIMITS));
            assert_eq!(asked, 0, "a scan allocates");
            check_reach(&scanner, &buffer);
            match scanned {
                Ok(Request::Incomplete) => break,
                Ok(found @ (Request::Complete { len, .. } | Request::Blank { len })) => {
                    assert!(
                        0 < len && len <= buffer.len(),
                        "{len} of {} bytes",
                        buffer.len()
                    );
                    let request: Vec<u8> = buffer.drain(..len).collect();
                    check_whole(&request, found);
                    read.found.push((found, request));
                }
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            }
        }
    }
    read.rest = buffer.len();
    read
}

/// Nothing that is said lies past a limit or past what is known.
fn check_reach(scanner: &RequestScanner, buffer: &[u8]) {
    assert!(
        scanner
            .argc()
            .is_none_or(|argc| u64::from(argc) <= LIMITS.elements_max)
    );
    assert!(scanner.needed() <= LIMITS.bulk_bytes_max + 2);
    let past_body = LIMITS.bulk_bytes_max as usize + 2;
    assert!(
        scanner.pos() <= buffer.len() + past_body,
        "{} of {}",
        scanner.pos(),
        buffer.len()
    );
    for at in 0..=ARGS_KEPT {
        let len = scanner.arg(buffer, at).map_or(0, <[u8]>::len);
        assert!(len as u64 <= LIMITS.bulk_bytes_max);
    }
}

/// A whole request is one on its own, and within the limits.
fn check_whole(request: &[u8], found: Request) {
    assert_eq!(RequestScanner::default().scan(request, &LIMITS), Ok(found));
    match found {
        Request::Complete {
            form: Form::Multibulk,
            ..
        } => {
            let lens: Vec<usize> = args(request).map(<[u8]>::len).collect();
            assert!(!lens.is_empty() && lens.len() as u64 <= LIMITS.elements_max);
            assert!(lens.iter().all(|&len| len as u64 <= LIMITS.bulk_bytes_max));
        }
        Request::Complete {
            form: Form::Inline,
            len,
        } => {
            assert!(len <= LIMITS.inline_bytes_max + 1);
            drop(split_inline(request));
        }
        Request::Blank { .. } | Request::Incomplete => {}
    }
}

#[test]
fn requests_are_the_same_at_every_split_and_keep_to_the_limits() {
    fuzz("requests", |input| {
        let whole = read(&[input]);
        for cut in 1..input.len() {
            let (front, back) = input.split_at(cut);
            assert_eq!(read(&[front, back]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(read(&bytes), whole, "byte by byte");
    });
}
