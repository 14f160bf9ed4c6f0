//! Lines and the numbers in their headers, for both scanners.

/// Reads a non-negative number and its CRLF at the start of `text`, in the form that every sane
/// peer sends: up to 18 digits, no sign, no leading zero. Gives the number and the bytes read.
///
/// `None` means "not that simple": incomplete, negative or wrong. The caller then looks again,
/// slowly, for the reason.
#[inline]
pub(super) fn plain_number(text: &[u8]) -> Option<(u64, usize)> {
    match *text {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), 3)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Some((tens(digit(a), b), 4)),
        [
            a @ b'1'..=b'9',
            b @ b'0'..=b'9',
            c @ b'0'..=b'9',
            b'\r',
            b'\n',
            ..,
        ] => Some((tens(tens(digit(a), b), c), 5)),
        _ => plain_number_of_any_length(text),
    }
}

fn plain_number_of_any_length(text: &[u8]) -> Option<(u64, usize)> {
    if !matches!(text.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let window = text.get(..19).unwrap_or(text);
    let digits = window.iter().position(|byte| !byte.is_ascii_digit())?;
    let (number, rest) = text.split_at_checked(digits)?;
    if !rest.starts_with(b"\r\n") {
        return None;
    }
    let value = number.iter().fold(0, |value, &byte| tens(value, byte));
    Some((value, digits.saturating_add(2)))
}

/// The value of one ASCII digit.
#[inline]
fn digit(byte: u8) -> u64 {
    u64::from(byte.wrapping_sub(b'0'))
}

/// Appends a digit. Wraps, so callers bound the number of digits.
#[inline]
fn tens(value: u64, byte: u8) -> u64 {
    value.wrapping_mul(10).wrapping_add(digit(byte))
}

/// An integer exactly as Redis' `string2ll` reads it: no `+`, no leading zero, no `-0`, no blanks,
/// nothing out of range.
pub(super) fn strict_integer(text: &[u8]) -> Option<i64> {
    let (negative, digits) = match text {
        [b'0'] => return Some(0),
        [b'-', digits @ ..] => (true, digits),
        digits => (false, digits),
    };
    if !matches!(digits.first(), Some(b'1'..=b'9')) {
        return None;
    }
    let mut value: i64 = 0;
    for &byte in digits {
        if !byte.is_ascii_digit() {
            return None;
        }
        // Counted downwards when negative, because i64::MIN has no positive counterpart.
        let unit = i64::from(byte.wrapping_sub(b'0'));
        value = value.checked_mul(10)?;
        value = if negative {
            value.checked_sub(unit)?
        } else {
            value.checked_add(unit)?
        };
    }
    Some(value)
}

/// Finds `byte`. A plain loop wins over a vectorised search in the first few bytes, which is where
/// lines end; `contains` is the standard library's vectorised search for the rest.
#[inline]
pub(super) fn find(byte: u8, text: &[u8]) -> Option<usize> {
    let (near, far) = text.split_at_checked(NEAR).unwrap_or((text, &[]));
    match near.iter().position(|&b| b == byte) {
        Some(at) => Some(at),
        None if far.is_empty() => None,
        None => find_far(byte, far).map(|at| at.saturating_add(NEAR)),
    }
}

const NEAR: usize = 32;

#[inline(never)]
fn find_far(byte: u8, text: &[u8]) -> Option<usize> {
    let mut before: usize = 0;
    for chunk in text.chunks(512) {
        if chunk.contains(&byte) {
            let at = chunk.iter().position(|&b| b == byte)?;
            return Some(before.saturating_add(at));
        }
        before = before.saturating_add(chunk.len());
    }
    None
}

/// The length of the first line of `text`, CRLF included, when the first `searched` bytes are known
/// not to end it. A lone CR or LF is part of the line.
#[inline]
pub(super) fn line_len(text: &[u8], searched: usize) -> Option<usize> {
    let mut from = searched;
    loop {
        let at = find(b'\n', text.get(from..)?)?.saturating_add(from);
        from = at.saturating_add(1);
        if at.checked_sub(1).and_then(|before| text.get(before)) == Some(&b'\r') {
            return Some(from);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::indexing_slicing, clippy::unwrap_used)]

    use super::*;

    #[test]
    fn integers_are_read_as_strictly_as_redis_reads_them() {
        for text in [
            "0",
            "1",
            "-1",
            "10",
            "9223372036854775807",
            "-9223372036854775808",
        ] {
            assert_eq!(
                strict_integer(text.as_bytes()),
                Some(text.parse().unwrap()),
                "{text}"
            );
        }
        for text in [
            "",
            "-",
            "+3",
            "03",
            "00",
            "-0",
            "-03",
            " 3",
            "3 ",
            "3x",
            "x",
            "0x1",
            "9223372036854775808",
            "-9223372036854775809",
            "99999999999999999999999",
        ] {
            assert_eq!(strict_integer(text.as_bytes()), None, "{text:?}");
        }
    }

    #[test]
    fn the_quick_reading_agrees_with_the_strict_one() {
        let eighteen = "9".repeat(18);
        for text in [
            "0",
            "7",
            "10",
            "42",
            "100",
            "999",
            "1000",
            "65536",
            eighteen.as_str(),
        ] {
            let expected = Some((text.parse().unwrap(), text.len() + 2));
            assert_eq!(
                plain_number(format!("{text}\r\nrest").as_bytes()),
                expected,
                "{text}"
            );
        }
        for text in [
            "", "1", "1\r", "12", "-1\r\n", "+1\r\n", "01\r\n", "00\r\n", "1\n", "1\rx",
        ] {
            assert_eq!(plain_number(text.as_bytes()), None, "{text:?}");
        }
        let nineteen = format!("{}\r\n", "9".repeat(19));
        assert_eq!(plain_number(nineteen.as_bytes()), None);
    }

    #[test]
    fn a_byte_is_found_wherever_it_is() {
        for at in [0, 1, 31, 32, 33, 500, 543, 544, 545, 2000] {
            let mut text = vec![b'x'; 2001];
            text[at] = b'\n';
            assert_eq!(find(b'\n', &text), Some(at));
            assert_eq!(find(b'\n', &text[..at]), None);
        }
    }

    #[test]
    fn only_cr_lf_ends_a_line() {
        assert_eq!(line_len(b"+a\nb\rc\r\r\n+", 0), Some(9));
        assert_eq!(line_len(b"+a\r\n", 3), Some(4));
        assert_eq!(line_len(b"+a\n", 0), None);
        assert_eq!(line_len(b"\n", 0), None);
    }
}
