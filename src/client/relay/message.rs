//! The beginning of a message in RESP2, where it is an array like any other.
//!
//! In the reply to an `EXEC` values of the client's may stand in an array in the same way. A
//! message has an exact number of parts and names what the session is subscribed to.

use crate::resp::command::SubKind;

/// The longest line with a length that a server writes.
const LINE_BYTES_MAX: usize = 32;

/// Longer than every word that tells what a frame is.
const WORD_BYTES_MAX: usize = 16;

/// What an array in front is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Head<'b> {
    /// Not enough of it is here.
    More,
    Other,
    Message {
        kind: SubKind,
        /// What somebody must be subscribed to who receives it.
        to: &'b [u8],
        channel: &'b [u8],
    },
}

impl<'b> Head<'b> {
    /// `name_bytes_max`: what is longer is no channel that anybody has.
    pub(super) fn read(input: &'b [u8], name_bytes_max: usize) -> Self {
        match read(input, name_bytes_max) {
            Ok(head) => head,
            Err(Short::More) => Self::More,
            Err(Short::Other) => Self::Other,
        }
    }
}

/// The first element of what begins with `first`, an array or a push, when it is a short bulk
/// string; empty when it is not, and `None` until enough of it is here.
pub(super) fn first_word(input: &[u8], first: u8) -> Option<&[u8]> {
    match word(input, first) {
        Ok(word) => Some(word),
        Err(Short::More) => None,
        Err(Short::Other) => Some(b""),
    }
}

enum Short {
    More,
    Other,
}

fn word(mut rest: &[u8], first: u8) -> Result<&[u8], Short> {
    match length(&mut rest, first)? {
        0 => Err(Short::Other),
        _ => bulk(&mut rest, WORD_BYTES_MAX),
    }
}

fn read(mut rest: &[u8], name_bytes_max: usize) -> Result<Head<'_>, Short> {
    let count = length(&mut rest, b'*')?;
    let (kind, parts) = match bulk(&mut rest, name_bytes_max)? {
        b"message" => (SubKind::Channel, 3),
        b"smessage" => (SubKind::Shard, 3),
        b"pmessage" => (SubKind::Pattern, 4),
        _ => return Err(Short::Other),
    };
    if count != parts {
        return Err(Short::Other);
    }
    let to = bulk(&mut rest, name_bytes_max)?;
    let channel = match kind {
        SubKind::Pattern => bulk(&mut rest, name_bytes_max)?,
        SubKind::Channel | SubKind::Shard => to,
    };
    Ok(Head::Message { kind, to, channel })
}

fn length(rest: &mut &[u8], first: u8) -> Result<usize, Short> {
    let end = rest
        .iter()
        .take(LINE_BYTES_MAX)
        .position(|byte| *byte == b'\n');
    let (line, behind) = match end.and_then(|end| rest.split_at_checked(end + 1)) {
        Some(split) => split,
        None if rest.len() < LINE_BYTES_MAX => return Err(Short::More),
        None => return Err(Short::Other),
    };
    *rest = behind;
    let digits = line.strip_prefix(&[first]).ok_or(Short::Other)?;
    let digits = std::str::from_utf8(digits).map_err(|_| Short::Other)?;
    digits.trim_end().parse().map_err(|_| Short::Other)
}

fn bulk<'b>(rest: &mut &'b [u8], bytes_max: usize) -> Result<&'b [u8], Short> {
    let len = length(rest, b'$')?;
    if len > bytes_max {
        return Err(Short::Other);
    }
    let (text, behind) = rest.split_at_checked(len).ok_or(Short::More)?;
    *rest = behind.get(2..).ok_or(Short::More)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(input: &[u8], expected: Head<'_>) {
        assert_eq!(Head::read(input, 10), expected, "{input:?}");
    }

    #[test]
    fn a_message_names_its_channel_and_the_pattern_that_it_matches() {
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n";
        let [to, channel] = [&b"c"[..]; 2];
        let kind = SubKind::Channel;
        check(message, Head::Message { kind, to, channel });
        let message = b"*4\r\n$8\r\npmessage\r\n$2\r\nc*\r\n$2\r\ncd\r\n$1\r\nx\r\n";
        let kind = SubKind::Pattern;
        let (to, channel) = (&b"c*"[..], &b"cd"[..]);
        check(message, Head::Message { kind, to, channel });
    }

    #[test]
    fn a_message_is_told_when_its_channel_is_here() {
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\nc\r\n";
        for len in 0..message.len() {
            check(&message[..len], Head::More);
        }
    }

    #[test]
    fn arrays_of_another_length_and_of_other_things_are_no_messages() {
        check(b"*4\r\n$7\r\nmessage\r\n$1\r\nc\r\n", Head::Other);
        check(b"*3\r\n$8\r\npmessage\r\n$1\r\nc\r\n", Head::Other);
        check(b"*3\r\n$7\r\nmassage\r\n$1\r\nc\r\n", Head::Other);
        check(b"*3\r\n$7\r\nmessage\r\n:1\r\n", Head::Other);
        check(b"*3\r\n$7\r\nmessage\r\n$-1\r\n", Head::Other);
        check(b"*3\r\n$7\r\nmessage\r\n$11\r\n", Head::Other);
    }
}
