//! What was open on the old master is opened again on the new one, when that is exact: a
//! transaction's queue, and a blocked command that the old master has let go. Watched keys cannot
//! be vouched for: their `EXEC` answers null, as after any change of a watched key.

use bytes::{Bytes, BytesMut};
use tokio::time::Instant;

use super::super::session::Waited;
use super::super::state::{Closed, Transaction};
use super::{Awaited, Expect, Keeps, Relay};
use crate::resp::scan::{ReplyKind, Request, RequestScanner, write_request};

const MULTI: &[u8] = b"*1\r\n$5\r\nMULTI\r\n";
const MONITOR: &[u8] = b"*1\r\n$7\r\nMONITOR\r\n";

impl Relay<'_> {
    /// Opens on the present master what is open here. Called with nothing expected.
    pub(super) async fn carry(&mut self) -> Result<(), Closed> {
        self.move_to_master().await?;
        self.receive_again();
        let watch_lost = std::mem::take(&mut self.watching);
        let Some(mut open) = self.transaction.take() else {
            self.watch_lost |= watch_lost;
            return Ok(());
        };
        open.watch_lost |= watch_lost;
        open.carried = true;
        if !open.broken && !self.queue_again(&open).await? {
            open.broken = true;
        }
        self.transaction = Some(open);
        Ok(())
    }

    /// Subscribes again, or monitors again; the client does not see the confirmations.
    fn receive_again(&mut self) {
        self.flushed = false;
        if self.keeps == Keeps::Monitor {
            self.expect_own(MONITOR, Awaited::Plain, true);
        }
        let sets = [
            (&b"SUBSCRIBE"[..], &self.subscriptions.channels),
            (b"PSUBSCRIBE", &self.subscriptions.patterns),
            (b"SSUBSCRIBE", &self.subscriptions.shard),
        ];
        let mut requests = Vec::new();
        for (command, names) in sets {
            if !names.is_empty() {
                let mut words = vec![Bytes::from_static(command)];
                words.extend(names.iter().cloned());
                let mut request = BytesMut::new();
                write_request(&mut request, &words);
                requests.push((request, names.len()));
            }
        }
        for (request, confirmations) in requests {
            self.expect_own(&request, Awaited::Resubscribe(confirmations), true);
        }
    }

    /// Leaves the connection, which belongs to a node that is not master any more.
    async fn move_to_master(&mut self) -> Result<(), Closed> {
        match self.session.connect_own().await? {
            Ok((epoch, links, link)) => {
                self.epoch = epoch;
                self.links = links;
                self.link = link;
                self.link_ended = false;
                Ok(())
            }
            Err(text) => {
                tracing::warn!(session = self.session.id, text, "no connection to carry to");
                Err(Closed::NotCarried)
            }
        }
    }

    /// Says whether the server queued everything again as it did before.
    async fn queue_again(&mut self, open: &Transaction) -> Result<bool, Closed> {
        let deadline = self.session.seat.limits.call_deadline();
        let (_, kind) = self.link.call(MULTI, deadline).await?;
        let Some(queue) = open.queue() else {
            return Ok(false);
        };
        if kind == ReplyKind::Error {
            return Ok(false);
        }
        for request in requests(queue) {
            let (reply, _) = self.link.call(&request, deadline).await?;
            // A transaction in which a command failed before is refused at EXEC anyway.
            if !reply.starts_with(b"+QUEUED") && !open.failed {
                return Ok(false);
            }
        }
        Ok(true)
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
        self.out.extend_from_slice(&again);
        self.expects.push_back(Expect {
            what: Awaited::Blocking,
            write: false,
            mute,
        });
        Ok(())
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

/// Splits a queue into its requests, which the scanner has judged before.
fn requests(queue: &[u8]) -> Vec<Bytes> {
    let limits = crate::resp::scan::RequestLimits {
        inline_bytes_max: usize::MAX,
        elements_max: u64::MAX >> 1,
        bulk_bytes_max: u64::MAX >> 1,
    };
    let mut scanner = RequestScanner::default();
    let mut rest = Bytes::copy_from_slice(queue);
    let mut requests = Vec::new();
    while let Ok(Request::Complete { len, .. }) = scanner.scan(&rest, &limits) {
        requests.push(rest.split_to(len));
    }
    requests
}
