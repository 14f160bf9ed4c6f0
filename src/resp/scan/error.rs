//! What a client is told before its connection is closed.

/// A client does not speak the protocol. Each of these loses the place where the next request
/// starts: the reply is sent, then the connection is closed, and what was not complete is not
/// executed. The texts are those of Redis 7.0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProtocolError {
    /// The number of arguments is not a number, or past the limit.
    #[error("invalid multibulk length")]
    MultibulkLength,
    /// The length of an argument is not a number, negative, or past the limit.
    #[error("invalid bulk length")]
    BulkLength,
    /// Something else stands where an argument must begin.
    #[error("expected '$', got '{}'", .got.escape_ascii())]
    ExpectedBulk { got: u8 },
    /// The line of the number of arguments does not end.
    #[error("too big mbulk count string")]
    CountLineTooBig,
    /// The line of an argument's length does not end.
    #[error("too big bulk count string")]
    BulkLineTooBig,
    /// An inline request does not end.
    #[error("too big inline request")]
    InlineTooBig,
    /// A quote of an inline request is not closed, or closed in the middle of a word.
    #[error("unbalanced quotes in request")]
    UnbalancedQuotes,
    /// An argument is longer than it says. Redis skips two bytes here without looking; we look,
    /// because a node would be told something else than what was judged here.
    #[error("expected CRLF after bulk")]
    BulkEnd,
}

impl ProtocolError {
    /// The reply to send before the connection is closed. Bytes and not text, because Redis quotes
    /// the byte it got as it is.
    pub fn reply(&self) -> Vec<u8> {
        match *self {
            Self::ExpectedBulk { got } => {
                let mut reply = b"-ERR Protocol error: expected '$', got '".to_vec();
                // An error reply is one line, so Redis replaces line ends by blanks.
                reply.push(if matches!(got, b'\r' | b'\n') {
                    b' '
                } else {
                    got
                });
                reply.extend_from_slice(b"'\r\n");
                reply
            }
            _ => format!("-ERR Protocol error: {self}\r\n").into_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_reply_quotes_the_byte_as_it_came() {
        let reply = |got| ProtocolError::ExpectedBulk { got }.reply();
        assert_eq!(
            reply(b'x'),
            b"-ERR Protocol error: expected '$', got 'x'\r\n"
        );
        assert_eq!(
            reply(0xff),
            b"-ERR Protocol error: expected '$', got '\xff'\r\n"
        );
        assert_eq!(
            reply(b'\r'),
            b"-ERR Protocol error: expected '$', got ' '\r\n"
        );
    }
}
