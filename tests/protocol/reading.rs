//! Reads an input piece by piece, as a session or a lane does.

use pointsman::resp::scan::{Reply, ReplyScanner, Request, RequestLimits, RequestScanner};

/// The limits of the default configuration.
pub const LIMITS: RequestLimits = RequestLimits {
    inline_bytes_max: 65_536,
    elements_max: 1_048_576,
    bulk_bytes_max: 536_870_912,
};

/// What is done with scanned bytes of a frame that is not complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// Requests stay in the buffer until they are complete.
    Keep,
    /// What was scanned is dropped at once.
    Stream,
    /// About half of what could be dropped is dropped; of replies all, as their scanner wants.
    StreamHalf,
}

/// Everything that must not depend on how the input arrived.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Found {
    pub frames: Vec<Vec<u8>>,
    pub kinds: Vec<String>,
    pub error: Option<String>,
    /// Bytes of the frame that did not end.
    pub rest: Vec<u8>,
}

impl Found {
    fn frame(&mut self, dropped: &mut Vec<u8>, buffer: &mut Vec<u8>, len: usize, kind: String) {
        let mut frame = std::mem::take(dropped);
        frame.extend(buffer.drain(..len));
        self.frames.push(frame);
        self.kinds.push(kind);
    }
}

pub fn read_requests(pieces: &[&[u8]], reading: Reading) -> Found {
    let mut scanner = RequestScanner::default();
    let mut found = Found::default();
    let (mut buffer, mut dropped) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match scanner.scan(&buffer, &LIMITS) {
                Ok(Request::Complete { len, form }) => {
                    found.frame(&mut dropped, &mut buffer, len, format!("{form:?}"));
                }
                Ok(Request::Blank { len }) => {
                    found.frame(&mut dropped, &mut buffer, len, "Blank".to_owned());
                }
                Ok(Request::Incomplete) => break,
                Err(error) => {
                    found.error = Some(error.to_string());
                    return found;
                }
            }
        }
        let scanned = scanner.pos().min(buffer.len());
        let len = match reading {
            _ if !scanner.mid_request() => 0,
            Reading::Keep => 0,
            Reading::Stream => scanned,
            Reading::StreamHalf => scanned.div_ceil(2),
        };
        if len > 0 {
            scanner.consumed(len);
            dropped.extend(buffer.drain(..len));
        }
    }
    found.rest = [dropped, buffer].concat();
    found
}

pub fn read_replies(pieces: &[&[u8]], _: Reading) -> Found {
    let mut scanner = ReplyScanner::default();
    let mut found = Found::default();
    let (mut buffer, mut dropped) = (Vec::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        loop {
            match scanner.scan(&buffer) {
                Ok(Reply::Complete { len, kind }) => {
                    found.frame(&mut dropped, &mut buffer, len, format!("{kind:?}"));
                }
                Ok(Reply::Partial { len }) => {
                    dropped.extend(buffer.drain(..len));
                    break;
                }
                Err(error) => {
                    found.error = Some(error.to_string());
                    return found;
                }
            }
        }
    }
    found.rest = [dropped, buffer].concat();
    found
}
