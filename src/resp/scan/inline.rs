//! Inline requests: a line typed by a person, a health check or telnet.

use bytes::BytesMut;

use super::args::write_request;
use super::error::ProtocolError;
use super::request::{Request, RequestLimits, RequestScanner};

/// Splits an inline request into its arguments exactly as Redis does (`sdssplitargs`): blanks
/// separate, `"..."` knows `\n \r \t \b \a \\ \" \xHH`, `'...'` knows `\'` only, and a closing
/// quote must be followed by a blank or the end.
///
/// The line end may be part of `line`; it is a blank like others. A NUL is an ordinary byte here
/// (Redis never sees the end of a line with a NUL in it and closes the connection at 64 KiB).
///
/// # Errors
///
/// [`ProtocolError::UnbalancedQuotes`]: nothing of the line may be executed.
pub fn split_inline(line: &[u8]) -> Result<Vec<Vec<u8>>, ProtocolError> {
    let mut arguments = Vec::new();
    let mut rest = skip_blanks(line);
    while !rest.is_empty() {
        let (argument, after) = take_argument(rest)?;
        arguments.push(argument);
        rest = skip_blanks(after);
    }
    Ok(arguments)
}

/// The requests in `buf`, the first of which is inline, with every inline one written as a
/// multibulk request; from the first one that is incomplete or wrong on, the bytes as they are. All
/// at once, because one at a time would move the bytes behind a line as often as there are lines.
///
/// # Errors
///
/// The first request cannot be split.
pub fn reframe(buf: &[u8], limits: &RequestLimits) -> Result<BytesMut, ProtocolError> {
    let mut framed = BytesMut::with_capacity(buf.len().saturating_mul(2));
    let mut scanner = RequestScanner::default();
    let mut rest = buf;
    while let Ok(Request::Complete { len, .. } | Request::Blank { len }) =
        scanner.scan(rest, limits)
    {
        let Some((request, after)) = rest.split_at_checked(len) else {
            break;
        };
        if request.first() == Some(&b'*') {
            framed.extend_from_slice(request);
        } else {
            match split_inline(request) {
                // A blank line stays one: it ends what `CLIENT REPLY SKIP` began.
                Ok(arguments) => write_request(&mut framed, &arguments),
                Err(error) if framed.is_empty() => return Err(error),
                Err(_) => break,
            }
        }
        rest = after;
    }
    framed.extend_from_slice(rest);
    Ok(framed)
}

/// Whether Redis would skip this line without a reply.
pub(super) fn is_blank(line: &[u8]) -> bool {
    line.iter().all(|&byte| is_space(byte))
}

/// C's `isspace`, which counts the vertical tab (0x0b) that `u8::is_ascii_whitespace` does not.
fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | 0x0b | 0x0c)
}

fn skip_blanks(text: &[u8]) -> &[u8] {
    let blanks = text.iter().take_while(|&&byte| is_space(byte)).count();
    text.get(blanks..).unwrap_or_default()
}

/// Where in an argument the next byte stands.
enum Quote {
    None,
    Double,
    Single,
}

fn take_argument(text: &[u8]) -> Result<(Vec<u8>, &[u8]), ProtocolError> {
    let mut argument = Vec::new();
    let mut quote = Quote::None;
    let mut rest = text;
    loop {
        rest = match (&quote, rest) {
            (Quote::None, [] | [b' ' | b'\n' | b'\r' | b'\t', ..]) => return Ok((argument, rest)),
            (Quote::None, [b'"', after @ ..]) => {
                quote = Quote::Double;
                after
            }
            (Quote::None, [b'\'', after @ ..]) => {
                quote = Quote::Single;
                after
            }
            (Quote::Double, [b'"', after @ ..]) | (Quote::Single, [b'\'', after @ ..]) => {
                return match after.first() {
                    Some(&byte) if !is_space(byte) => Err(ProtocolError::UnbalancedQuotes),
                    _ => Ok((argument, after)),
                };
            }
            (Quote::Double, [b'\\', after @ ..]) if !after.is_empty() => {
                let (byte, after) = unescape(after);
                argument.push(byte);
                after
            }
            (Quote::Single, [b'\\', b'\'', after @ ..]) => {
                argument.push(b'\'');
                after
            }
            (Quote::Double | Quote::Single, []) => return Err(ProtocolError::UnbalancedQuotes),
            (_, [byte, after @ ..]) => {
                argument.push(*byte);
                after
            }
        };
    }
}

