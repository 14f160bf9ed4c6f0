//! `CLIENT KILL`: which sessions it means.
//!
//! The server is asked about a client that no server has, so that it says what is wrong with the
//! command, or that the user may not kill; whom it hits is decided here.
//!
//! **Invariant:** only clients of the proxy are hit, of its own shard; of replicas those that are
//! attached through it. The link to a master, and whoever is connected to the node itself, are the
//! node's business.

use bytes::BytesMut;

use super::registry::Entry;
use crate::resp::scan::{args, write_request};

/// The address of no client.
const NOBODY: &[u8] = b"-";
/// The id of no client.
const NO_ID: &[u8] = b"9223372036854775807";

/// Whom to kill.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Kill {
    ids: Vec<u64>,
    addr: Option<String>,
    laddr: Option<String>,
    user: Option<Vec<u8>>,
    kind: Option<Kind>,
    age_min_s: u64,
    spare_caller: bool,
    /// Written with nothing but an address: its replies are different ones.
    pub old_form: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Normal,
    PubSub,
    Replica,
    /// Not a client.
    Other,
}

impl Kill {
    /// `None`: an option that is not known here.
    pub fn read(request: &[u8]) -> Option<Self> {
        let words: Vec<&[u8]> = args(request).skip(2).collect();
        let text = |word: &[u8]| String::from_utf8_lossy(word).into_owned();
        if let [addr] = words.as_slice() {
            return Some(Self {
                addr: Some(text(addr)),
                old_form: true,
                ..Self::default()
            });
        }
        let mut kill = Self {
            spare_caller: true,
            ..Self::default()
        };
        for pair in words.chunks(2) {
            let [option, value] = pair else { return None };
            match option.to_ascii_lowercase().as_slice() {
                b"id" => kill.ids.push(text(value).parse().ok()?),
                b"addr" => kill.addr = Some(text(value)),
                b"laddr" => kill.laddr = Some(text(value)),
                b"user" => kill.user = Some(value.to_vec()),
                b"maxage" => kill.age_min_s = text(value).parse().ok()?,
                b"skipme" => kill.spare_caller = value.eq_ignore_ascii_case(b"yes"),
                b"type" => {
                    kill.kind = Some(match value.to_ascii_lowercase().as_slice() {
                        b"normal" => Kind::Normal,
                        b"pubsub" => Kind::PubSub,
                        b"replica" | b"slave" => Kind::Replica,
                        _ => Kind::Other,
                    });
                }
                _ => return None,
            }
        }
        Some(kill)
    }

    /// What the server is asked in the place of `request`: the same, about nobody.
    pub fn about_nobody(request: &[u8]) -> BytesMut {
        let mut words: Vec<&[u8]> = args(request).collect();
        match words.len() {
            // Nothing to kill was named: the server says so.
            0..=2 => {}
            3 => {
                words.truncate(2);
                words.push(NOBODY);
            }
            _ => words.extend([&b"ADDR"[..], NOBODY]),
        }
        let mut asked = BytesMut::new();
        write_request(&mut asked, &words);
        asked
    }

    /// The same where conditions are alternatives and anybody may kill, as on Kvrocks: none of the
    /// client's own may get there.
    pub fn about_nobody_there(request: &[u8]) -> BytesMut {
        let words: [&[u8]; 4] = match Self::read(request) {
            Some(kill) if kill.old_form => return Self::about_nobody(request),
            Some(_) if args(request).count() > 2 => [b"CLIENT", b"KILL", b"ID", NO_ID],
            _ => [b"CLIENT", b"KILL", b"ID", b"-"],
        };
        let mut asked = BytesMut::new();
        write_request(&mut asked, &words);
        asked
    }

    pub fn means(&self, entry: &Entry, caller: u64) -> bool {
        let presence = &entry.presence;
        let kind = if presence.is_replica() {
            Kind::Replica
        } else if presence.is_subscribed() {
            Kind::PubSub
        } else {
            Kind::Normal
        };
        (self.ids.is_empty() || self.ids.contains(&presence.id))
            && self
                .addr
                .as_ref()
                .is_none_or(|addr| *addr == entry.addr.to_string())
            && self
                .laddr
                .as_ref()
                .is_none_or(|addr| *addr == entry.laddr.to_string())
            && self
                .user
                .as_ref()
                .is_none_or(|user| *user == entry.about.user)
            && self.kind.is_none_or(|wanted| wanted == kind)
            && presence.age_s() >= self.age_min_s
            && !(self.spare_caller && presence.id == caller)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> BytesMut {
        let mut request = BytesMut::new();
        write_request(&mut request, &line.split(' ').collect::<Vec<_>>());
        request
    }

    fn asked(line: &str) -> String {
        let asked = Kill::about_nobody(&request(line));
        let words: Vec<String> = args(&asked)
            .map(|word| String::from_utf8_lossy(word).into_owned())
            .collect();
        words.join(" ")
    }

    #[test]
    fn the_server_is_asked_about_nobody_and_sees_the_same_mistakes() {
        assert_eq!(asked("CLIENT KILL"), "CLIENT KILL");
        assert_eq!(asked("CLIENT KILL 1.2.3.4:5"), "CLIENT KILL -");
        assert_eq!(asked("CLIENT KILL ID 5"), "CLIENT KILL ID 5 ADDR -");
        let there = |line: &str| {
            let asked = Kill::about_nobody_there(&request(line));
            args(&asked).skip(2).map(<[u8]>::to_vec).collect::<Vec<_>>()
        };
        for line in [
            "CLIENT KILL ID 5",
            "CLIENT KILL TYPE normal",
            "CLIENT KILL ADDR 1.2.3.4:5 SKIPME no",
        ] {
            assert_eq!(there(line), [b"ID", NO_ID], "{line}");
        }
        assert_eq!(there("CLIENT KILL TYPE normal ID x"), [b"ID", NOBODY]);
        assert_eq!(asked("CLIENT KILL ID 5 x"), "CLIENT KILL ID 5 x ADDR -");
    }

    #[test]
    fn the_caller_is_spared_unless_it_says_otherwise() {
        let read = |line: &str| Kill::read(&request(line)).unwrap();
        assert!(read("CLIENT KILL TYPE normal").spare_caller);
        assert!(!read("CLIENT KILL ID 1 skipme no").spare_caller);
        assert!(!read("CLIENT KILL 127.0.0.1:1").spare_caller);
        assert_eq!(read("CLIENT KILL ID 1 ID 2").ids, [1, 2]);
        assert_eq!(Kill::read(&request("CLIENT KILL NOT-ID 1")), None);
    }
}
