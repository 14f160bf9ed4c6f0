//! What the session makes of the server's replies to commands about the session itself.
//!
//! The server decides whether such a command is right and allowed, and its words reach the client;
//! what it says of its connection (ids, addresses, names) is told of the session instead, and what
//! it agreed to is remembered.
//!
//! **Invariant:** the session has its name and library, wherever its commands run. What a command
//! left of the library on a connection is taken back ([`Heard::take_back`]). The name of a
//! connection is known, and each session puts its own on when it gets one.

use std::rc::Rc;

use bytes::{Bytes, BytesMut};

use super::kill::Kill;
use super::registry::close;
use super::roster::{self, Selection};
use super::session::Session;
use crate::resp::command::Local;
use crate::resp::scan::{args, write_request};
use crate::upstream::identity::{Credentials, Identity, Resp};

/// What is made of a reply.
#[derive(Debug)]
pub(super) struct Heard {
    /// What the client gets.
    pub answer: Bytes,
    /// To be sent after it, so that the connection is as before.
    pub take_back: Option<BytesMut>,
    /// The connection has the session's new name now.
    pub renamed: bool,
}

impl From<Bytes> for Heard {
    fn from(answer: Bytes) -> Self {
        Self {
            answer,
            take_back: None,
            renamed: false,
        }
    }
}

/// What the server is asked in the place of a request; the request itself mostly. `any_condition`:
/// it kills whoever meets one of the conditions, as Kvrocks does.
pub(super) fn asked(local: Local, request: &Bytes, any_condition: bool) -> Bytes {
    match local {
        Local::ClientKill if any_condition => Kill::about_nobody_there(request).freeze(),
        Local::ClientKill => Kill::about_nobody(request).freeze(),
        // The server's ids are not the client's: of the whole list, some lines are told.
        Local::ClientList if matches!(Selection::of(request), Selection::Ids(_)) => {
            rewritten(request, 2, &[])
        }
        // `redirect` would turn READONLY errors into redirections past the proxy.
        Local::ClientCapa if args(request).count() > 2 => rewritten(request, 2, &[b"none"]),
        _ => request.clone(),
    }
}

/// The first words of a request, with others behind them.
fn rewritten(request: &[u8], keep: usize, more: &[&[u8]]) -> Bytes {
    let mut words: Vec<&[u8]> = args(request).take(keep).collect();
    words.extend(more);
    let mut asked = BytesMut::new();
    write_request(&mut asked, &words);
    asked.freeze()
}

impl Session {
    /// Takes note of a reply and tells it in the session's words. `identity` is the connection's,
    /// which changes with the session's.
    pub(super) fn heard(
        &mut self,
        local: Local,
        request: &Bytes,
        reply: &Bytes,
        identity: &mut Identity,
        epoch: u64,
    ) -> Heard {
        if local == Local::ClientKill {
            return self.kills(request, reply).into();
        }
        if matches!(reply.first(), Some(b'-' | b'!')) {
            return reply.clone().into();
        }
        let words: Vec<&[u8]> = args(request).collect();
        match local {
            Local::Auth | Local::Hello | Local::Select => {
                self.identified(local, &words, reply, identity)
            }
            Local::ClientId => integer(self.id).into(),
            Local::ClientGetName if !self.name.is_empty() => bulk(&self.name).into(),
            Local::ClientGetRedir => self.with_own_redirect(reply, b":").into(),
            Local::ClientTrackingInfo => {
                let key = b"$8\r\nredirect\r\n:";
                self.with_own_redirect(reply, key).into()
            }
            Local::ClientSetName | Local::ClientSetInfo => self.named(local, &words, reply),
            Local::ClientNoEvict => {
                self.modes.no_evict = is_on(words.get(2));
                reply.clone().into()
            }
            Local::ClientNoTouch => {
                self.modes.no_touch = is_on(words.get(2));
                reply.clone().into()
            }
            Local::ReadOnly | Local::ReadWrite => {
                self.modes.read_only = local == Local::ReadOnly;
                reply.clone().into()
            }
            Local::ClientInfo => self.info(reply).unwrap_or_else(|| reply.clone()).into(),
            Local::ClientList => {
                let entries = self.seat.registry.all();
                let selection = Selection::of(request);
                let list = roster::list(reply, &entries, epoch, &selection);
                list.unwrap_or_else(|| reply.clone()).into()
            }
            Local::Info => roster::server_info(reply, self.seat.registry.len()).into(),
            _ => reply.clone().into(),
        }
    }

