//! Reaching another session on the server: `CLIENT UNBLOCK`, and the client that gets another one's
//! invalidations.
//!
//! The client names an id of the proxy's. The session behind it says which connection it has, the
//! server says what that connection is called there, and both stay true until the command has been
//! executed: a connection that is claimed is not given to anybody else.
//!
//! **Invariant:** called with nothing expected. What is asked here runs on a connection from the
//! pool, with the caller's own rights: pushes for the caller cannot come in between.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use tokio::time::{Instant, sleep};

use super::super::local::OwnLink;
use super::super::registry::{Entry, Order};
use super::super::roster::id_at;
use super::super::state::Closed;
use super::Relay;
use super::ask::words_from;
use crate::resp::command::Local;
use crate::resp::scan::write_request;

const CLIENT_LIST: &[u8] = b"*2\r\n$6\r\nCLIENT\r\n$4\r\nLIST\r\n";
/// An id that no client has.
const NOBODY: &[u8] = b"9223372036854775807";
const NOBODY_ID: u64 = i64::MAX as u64;
const NOT_BLOCKED: &[u8] = b":0\r\n";
/// Between two looks at a session that is on its way to another connection.
const LOOK_AGAIN: Duration = Duration::from_millis(1);

impl Relay<'_> {
    /// `CLIENT UNBLOCK`, the request of `len` bytes in front.
    pub(super) async fn unblock(&mut self, len: usize) -> Result<(), Closed> {
        let request = self.session.input.split_to(len).freeze();
        let words = words_from(&request, 2);
        let id = words.first().and_then(|word| number(word));
        let about = |id: &[u8]| with_id(&request, 2, id);
        if self.transaction.is_some() {
            let target = id.and_then(|id| self.session.seat.registry.get(id));
            let known = match target {
                Some(target) => self.id_on_server(&target).await?,
                None => None,
            };
            let asked = match (id, known) {
                (None, _) => request.clone(),
                (Some(_), Some(known)) => about(known.to_string().as_bytes()),
                (Some(_), None) => about(NOBODY),
            };
            self.ask_in_words(Local::ClientUnblock, request, &asked);
            return Ok(());
        }
        let asked = if id.is_some() {
            about(NOBODY)
        } else {
            request.clone()
        };
        let judged = self.ask_aside(&asked).await?;
        let reply = match id {
            Some(id) if judged == NOT_BLOCKED => self.unblock_session(id, &request).await?,
            _ => judged,
        };
        self.session.say(&reply);
        Ok(())
    }

    /// A session that is on its way from one master to another is still blocked in the eyes of its
    /// client: it is waited for.
    async fn unblock_session(&mut self, id: u64, request: &[u8]) -> Result<Bytes, Closed> {
        let deadline = Instant::now() + self.session.seat.limits.call_deadline();
        loop {
            let target = self.session.seat.registry.get(id);
            let Some(target) = target.filter(|target| target.presence.is_blocked()) else {
                return Ok(Bytes::from_static(NOT_BLOCKED));
            };
            if let Some(id) = self.id_on_server(&target).await? {
                let request = with_id(request, 2, id.to_string().as_bytes());
                let reply = self.ask_aside(&request).await?;
                if reply != NOT_BLOCKED {
                    return Ok(reply);
                }
            }
            if Instant::now() >= deadline {
                return Ok(Bytes::from_static(NOT_BLOCKED));
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// What the present master calls the connection that a session has to it now. The session
    /// gives that connection to nobody any more.
    pub(super) async fn id_on_server(&mut self, target: &Entry) -> Result<Option<u64>, Closed> {
        let Some(upstream) = target.presence.claim() else {
            return Ok(None);
        };
        if upstream.epoch != self.session.seat.epoch() {
            return Ok(None);
        }
        let list = self.ask_aside(CLIENT_LIST).await?;
        Ok(id_at(&list, &upstream.addr.to_string()))
    }

    /// Whether the `CLIENT TRACKING` of `len` bytes in front names a client whose id on the server
    /// is not known yet.
    pub(super) fn needs_target(&self, len: usize) -> bool {
        let request = self.session.input.get(..len).unwrap_or_default();
        let known = self.target.map(|(client, _)| client);
        redirect_of(request).is_some_and(|(_, client)| known != Some(client))
    }

    pub(super) async fn name_target(&mut self, len: usize) -> Result<(), Closed> {
        let request = self.session.input.get(..len).unwrap_or_default();
        let Some((_, client)) = redirect_of(request) else {
            return Ok(());
        };
        let id = self.find_target(client).await?.unwrap_or(NOBODY_ID);
        self.target = Some((client, id));
        Ok(())
    }

    /// The request with the server's id of the client that it names.
    pub(super) fn with_target(&mut self, request: &Bytes) -> Bytes {
        match (redirect_of(request), self.target.take()) {
            (Some((at, _)), Some((_, id))) => with_id(request, at, id.to_string().as_bytes()),
            _ => request.clone(),
        }
    }

    /// The same of the client that gets this one's invalidations.
    pub(super) async fn find_own_target(&mut self) -> Result<(), Closed> {
        if let Some(client) = self.tracking.redirect() {
            let id = self.find_target(client).await?;
            self.target = id.map(|id| (client, id));
        }
        Ok(())
    }

    /// The server's id of a client, which is made to have a connection and to keep it. `None`:
    /// there is no such client.
    pub(super) async fn find_target(&mut self, client: u64) -> Result<Option<u64>, Closed> {
        let deadline = Instant::now() + self.session.seat.limits.call_deadline();
        loop {
            let Some(target) = self.session.seat.registry.get(client) else {
                return Ok(None);
            };
            target.presence.want_upstream();
            if target.presence.upstream().is_none() {
                // A full queue of orders is tried again.
                let _ = target.door.try_send(Order::Wake(client));
            } else if let Some(id) = self.id_on_server(&target).await? {
                return Ok(Some(id));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            sleep(LOOK_AGAIN).await;
        }
    }

    /// Asks the master on a connection from the pool.
    async fn ask_aside(&mut self, request: &[u8]) -> Result<Bytes, Closed> {
        let (_, links, mut link): OwnLink = match self.session.connect_own().await? {
            Ok(link) => link,
            Err(text) => return Ok(format!("-{text}\r\n").into()),
        };
        let limits = &self.session.seat.limits;
        let deadline = limits.call_deadline();
        let reply = link
            .call_for_long(request, deadline, limits.output_buffer_bytes_max)
            .await?;
        links.pool.give_back(link);
        Ok(reply)
    }
}

/// Which word of a `CLIENT TRACKING ON` names the client that gets the invalidations, and its id.
fn redirect_of(request: &[u8]) -> Option<(usize, u64)> {
    let words = words_from(request, 0);
    let is = |at: usize, word: &[u8]| {
        words
            .get(at)
            .is_some_and(|it| it.eq_ignore_ascii_case(word))
    };
    if !is(1, b"TRACKING") {
        return None;
    }
    let mut at = 3;
    while at < words.len() {
        if is(at, b"REDIRECT") {
            return Some((at + 1, number(words.get(at + 1)?)?));
        }
        at += if is(at, b"PREFIX") { 2 } else { 1 };
    }
    None
}

/// A request with another word in the place of the one at `at`.
pub(super) fn with_id(request: &[u8], at: usize, id: &[u8]) -> Bytes {
    let mut words = words_from(request, 0);
    if let Some(word) = words.get_mut(at) {
        *word = id;
    }
    let mut asked = BytesMut::new();
    write_request(&mut asked, &words);
    asked.freeze()
}

pub(super) fn number(word: &[u8]) -> Option<u64> {
    std::str::from_utf8(word).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(line: &str) -> Option<(usize, u64)> {
        let mut request = BytesMut::new();
        write_request(&mut request, &line.split(' ').collect::<Vec<_>>());
        redirect_of(&request)
    }

    #[test]
    fn the_client_that_gets_the_invalidations_is_found_among_the_options() {
        assert_eq!(
            redirect("CLIENT TRACKING on REDIRECT 7 BCAST"),
            Some((4, 7))
        );
        let behind = "client tracking on bcast prefix redirect redirect 7";
        assert_eq!(redirect(behind), Some((7, 7)));
        for none in [
            "CLIENT TRACKING on",
            "CLIENT TRACKING on REDIRECT",
            "CLIENT TRACKING on REDIRECT x",
            "CLIENT CACHING redirect 7",
        ] {
            assert_eq!(redirect(none), None, "{none}");
        }
    }
}
