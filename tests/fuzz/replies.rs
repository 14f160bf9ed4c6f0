//! What nodes send: `ReplyScanner`.

use pointsman::resp::scan::{Reply, ReplyError, ReplyKind, ReplyScanner};

use crate::counting::asked_by;
use crate::runner::fuzz;

/// Nesting costs a level of eight bytes for each header of four; a growing vector asks for twice
/// that, and once more for what it was before.
const BYTES_FOR_EACH: usize = 16;

/// What must not depend on how the input arrived.
#[derive(Debug, Default, PartialEq)]
struct Read {
    replies: Vec<(ReplyKind, Vec<u8>)>,
    error: Option<ReplyError>,
    rest: Vec<u8>,
}

fn read(pieces: &[&[u8]], shallow: bool) -> Read {
    let mut scanner = if shallow {
        ReplyScanner::shallow()
    } else {
        ReplyScanner::default()
    };
    let mut read = Read::default();
    let (mut buffer, mut reply) = (Vec::new(), Vec::new());
    let (mut came, mut asked) = (0, 0);
    for piece in pieces {
        buffer.extend_from_slice(piece);
        came += piece.len();
        loop {
            let (scanned, more) = asked_by(|| scanner.scan(&buffer));
            asked += more;
            assert!(asked <= BYTES_FOR_EACH * came, "{asked} bytes for {came}");
            match scanned {
                Ok(Reply::Complete { len, kind }) => {
                    assert!(
                        0 < len && len <= buffer.len(),
                        "{len} of {} bytes",
                        buffer.len()
                    );
                    reply.extend(buffer.drain(..len));
                    check_whole(&reply, kind, shallow);
                    read.replies.push((kind, std::mem::take(&mut reply)));
                }
                Ok(Reply::Partial { len }) => {
                    assert!(len <= buffer.len(), "{len} of {} bytes", buffer.len());
                    reply.extend(buffer.drain(..len));
                    break;
                }
                Err(error) => {
                    read.error = Some(error);
                    return read;
                }
            }
        }
    }
    read.rest = [reply, buffer].concat();
    read
}

/// A whole reply is one on its own, and of the same length.
fn check_whole(reply: &[u8], kind: ReplyKind, shallow: bool) {
    let mut scanner = if shallow {
        ReplyScanner::shallow()
    } else {
        ReplyScanner::default()
    };
    let len = reply.len();
    assert_eq!(scanner.scan(reply), Ok(Reply::Complete { len, kind }));
}

#[test]
fn replies_are_the_same_at_every_split_and_announced_lengths_cost_nothing() {
    fuzz("replies", |input| {
        for shallow in [false, true] {
            let whole = read(&[input], shallow);
            for cut in 1..input.len() {
                let (front, back) = input.split_at(cut);
                assert_eq!(read(&[front, back], shallow), whole, "cut at {cut}");
            }
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(read(&bytes, shallow), whole, "byte by byte");
        }
    });
}
