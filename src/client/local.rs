//! Commands that the proxy answers itself, and connections of a session's own.
//!
//! **Invariant:** called only when no lane owes the session a reply, so what is said here stands in
//! its turn.

use std::rc::Rc;

use bytes::Bytes;
use tokio::time::Instant;

use super::links::NodeLinks;
use super::session::{Session, Waited};
use super::state::{Closed, Modes, ReplyMode};
use crate::resp::command::{Local, Path};
use crate::resp::scan::{Form, Request, RequestScanner, args};
use crate::upstream::connection::{Connection, DialError};
use crate::upstream::identity::Identity;

impl Session {
    /// Answers the request of `len` bytes in front.
    pub(super) async fn answer(&mut self, local: Local, len: usize) -> Result<(), Closed> {
        if local == Local::Failover {
            return self.failover(len).await;
        }
        let request = self.input.split_to(len).freeze();
        let words: Vec<&[u8]> = args(&request).collect();
        match local {
            Local::Quit => {
                self.say(b"+OK\r\n");
                Err(Closed::Quit)
            }
            Local::HangUp => Err(Closed::ProtocolError),
            Local::Reset => {
                self.reset(words.len());
                Ok(())
            }
            _ => {
                self.client_reply(&words);
                Ok(())
            }
        }
    }

    /// The session is as if it had just connected. Kvrocks must never see a `RESET`: there it
    /// makes any connection an administrator's.
    fn reset(&mut self, words: usize) {
        if words != 1 {
            return self.say(&wrong_arity("reset"));
        }
        let skipped = self.reply_mode == ReplyMode::SkipNext;
        self.become_identity(Identity::default());
        self.name = Bytes::new();
        self.redirect = None;
        self.modes = Modes::default();
        self.reply_mode = ReplyMode::On;
        self.note_in_registry();
        if !skipped {
            self.say(b"+RESET\r\n");
        }
    }

    fn client_reply(&mut self, words: &[&[u8]]) {
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
    }

    /// A connection of the session's own to the master, or the text to refuse the command with.
    pub(super) async fn connect_own(&mut self) -> Result<Result<OwnLink, String>, Closed> {
        self.connect(Source::Pool).await
    }

    /// One for the request in front. A pooled connection may be from before the server wanted a
    /// password; only a fresh one answers `AUTH` and `HELLO` as the server would answer this
    /// client.
    pub(super) async fn connect_for_front(&mut self) -> Result<Result<OwnLink, String>, Closed> {
        let unproven = self.identity.credentials.is_none() && !self.proven;
        let identifies = unproven
            && matches!(self.front(), Some(Path::Local(local)) if local.changes_identity());
        let from = if identifies {
            Source::Fresh
        } else {
            Source::Pool
        };
        self.connect(from).await
    }

    /// Which way the request in front goes, when all of it is here.
    fn front(&mut self) -> Option<Path> {
        let scanned = self.scanner.scan(&self.input, &self.seat.limits.request);
        match scanned {
            Ok(Request::Complete {
                form: Form::Multibulk,
                ..
            }) => {
                let path = self.verdict(&self.input).path;
                self.scanner = RequestScanner::default();
                Some(path)
            }
            _ => None,
        }
    }

    async fn connect(&mut self, from: Source) -> Result<Result<OwnLink, String>, Closed> {
        let since = self.refused_since().unwrap_or_else(Instant::now);
        loop {
            let Some((epoch, links)) = self.seat.master() else {
                if Box::pin(self.wait_for_move(since)).await? == Waited::BudgetSpent {
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
                Source::Fresh => Box::pin(links.dial(&self.identity, deadline)).await,
            };
            match connected {
                Ok(connection) => {
                    self.proven |= from == Source::Pool;
                    return Ok(Ok((epoch, links, connection)));
                }
                Err(error) => {
                    if let Some(text) = self
                        .dial_failed(error, since, self.seat.limits.hold_budget)
                        .await
                    {
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
        Box::pin(links.wants_password()).await
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

fn wrong_arity(command: &str) -> Vec<u8> {
    format!("-ERR wrong number of arguments for '{command}' command\r\n").into_bytes()
}