    fn info(&self, reply: &[u8]) -> Option<Bytes> {
        let entry = self.seat.registry.get(self.id)?;
        roster::info(reply, &entry, self.redirect)
    }

    /// `AUTH`, `HELLO`, `SELECT`: the server has agreed.
    fn identified(
        &mut self,
        local: Local,
        words: &[&[u8]],
        reply: &Bytes,
        own: &mut Identity,
    ) -> Heard {
        let mut identity = self.identity.clone();
        let mut heard = Heard::from(reply.clone());
        match local {
            Local::Auth => identity.credentials = credentials(words.get(1..).unwrap_or_default()),
            Local::Select => identity.db = number(words.get(1)).unwrap_or(identity.db),
            _ => {
                let change = HelloChange::read(words);
                if let Some(known) = change.credentials {
                    identity.credentials = Some(known);
                }
                identity.resp = reply_resp(reply).unwrap_or(identity.resp);
                if let Some(name) = change.name {
                    self.name = name;
                    heard.renamed = true;
                }
                heard.answer = with_own_id(reply, self.id);
            }
        }
        own.clone_from(&identity);
        if identity != self.identity {
            self.become_identity(identity);
        }
        self.noauth = None;
        self.note_in_registry();
        heard
    }

    fn named(&mut self, local: Local, words: &[&[u8]], reply: &Bytes) -> Heard {
        let word = |at: usize| words.get(at).copied().unwrap_or_default();
        let renamed = local == Local::ClientSetName;
        let back = if renamed {
            self.name = Bytes::copy_from_slice(word(2));
            None
        } else {
            let value = Bytes::copy_from_slice(word(3));
            if word(2).eq_ignore_ascii_case(b"lib-name") {
                self.lib_name = value;
            } else {
                self.lib_ver = value;
            }
            Some(take_back(&[b"CLIENT", b"SETINFO", word(2), b""]))
        };
        self.note_in_registry();
        Heard {
            answer: reply.clone(),
            take_back: back,
            renamed,
        }
    }

    /// The server has judged `CLIENT KILL` about nobody; whoever is meant is ended.
    fn kills(&mut self, request: &[u8], reply: &Bytes) -> Bytes {
        let Some(kill) = Kill::read(request) else {
            return match reply.first() {
                Some(b'-') => reply.clone(),
                _ => Bytes::from_static(b"-ERR syntax error\r\n"),
            };
        };
        let allowed = match reply.first() {
            Some(b'-') => kill.old_form && contains(reply, b"No such client"),
            _ => true,
        };
        if !allowed {
            return reply.clone();
        }
        let mut meant = self.seat.registry.all();
        meant.retain(|entry| kill.means(entry, self.id));
        let others = meant.len();
        meant.retain(|entry| entry.presence.id != self.id);
        let own = others - meant.len();
        self.ends |= own > 0;
        let ended = close(&meant) + own;
        match (kill.old_form, ended) {
            (true, 0) => reply.clone(),
            (true, _) => Bytes::from_static(b"+OK\r\n"),
            (false, _) => integer(ended as u64),
        }
    }

    /// The id behind `key` is a server's, of the connection that gets the invalidations.
    fn with_own_redirect(&self, reply: &Bytes, key: &[u8]) -> Bytes {
        match (value_of(reply, key), self.redirect) {
            (Some((at, digits)), Some(redirect)) if digits.first().is_some_and(|d| *d != b'0') => {
                replaced(reply, at, digits.len(), redirect)
            }
            _ => reply.clone(),
        }
    }
}

fn is_on(word: Option<&&[u8]>) -> bool {
    word.is_some_and(|word| word.eq_ignore_ascii_case(b"on"))
}

fn take_back(words: &[&[u8]]) -> BytesMut {
    let mut request = BytesMut::new();
    write_request(&mut request, words);
    request
}

