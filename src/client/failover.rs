//! `FAILOVER` as the proxy's own switchover, where the operator has said so (`commands.failover =
//! "switchover"`): the words and the errors are those of Redis, what is done is a switchover.
//!
//! **Invariant:** nobody may do through the proxy what the server would not let them do. The server
//! is asked first, with a form of the command that does nothing.

use std::time::Duration;

use bytes::Bytes;

use super::session::Session;
use super::state::Closed;
use crate::resp::scan::{ReplyKind, args, write_request};
use crate::shard::failover::Failover;

const SYNTAX: &str = "syntax error";

impl Session {
    /// Answers the `FAILOVER` of `len` bytes in front.
    pub(super) async fn failover(&mut self, len: usize) -> Result<(), Closed> {
        if let Some(refusal) = self.may_fail_over().await? {
            return self.refuse_front(&refusal).await;
        }
        let request = self.input.split_to(len).freeze();
        let words: Vec<&[u8]> = args(&request).collect();
        let answered = match read(words.get(1..).unwrap_or_default()) {
            Ok(failover) => self.seat.failover.ask(failover).await,
            Err(error) => Err(error),
        };
        match answered {
            Ok(()) => self.say(b"+OK\r\n"),
            Err(error) => self.say(format!("-ERR {error}\r\n").as_bytes()),
        }
        Ok(())
    }

    /// The server's refusal, without its `-`, if this session may not change roles there.
    async fn may_fail_over(&mut self) -> Result<Option<String>, Closed> {
        let (_, links, mut connection) = match self.connect_own().await? {
            Ok(link) => link,
            Err(text) => return Ok(Some(text)),
        };
        let deadline = self.seat.limits.call_deadline();
        // A time-out of 0 is refused, after the permission was judged.
        let mut answer = connection
            .call(&words(&["FAILOVER", "TIMEOUT", "0"]), deadline)
            .await?;
        if answer.0.starts_with(b"-ERR unknown command") {
            // No such command there; whoever may look at the configuration is an administrator.
            answer = connection
                .call(&words(&["CONFIG", "GET", "maxclients"]), deadline)
                .await?;
            if answer.1 != ReplyKind::Error {
                links.pool.give_back(connection);
                return Ok(None);
            }
            return Ok(Some(text_of(&answer.0)));
        }
        links.pool.give_back(connection);
        // Only what the command itself finds wrong shows that it was reached.
        let reached = answer.0.starts_with(b"-ERR FAILOVER");
        Ok((!reached).then(|| text_of(&answer.0)))
    }
}

fn words(words: &[&str]) -> Bytes {
    let mut request = bytes::BytesMut::new();
    write_request(&mut request, words);
    request.freeze()
}

fn text_of(reply: &[u8]) -> String {
    let line = String::from_utf8_lossy(reply);
    line.trim_end().trim_start_matches('-').to_owned()
}

/// Reads `[TO host port [FORCE]] [ABORT] [TIMEOUT ms]`, in any order as Redis does.
fn read(words: &[&[u8]]) -> Result<Failover, String> {
    let mut to = None;
    let mut timeout = None;
    let mut rest = words.iter();
    if let [only] = words
        && only.eq_ignore_ascii_case(b"abort")
    {
        return Ok(Failover::Abort);
    }
    while let Some(word) = rest.next() {
        if word.eq_ignore_ascii_case(b"to") && to.is_none() {
            let (Some(host), Some(port)) = (rest.next(), rest.next()) else {
                return Err(SYNTAX.to_owned());
            };
            let port: u16 = number(port)?;
            to = Some((String::from_utf8_lossy(host).into_owned(), port));
        } else if word.eq_ignore_ascii_case(b"timeout") && timeout.is_none() {
            let ms = number::<i64>(rest.next().ok_or(SYNTAX)?)?;
            match u64::try_from(ms) {
                Ok(ms) if ms > 0 => timeout = Some(Duration::from_millis(ms)),
                _ => return Err("FAILOVER timeout must be greater than 0".to_owned()),
            }
        } else if word.eq_ignore_ascii_case(b"force") {
            return Err(
                "FAILOVER FORCE would lose writes and is not available through pointsman: see \
                 force_on_timeout in its configuration"
                    .to_owned(),
            );
        } else {
            return Err(SYNTAX.to_owned());
        }
    }
    Ok(Failover::Begin { to, timeout })
}

fn number<T: std::str::FromStr>(word: &[u8]) -> Result<T, String> {
    let text = std::str::from_utf8(word).ok();
    text.and_then(|text| text.parse().ok())
        .ok_or_else(|| "value is not an integer or out of range".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Result<Failover, String> {
        let words: Vec<&[u8]> = line.split_whitespace().map(str::as_bytes).collect();
        read(&words)
    }

    #[test]
    fn the_words_of_failover_are_those_of_redis() {
        let begin = |to: Option<(&str, u16)>, ms: Option<u64>| {
            Ok(Failover::Begin {
                to: to.map(|(host, port)| (host.to_owned(), port)),
                timeout: ms.map(Duration::from_millis),
            })
        };
        assert_eq!(words(""), begin(None, None));
        assert_eq!(words("to h 1"), begin(Some(("h", 1)), None));
        assert_eq!(words("TIMEOUT 5 TO h 1"), begin(Some(("h", 1)), Some(5)));
        assert_eq!(words("Abort"), Ok(Failover::Abort));
        for wrong in ["TO h", "ABORT TO h 1", "x", "TIMEOUT", "TO h 1 TO h 2"] {
            assert_eq!(words(wrong), Err(SYNTAX.to_owned()), "{wrong}");
        }
        assert!(words("TIMEOUT 0").unwrap_err().contains("greater than 0"));
        assert!(words("TO h x").unwrap_err().contains("not an integer"));
        assert!(words("TO h 1 FORCE").unwrap_err().contains("lose writes"));
    }
}