/// The byte that an escape stands for; `text` is what follows the backslash.
fn unescape(text: &[u8]) -> (u8, &[u8]) {
    match text {
        [b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
            (hex(*high).wrapping_shl(4) | hex(*low), after)
        }
        [b'n', after @ ..] => (b'\n', after),
        [b'r', after @ ..] => (b'\r', after),
        [b't', after @ ..] => (b'\t', after),
        [b'b', after @ ..] => (0x08, after),
        [b'a', after @ ..] => (0x07, after),
        [byte, after @ ..] => (*byte, after),
        [] => (b'\\', text),
    }
}

fn hex(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit.wrapping_sub(b'0'),
        b'a'..=b'f' => digit.wrapping_sub(b'a').wrapping_add(10),
        _ => digit.wrapping_sub(b'A').wrapping_add(10),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    fn check(line: &str, expected: &[&[u8]]) {
        let arguments = split_inline(line.as_bytes()).unwrap();
        assert_eq!(arguments, expected, "{line:?}");
    }

    #[test]
    fn blanks_separate_arguments() {
        check("", &[]);
        check(" \t \r\n", &[]);
        check("PING\r\n", &[b"PING"]);
        check("  SET  key\tvalue \r\n", &[b"SET", b"key", b"value"]);
        check("a\0b c", &[b"a\0b", b"c"]);
        check("a\x0bb", &[b"a\x0bb"]);
        check("\x0b\x0ca", &[b"a"]);
    }

    #[test]
    fn quotes_keep_blanks_and_know_escapes() {
        check(r#"SET k "a b""#, &[b"SET", b"k", b"a b"]);
        check(r#""" ''"#, &[b"", b""]);
        check(r#""\n\r\t\b\a\\\"\q""#, &[b"\n\r\t\x08\x07\\\"q"]);
        check(r#""\x41\xfF\x4g\x""#, &[b"A\xffx4gx"]);
        check(r"'\'\n' b", &[br"'\n", b"b"]);
        check(r#"pre"fix ed" b"#, &[b"prefix ed", b"b"]);
        check(r"a\x41", &[br"a\x41"]);
    }

    #[test]
    fn inline_requests_are_reframed_up_to_what_cannot_be() {
        let limits = RequestLimits {
            inline_bytes_max: 100,
            elements_max: 10,
            bulk_bytes_max: 100,
        };
        let check = |input: &[u8], expected: Result<&[u8], ProtocolError>| {
            let framed = reframe(input, &limits);
            assert_eq!(framed.as_deref(), expected.as_ref().copied(), "{input:?}");
        };
        let ping: &[u8] = b"*1\r\n$4\r\nPING\r\n";
        check(b"PING\n", Ok(ping));
        check(
            b"PING\r\n\r\nPING\r\n",
            Ok(&[ping, b"*0\r\n", ping].concat()),
        );
        check(
            &[b"PING\n", ping, b"PING\nPI"].concat(),
            Ok(&[&ping.repeat(3), &b"PI"[..]].concat()),
        );
        check(
            b"PING\n*1\r\n$4\r\nPI",
            Ok(&[ping, b"*1\r\n$4\r\nPI"].concat()),
        );
        check(b"PING\n\"a\n", Ok(&[ping, b"\"a\n"].concat()));
        check(b"\"a\nPING\n", Err(ProtocolError::UnbalancedQuotes));
    }

    #[test]
    fn unbalanced_quotes_are_refused() {
        for line in [
            r#"""#, "'", r#""a"b"#, "'a'b", r#""abc"#, r#""a\""#, r#"'a\'"#, r#""\"#,
        ] {
            let result = split_inline(line.as_bytes());
            assert_eq!(result, Err(ProtocolError::UnbalancedQuotes), "{line:?}");
        }
    }
}
