//! What was open on the old master is opened again on the new one, when that is exact: a
//! transaction's queue, and a blocked command that the old master has let go. Watched keys cannot
//! be vouched for: their `EXEC` answers null, as after any change of a watched key.

use std::future::poll_fn;

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout};

use super::super::session::Waited;
use super::super::state::{Closed, Stand};
use super::{Awaited, Expect, Relay};
use crate::shard::gate::GateState;

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

    /// Leaves the connection, which belongs to a node that is not master any more.
    async fn move_to_master(&mut self) -> Result<(), Closed> {
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

    /// Sends a blocked command to the new master, with the time it has left.
    pub(super) async fn reissue_blocked(&mut self) -> Result<(), Closed> {
        self.reissue = false;
        let since = Instant::now();
        if self.session.wait_at_gate(Some(since)).await? == Waited::BudgetSpent {
            return self.give_up_blocked();
        }
        let mute = self.blocked.as_ref().is_some_and(|blocked| blocked.mute);
        let Some(again) = self.blocked.as_ref().and_then(|blocked| blocked.again()) else {
            return self.give_up_blocked();
        };
        self.move_to_master().await?;
        self.watch_lost |= std::mem::take(&mut self.watching);
        self.out.clear();
        self.find_own_target().await?;
        self.reopen();
        self.out.extend_from_slice(&again);
        self.expects.push_back(Expect {
            what: Awaited::Blocking,
            write: false,
            mute,
        });
        self.owe_call_back();
        Ok(())
    }

    /// A blocked command that can be sent again has to be called back where the server does not let
    /// it go.
    pub(super) fn owe_call_back(&mut self) {
        let seat = &self.session.seat;
        if let Some(blocked) = &mut self.blocked
            && !seat.master_lets_go()
            && blocked.again().is_some()
        {
            blocked.call_back = Some(seat.gate.owe_call_back());
        }
    }

    /// Whether a hold waits for the blocked command.
    pub(super) fn is_called_back(&self) -> bool {
        let holding = self.session.seat.gate.state() == GateState::Holding;
        holding
            && self
                .blocked
                .as_ref()
                .is_some_and(|blocked| blocked.call_back.is_some())
    }

    /// Ends the connection on which a command blocks: our sending side is shut down and what the
    /// server still says is read to its end. What it has taken for the client reaches the client;
    /// otherwise the command is sent again after the hold, to whoever is master then.
    pub(super) async fn call_back(&mut self) -> Result<(), Closed> {
        let deadline = self.session.seat.limits.call_deadline();
        let ended = timeout(deadline, self.read_to_end()).await;
        ended.unwrap_or(Err(Closed::NotCarried))?;
        self.link_ended = true;
        if let Some(blocked) = &mut self.blocked {
            blocked.call_back = None;
            self.expects.pop_back();
            self.reissue = true;
        }
        Ok(())
    }

    async fn read_to_end(&mut self) -> Result<(), Closed> {
        // A connection that is broken already ends the loop below.
        let _ = poll_fn(|context| self.poll_out(context)).await;
        let _ = self.link.write.shutdown().await;
        loop {
            match self.link.read.read_buf(&mut self.link.input).await {
                Ok(0) | Err(_) => return Ok(()),
                Ok(_) => self.deal()?,
            }
        }
    }

    fn give_up_blocked(&mut self) -> Result<(), Closed> {
        let muted = self.blocked.take().is_some_and(|blocked| blocked.mute);
        if !muted {
            self.session.outbox.push(
                b"-UNBLOCKED pointsman: there was no master to wait on; nothing was taken\r\n",
            );
        }
        Ok(())
    }
}
