//! Commands that the proxy answers itself, and those it carries to the server on behalf of a
//! session because they change who the session is there (`AUTH`, `HELLO`, `SELECT`).
//!
//! The latter run on a connection with the session's present identity. When the server agrees,
//! the session takes on the new identity and finds its next lane by it; the connection, which now
//! has that identity, goes to the pool.
//!
//! **Invariant:** called only when no lane owes the session a reply, so what is said here stands in
//! its turn.

use std::rc::Rc;

use bytes::Bytes;
use tokio::time::Instant;

use super::links::NodeLinks;
use super::session::{Session, Waited};
use super::state::{Closed, ReplyMode};
use crate::resp::command::Local;
use crate::resp::scan::{ReplyKind, args};
use crate::upstream::connection::{Connection, DialError};
use crate::upstream::identity::{Credentials, Identity, Resp};

impl Session {
    /// Answers the request of `len` bytes in front.
    pub(super) async fn answer(&mut self, local: Local, len: usize) -> Result<(), Closed> {
        if matches!(local, Local::Auth | Local::Hello | Local::Select) {
            return self.change_identity(local, len).await;
        }
        if local == Local::Failover {
            return self.failover(len).await;
        }
        let request = self.input.split_to(len).freeze();
        let words: Vec<&[u8]> = args(&request).collect();
        let reply = match local {
            Local::Quit => {
                self.outbox.push(b"+OK\r\n");
                return Err(Closed::Quit);
            }
            Local::Reset => {
                let skipped = self.reply_mode == ReplyMode::SkipNext;
                self.reset();
                if skipped {
                    return Ok(());
                }
                b"+RESET\r\n".to_vec()
            }
            Local::ClientReply => return self.client_reply(&words),
            _ => self.about_client(local, &words),
        };
        self.say(&reply);
        Ok(())
    }

    /// The session is as if it had just connected. Kvrocks must never see a `RESET`: there it
    /// makes any connection an administrator's.
    pub(super) fn reset(&mut self) {
        self.become_identity(Identity::default());
        self.name = Bytes::new();
        self.reply_mode = ReplyMode::On;
        self.note_in_registry();
    }

    fn client_reply(&mut self, words: &[&[u8]]) -> Result<(), Closed> {
        let mode = words.get(2).copied().unwrap_or_default();
        if words.len() != 3 {
            self.say(&wrong_arity("client|reply"));
        } else if mode.eq_ignore_ascii_case(b"on") {
            self.reply_mode = ReplyMode::On;
            self.say(b"+OK\r\n");
        } else if mode.eq_ignore_ascii_case(b"off") {
            self.reply_mode = ReplyMode::Off;
        } else if mode.eq_ignore_ascii_case(b"skip") {
            if self.reply_mode == ReplyMode::On {
                self.reply_mode = ReplyMode::SkipNext;
            }
        } else {
            self.say(b"-ERR syntax error\r\n");
        }
        Ok(())
    }

    /// What needs nothing but the session's own state.
    fn about_client(&mut self, local: Local, words: &[&[u8]]) -> Vec<u8> {
        match local {
            Local::ClientId if words.len() == 2 => format!(":{}\r\n", self.id).into_bytes(),
            Local::ClientId => wrong_arity("client|id"),
            Local::ClientGetName if words.len() == 2 && self.name.is_empty() => {
                match self.identity.resp {
                    Resp::Resp2 => b"$-1\r\n".to_vec(),
                    Resp::Resp3 => b"_\r\n".to_vec(),
                }
            }
            Local::ClientGetName if words.len() == 2 => bulk(&self.name),
            Local::ClientGetName => wrong_arity("client|getname"),
            Local::ClientSetName => self.client_set_name(words),
            Local::ClientInfo if words.len() == 2 => bulk(self.registered_line().as_bytes()),
            Local::ClientInfo => wrong_arity("client|info"),
            Local::ClientList => bulk(self.seat.registry.list().as_bytes()),
            Local::ClientNoEvict | Local::ClientNoTouch if words.len() == 3 => b"+OK\r\n".to_vec(),
            Local::ClientNoEvict => wrong_arity("client|no-evict"),
            Local::ClientNoTouch => wrong_arity("client|no-touch"),
            Local::ClientGetRedir => b":-1\r\n".to_vec(),
            _ => b"-ERR this CLIENT subcommand is not available through pointsman: ids and \
                   connections are the proxy's own\r\n"
                .to_vec(),
        }
    }

    fn client_set_name(&mut self, words: &[&[u8]]) -> Vec<u8> {
        let (Some(name), 3) = (words.get(2), words.len()) else {
            return wrong_arity("client|setname");
        };
        if !is_valid_name(name) {
            return b"-ERR Client names cannot contain spaces, newlines or special \
                     characters.\r\n"
                .to_vec();
        }
        self.name = Bytes::copy_from_slice(name);
        self.note_in_registry();
        b"+OK\r\n".to_vec()
    }