fn contains(text: &[u8], part: &[u8]) -> bool {
    text.windows(part.len()).any(|window| window == part)
}

fn replaced(reply: &[u8], at: usize, len: usize, number: u64) -> Bytes {
    let (before, after) = reply.split_at(at);
    let after = after.get(len..).unwrap_or_default();
    [before, number.to_string().as_bytes(), after]
        .concat()
        .into()
}

fn integer(number: u64) -> Bytes {
    format!(":{number}\r\n").into()
}

fn bulk(bytes: &[u8]) -> Bytes {
    let header = format!("${}\r\n", bytes.len());
    [header.as_bytes(), bytes, b"\r\n"].concat().into()
}

/// What a successful `HELLO` changed besides the protocol version.
struct HelloChange {
    credentials: Option<Rc<Credentials>>,
    name: Option<Bytes>,
}

impl HelloChange {
    fn read(words: &[&[u8]]) -> Self {
        let mut change = Self {
            credentials: None,
            name: None,
        };
        let mut rest = words.iter().skip(2);
        while let Some(option) = rest.next() {
            if option.eq_ignore_ascii_case(b"auth") {
                let both = [rest.next(), rest.next()].map(|word| word.copied().unwrap_or_default());
                // Kvrocks takes a password alone; its user, when given, is always `default`.
                change.credentials = credentials(&both);
            } else if option.eq_ignore_ascii_case(b"setname") {
                change.name = rest.next().map(|name| Bytes::copy_from_slice(name));
            }
        }
        change
    }
}

fn credentials(words: &[&[u8]]) -> Option<Rc<Credentials>> {
    let (user, password) = match words {
        [password] => (None, *password),
        [user, password, ..] => (Some(Bytes::copy_from_slice(user)), *password),
        [] => return None,
    };
    Some(Rc::new(Credentials {
        user,
        password: Bytes::copy_from_slice(password),
    }))
}

fn number(word: Option<&&[u8]>) -> Option<u32> {
    std::str::from_utf8(word?).ok()?.parse().ok()
}

/// The protocol version that `HELLO`'s reply announces; Kvrocks may stay at 2 when asked for 3.
fn reply_resp(reply: &[u8]) -> Option<Resp> {
    match value_of(reply, b"$5\r\nproto\r\n:")?.1 {
        b"3" => Some(Resp::Resp3),
        _ => Some(Resp::Resp2),
    }
}

/// `HELLO`'s reply with the session's id in the place of the connection's.
fn with_own_id(reply: &Bytes, id: u64) -> Bytes {
    let Some((at, digits)) = value_of(reply, b"$2\r\nid\r\n:") else {
        return reply.clone();
    };
    replaced(reply, at, digits.len(), id)
}

/// The digits behind `key` and where they begin.
fn value_of<'r>(reply: &'r [u8], key: &[u8]) -> Option<(usize, &'r [u8])> {
    let at = reply.windows(key.len()).position(|window| window == key)? + key.len();
    let rest = reply.get(at..)?;
    let len = rest
        .iter()
        .position(|byte| !byte.is_ascii_digit())
        .unwrap_or(rest.len());
    Some((at, rest.get(..len)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_in_hellos_reply_is_replaced_and_nothing_else() {
        let reply = Bytes::from_static(b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:1234\r\n");
        assert_eq!(
            with_own_id(&reply, 7),
            Bytes::from_static(b"%2\r\n$5\r\nproto\r\n:3\r\n$2\r\nid\r\n:7\r\n"),
        );
        assert_eq!(reply_resp(&reply), Some(Resp::Resp3));
    }

    #[test]
    fn hello_options_are_read_in_any_order() {
        let words: Vec<&[u8]> = vec![b"HELLO", b"3", b"SETNAME", b"x", b"auth", b"u", b"p"];
        let change = HelloChange::read(&words);
        assert_eq!(change.name.as_deref(), Some(&b"x"[..]));
        let known = change.credentials.unwrap();
        assert_eq!(
            (known.user.as_deref(), &known.password[..]),
            (Some(&b"u"[..]), &b"p"[..])
        );
    }
}
