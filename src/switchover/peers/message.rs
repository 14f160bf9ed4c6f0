//! What proxies say to one another, one line each.
//!
//! ```text
//! HOLD    <operation> <proxy> <ms> <target>   hold writes, for so long at most; this node is next
//! ACK     <operation> <proxy> hold|route      nothing is under way here | this one reads there now
//! ROUTE   <operation> <proxy> <target>        the target is master: send reads there, hold on
//! RELEASE <operation> <proxy>                 let the held writes go on
//! ```
//!
//! **Invariant:** whoever may `PUBLISH` can write here, so a message is a few short words of a
//! known alphabet or it is nothing; none of them is believed for what can be asked of a node.

use std::fmt;
use std::time::Duration;

/// Longest message that is read.
pub const MESSAGE_BYTES_MAX: usize = 512;
/// Longest id of an operation or a proxy, and longest name of a node.
const WORD_BYTES_MAX: usize = 256;

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub operation: String,
    /// Who says so.
    pub proxy: String,
    pub saying: Saying,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Saying {
    Hold { length: Duration, target: String },
    Ack(Step),
    Route { target: String },
    Release,
}

/// What an acknowledgement is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    Hold,
    Route,
}

impl Message {
    /// `None` for everything that is not exactly a message.
    pub fn parse(text: &[u8]) -> Option<Message> {
        if text.len() > MESSAGE_BYTES_MAX {
            return None;
        }
        let mut words = std::str::from_utf8(text).ok()?.split(' ');
        let (verb, operation, proxy) = (words.next()?, id(words.next()?)?, id(words.next()?)?);
        let saying = match verb {
            "HOLD" => {
                let ms = words.next()?.parse().ok()?;
                let target = node(words.next()?)?;
                let length = Duration::from_millis(ms);
                Saying::Hold { length, target }
            }
            "ACK" => Saying::Ack(match words.next()? {
                "hold" => Step::Hold,
                "route" => Step::Route,
                _ => return None,
            }),
            "ROUTE" => Saying::Route {
                target: node(words.next()?)?,
            },
            "RELEASE" => Saying::Release,
            _ => return None,
        };
        words.next().is_none().then_some(Message {
            operation,
            proxy,
            saying,
        })
    }
}

fn id(word: &str) -> Option<String> {
    is_id(word).then(|| word.to_owned())
}

/// Whether an operation or a proxy can be called that.
pub(super) fn is_id(word: &str) -> bool {
    let known = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=WORD_BYTES_MAX).contains(&word.len()) && word.bytes().all(known)
}

fn node(word: &str) -> Option<String> {
    let good = (1..=WORD_BYTES_MAX).contains(&word.len())
        && word.bytes().all(|byte| byte.is_ascii_graphic());
    good.then(|| word.to_owned())
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Message {
            operation, proxy, ..
        } = self;
        match &self.saying {
            Saying::Hold { length, target } => {
                let ms = length.as_millis();
                write!(f, "HOLD {operation} {proxy} {ms} {target}")
            }
            Saying::Ack(Step::Hold) => write!(f, "ACK {operation} {proxy} hold"),
            Saying::Ack(Step::Route) => write!(f, "ACK {operation} {proxy} route"),
            Saying::Route { target } => write!(f, "ROUTE {operation} {proxy} {target}"),
            Saying::Release => write!(f, "RELEASE {operation} {proxy}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let sayings = [
            Saying::Hold {
                length: Duration::from_millis(500),
                target: "[::1]:6379".into(),
            },
            Saying::Ack(Step::Hold),
            Saying::Ack(Step::Route),
            Saying::Route {
                target: "db-1.internal:6379".into(),
            },
            Saying::Release,
        ];
        for saying in sayings {
            let (operation, proxy) = ("20261122T064455Z-3f2a".into(), "7-00c0ffee".into());
            let message = Message {
                operation,
                proxy,
                saying,
            };
            let text = message.to_string();
            assert_eq!(Message::parse(text.as_bytes()), Some(message), "{text}");
        }
    }

    #[test]
    fn everything_else_is_nothing() {
        for text in [
            "",
            "HOLD",
            "HOLD a b",
            "HOLD a b x n:1",
            "HOLD a b -1 n:1",
            "HOLD a b 99999999999999999999999 n:1",
            "HOLD a b 5 n:1 more",
            "HOLD a  5 n:1",
            "HOLD a\n b 5 n:1",
            "ACK a b c",
            "ROUTE a b",
            "ROUTE a b n\u{e9}:1",
            "RELEASE a b ",
            "release a b",
            "SHUTDOWN a b",
        ] {
            assert_eq!(Message::parse(text.as_bytes()), None, "{text}");
        }
        assert_eq!(Message::parse(b"RELEASE a \xff"), None);
    }

    #[test]
    fn a_message_may_be_so_long_and_no_longer() {
        let route = |length: usize| format!("ROUTE a b {}", "n".repeat(length));
        assert!(Message::parse(route(WORD_BYTES_MAX).as_bytes()).is_some());
        assert_eq!(Message::parse(route(WORD_BYTES_MAX + 1).as_bytes()), None);
        let long = format!("RELEASE {} {}", "a".repeat(256), "b".repeat(256));
        assert_eq!(Message::parse(long.as_bytes()), None);
    }
}