    /// `AUTH`, `HELLO`, `SELECT`: the server decides, the session remembers.
    async fn change_identity(&mut self, local: Local, len: usize) -> Result<(), Closed> {
        // A pooled connection may be from before the server wanted a password; only a fresh one
        // answers as the server would answer this client.
        let unproven = self.identity.credentials.is_none() && !self.proven;
        let from = if unproven {
            Source::Fresh
        } else {
            Source::Pool
        };
        match self.connect(from).await? {
            Ok((_, links, mut connection)) => {
                let clean = self.change_identity_on(&mut connection, local, len).await?;
                if clean {
                    links.pool.give_back(connection);
                }
                Ok(())
            }
            Err(text) => self.refuse_front(&text).await,
        }
    }

    /// Runs an identity command on `connection`, which has no reply outstanding. Says whether the
    /// connection is fit for another session of the same identity afterwards.
    pub(super) async fn change_identity_on(
        &mut self,
        connection: &mut Connection,
        local: Local,
        len: usize,
    ) -> Result<bool, Closed> {
        let request = self.input.split_to(len).freeze();
        let deadline = self.seat.limits.call_deadline();
        let (reply, kind) = connection.call(&request, deadline).await?;
        self.outbox.push(&connection.unasked.split());
        if kind == ReplyKind::Error {
            self.say(&reply);
            // A refused HELLO may have changed the protocol version before it failed.
            return Ok(local != Local::Hello);
        }
        let words: Vec<&[u8]> = args(&request).collect();
        let mut identity = self.identity.clone();
        let mut named = None;
        match local {
            Local::Auth => identity.credentials = credentials(words.get(1..).unwrap_or_default()),
            Local::Select => identity.db = number(words.get(1)).unwrap_or(identity.db),
            _ => {
                let change = HelloChange::read(&words);
                if let Some(known) = change.credentials {
                    identity.credentials = Some(known);
                }
                named = change.name;
                identity.resp = reply_resp(&reply).unwrap_or(identity.resp);
            }
        }
        connection.identity = identity.clone();
        if identity != self.identity {
            self.become_identity(identity);
        }
        self.noauth = None;
        let clean = named.is_none();
        if let Some(name) = named {
            self.name = name;
        }
        self.note_in_registry();
        let reply = if local == Local::Hello {
            with_own_id(&reply, self.id)
        } else {
            reply
        };
        self.say(&reply);
        Ok(clean)
    }

    /// A connection of the session's own to the master, or the text to refuse the command with.
    pub(super) async fn connect_own(&mut self) -> Result<Result<OwnLink, String>, Closed> {
        self.connect(Source::Pool).await
    }

    async fn connect(&mut self, from: Source) -> Result<Result<OwnLink, String>, Closed> {
        let since = Instant::now();
        loop {
            let Some((epoch, links)) = self.seat.master() else {
                if self.wait_at_gate(Some(since)).await? == Waited::BudgetSpent {
                    return Ok(Err(self.budget_spent_text()));
                }
                continue;
            };
            let deadline = self.seat.limits.connect_timeout;
            if from == Source::Pool
                && let Ok(Some(noauth)) = self.unproven_refusal(&links).await
            {
                let text = String::from_utf8_lossy(&noauth).trim_end().to_owned();
                self.noauth = Some(noauth);
                return Ok(Err(text.trim_start_matches('-').to_owned()));
            }
            let connected = match from {
                Source::Pool => links.pool.take(&links.node, &self.identity, deadline).await,
                Source::Fresh => Connection::dial(&links.node, &self.identity, deadline).await,
            };
            match connected {
                Ok(connection) => {
                    self.proven |= from == Source::Pool;
                    return Ok(Ok((epoch, links, connection)));
                }
                Err(error) => {
                    if let Some(text) = self.dial_failed(error, since).await {
                        return Ok(Err(text));
                    }
                }
            }
        }
    }
}

impl Session {
    /// The server's refusal of a session that has neither credentials nor been served before.
    async fn unproven_refusal(&self, links: &NodeLinks) -> Result<Option<Bytes>, DialError> {
        if self.proven || self.identity.credentials.is_some() {
            return Ok(None);
        }
        links.wants_password().await
    }
}

/// Where a connection of the session's own comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    Pool,
    Fresh,
}

/// An epoch, the master's connections in it, and one of them for the session alone.
pub(super) type OwnLink = (u64, Rc<NodeLinks>, Connection);

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
    let (before, after) = reply.split_at(at);
    let after = after.get(digits.len()..).unwrap_or_default();
    [before, id.to_string().as_bytes(), after].concat().into()
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

fn is_valid_name(name: &[u8]) -> bool {
    name.iter().all(|byte| (b'!'..=b'~').contains(byte))
}

pub(super) fn bulk(bytes: &[u8]) -> Vec<u8> {
    let mut reply = format!("${}\r\n", bytes.len()).into_bytes();
    reply.extend_from_slice(bytes);
    reply.extend_from_slice(b"\r\n");
    reply
}

fn wrong_arity(command: &str) -> Vec<u8> {
    format!("-ERR wrong number of arguments for '{command}' command\r\n").into_bytes()
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
