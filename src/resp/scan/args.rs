//! The arguments of whole requests: reading them, and writing requests of our own.

use bytes::{BufMut, BytesMut};

use super::line::plain_number;

/// The arguments of a complete multibulk request, as
/// [`RequestScanner`](super::RequestScanner) delimits them.
#[derive(Clone, Debug)]
pub struct Args<'b> {
    rest: &'b [u8],
}

/// Walks all arguments of a complete multibulk request. On anything else it ends early.
#[inline]
pub fn args(frame: &[u8]) -> Args<'_> {
    let rest = match frame {
        [b'*', digits @ ..] => plain_number(digits).and_then(|(_, len)| digits.get(len..)),
        _ => None,
    };
    Args {
        rest: rest.unwrap_or_default(),
    }
}

impl<'b> Iterator for Args<'b> {
    type Item = &'b [u8];

    #[inline]
    fn next(&mut self) -> Option<&'b [u8]> {
        let [b'$', digits @ ..] = self.rest else {
            return None;
        };
        let (bulk_len, line_len) = plain_number(digits)?;
        let body = digits.get(line_len..)?;
        let (argument, rest) = body.split_at_checked(usize::try_from(bulk_len).ok()?)?;
        self.rest = rest.strip_prefix(b"\r\n")?;
        Some(argument)
    }
}

/// Appends a multibulk request.
pub fn write_request(out: &mut BytesMut, args: &[impl AsRef<[u8]>]) {
    write_header(out, b'*', args.len());
    for argument in args {
        let argument = argument.as_ref();
        write_header(out, b'$', argument.len());
        out.reserve(argument.len().saturating_add(2));
        out.put_slice(argument);
        out.put_slice(b"\r\n");
    }
}

fn write_header(out: &mut BytesMut, kind: u8, number: usize) {
    // Twenty digits hold any length; written from the back because that is how digits fall out.
    let mut digits = [b'0'; 20];
    let mut first = digits.len();
    let mut rest = number;
    for slot in digits.iter_mut().rev() {
        *slot = b"0123456789".get(rest % 10).copied().unwrap_or(b'0');
        rest /= 10;
        first = first.saturating_sub(1);
        if rest == 0 {
            break;
        }
    }
    out.put_u8(kind);
    out.put_slice(digits.get(first..).unwrap_or_default());
    out.put_slice(b"\r\n");
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    #[test]
    fn what_was_written_is_read_back() {
        let long = vec![b'v'; 12_345];
        let arguments = [&b"SET"[..], b"", b"\r\n", &long];
        let mut frame = BytesMut::new();
        write_request(&mut frame, &arguments);
        assert!(frame.starts_with(b"*4\r\n$3\r\nSET\r\n$0\r\n\r\n$2\r\n\r\n\r\n$12345\r\n"));
        assert_eq!(args(&frame).collect::<Vec<_>>(), arguments);
    }

    #[test]
    fn the_walk_ends_where_the_frame_is_no_request() {
        for frame in [
            "",
            "*",
            "PING\r\n",
            "*1\r\n+OK\r\n",
            "*1\r\n$5\r\nabc\r\n",
            "*1\r\n$1\r\nabc",
        ] {
            assert_eq!(args(frame.as_bytes()).next(), None, "{frame:?}");
        }
        assert_eq!(args(b"*2\r\n$1\r\na\r\n$x").collect::<Vec<_>>(), [b"a"]);
    }
}
