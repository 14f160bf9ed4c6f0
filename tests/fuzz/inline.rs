//! What people type: lines, rewritten to the form that lanes carry.

use pointsman::resp::scan::{
    Form, ProtocolError, Request, RequestLimits, RequestScanner, args, reframe, split_inline,
};

use crate::counting::asked_by;
use crate::runner::fuzz;

/// No line of so many bytes has more words, or a longer one, than a request may have.
const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 60,
    elements_max: 60,
    bulk_bytes_max: 100,
};

/// The shortest word and its blank are two bytes, and cost a vector of one byte, an entry in a
/// growing list and seven bytes in a growing buffer.
const BYTES_FOR_EACH: usize = 128;
const BYTES_AT_LEAST: usize = 512;

type Served = (Vec<Vec<Vec<u8>>>, Option<ProtocolError>);

/// Reads as a session does: a line in front is rewritten, with what is behind it, and read again.
fn serve(pieces: &[&[u8]]) -> Served {
    let mut scanner = RequestScanner::default();
    let mut input = bytes::BytesMut::new();
    let mut requests = Vec::new();
    for piece in pieces {
        input.extend_from_slice(piece);
        loop {
            match scanner.scan(&input, &LIMITS) {
                Ok(Request::Incomplete) => break,
                Ok(Request::Blank { len }) => drop(input.split_to(len)),
                Ok(Request::Complete {
                    form: Form::Inline, ..
                }) => match rewritten(&input) {
                    Ok(framed) => input = framed,
                    Err(error) => return (requests, Some(error)),
                },
                Ok(Request::Complete { len, .. }) => {
                    let request = input.split_to(len);
                    requests.push(args(&request).map(<[u8]>::to_vec).collect());
                }
                Err(error) => return (requests, Some(error)),
            }
        }
    }
    (requests, None)
}

fn rewritten(input: &[u8]) -> Result<bytes::BytesMut, ProtocolError> {
    let (framed, asked) = asked_by(|| reframe(input, &LIMITS));
    assert!(
        asked <= BYTES_FOR_EACH * input.len() + BYTES_AT_LEAST,
        "{asked} bytes for {}",
        input.len()
    );
    if let Ok(framed) = &framed {
        assert_eq!(
            framed.first(),
            Some(&b'*'),
            "the line in front is none any more"
        );
        assert_eq!(
            reframe(framed, &LIMITS).as_ref(),
            Ok(framed),
            "twice is once"
        );
    }
    framed
}

/// The same without rewriting anything.
fn plainly(input: &[u8]) -> Served {
    let mut scanner = RequestScanner::default();
    let mut requests = Vec::new();
    let mut rest = input;
    loop {
        let (len, form) = match scanner.scan(rest, &LIMITS) {
            Ok(Request::Incomplete) => return (requests, None),
            Ok(Request::Complete { len, form }) => (len, Some(form)),
            Ok(Request::Blank { len }) => (len, None),
            Err(error) => return (requests, Some(error)),
        };
        let (request, behind) = rest.split_at(len);
        match form {
            Some(Form::Multibulk) => requests.push(args(request).map(<[u8]>::to_vec).collect()),
            Some(Form::Inline) => match split_inline(request) {
                Ok(words) => requests.push(words),
                Err(error) => return (requests, Some(error)),
            },
            None => {}
        }
        rest = behind;
    }
}

#[test]
fn lines_ask_for_the_same_at_every_split_rewritten_or_not() {
    fuzz("inline", |input| {
        let whole = plainly(input);
        assert_eq!(serve(&[input]), whole, "rewritten");
        for cut in 1..input.len() {
            let (front, back) = input.split_at(cut);
            assert_eq!(serve(&[front, back]), whole, "cut at {cut}");
        }
        let bytes: Vec<&[u8]> = input.chunks(1).collect();
        assert_eq!(serve(&bytes), whole, "byte by byte");
    });
}
