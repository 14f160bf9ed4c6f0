//! Leaves a node that is not master any more, when nothing is under way there. Watched keys cannot
//! be vouched for: their `EXEC` answers null, as after any change of a watched key.
//!
//! A session that has sent a command which is in no table, and which the server did execute, goes
//! on as well, with a fresh connection. Such commands are those of modules and of newer servers,
//! and nearly all of them are about data. To close the session would take a connection from every
//! client that uses a module, for the sake of a command that changes its connection in a way that
//! nobody knows of; whoever writes one adds it to the table. Until the swap the session keeps its
//! own connection, so that it sees no difference.

use bytes::Bytes;

use super::super::state::{Closed, Stand};
use super::Relay;

impl Relay<'_> {
    /// Opens on the present master what is open here. Called with nothing expected.
    pub(super) async fn carry(&mut self) -> Result<(), Closed> {
        self.move_to_master().await?;
        let watch_lost = std::mem::take(&mut self.watching);
        match &mut self.transaction {
            Some(open) => {
                open.watch_lost |= watch_lost;
                open.carried = true;
                open.stand = Stand::Away;
            }
            None => self.watch_lost |= watch_lost,
        }
        self.find_own_target().await?;
        if let Some(queue) = self.transaction.as_ref().and_then(|open| open.queue()) {
            self.session.bring_for_queue(queue).await?;
        }
        self.reopen();
        Ok(())
    }

    /// Brings to the master the scripts that the request in front asks for.
    pub(super) async fn bring_scripts(&mut self, len: usize) -> Result<(), Closed> {
        let request = Bytes::copy_from_slice(self.session.input.get(..len).unwrap_or_default());
        if let Some(text) = self.session.bring_scripts(&request).await? {
            self.refuse(len, &text);
        }
        Ok(())
    }

    /// Whether the new route names the node of this connection: what is open on it goes on.
    pub(super) fn stays(&mut self) -> bool {
        let Some((epoch, links)) = self.session.seat.master() else {
            return false;
        };
        if links.node != self.links.node || self.link_ended {
            return false;
        }
        self.epoch = epoch;
        self.links = links;
        self.flushed = false;
        if let Some(receiver) = &self.receiver {
            receiver.moved_to(epoch);
        }
        if let Some(place) = self.blocked.as_mut().and_then(|one| one.place.as_mut()) {
            place.moved_to(epoch);
        }
        true
    }

    /// Leaves the connection, which belongs to a node that is not master any more.
    pub(super) async fn move_to_master(&mut self) -> Result<(), Closed> {
        match self.session.connect_own().await? {
            Ok((epoch, links, link)) => {
                self.epoch = epoch;
                self.links = links;
                self.link = link;
                self.link_ended = false;
                self.spent = false;
                self.target = None;
                self.arrived();
                Ok(())
            }
            Err(text) => {
                tracing::warn!(session = self.session.id, text, "no connection to carry to");
                Err(Closed::NotCarried)
            }
        }
    }
}
