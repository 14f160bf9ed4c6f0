//! A control connection that listens: one channel, for as long as it lasts.
//!
//! **Invariant:** a connection that has subscribed is never used for questions again.

use std::time::Duration;

use tokio::io::AsyncReadExt;

use super::{Cause, Connection, NodeError, Value, words};
use crate::resp::scan::write_request;

pub struct Subscription(Connection);

impl Subscription {
    pub async fn open(
        mut connection: Connection,
        channel: &str,
        within: Duration,
    ) -> Result<Subscription, NodeError> {
        let value = connection.call(&["SUBSCRIBE", channel], within).await?;
        if let Some(text) = value.error() {
            return Err(NodeError::Refused {
                node: connection.node.clone(),
                command: "SUBSCRIBE".to_owned(),
                text: text.to_owned(),
            });
        }
        connection.usable = false;
        Ok(Subscription(connection))
    }

    /// Asks whether the other end is still there; the answer comes like a message.
    pub async fn ping(&mut self, within: Duration) -> Result<(), NodeError> {
        let connection = &mut self.0;
        connection.out.clear();
        write_request(&mut connection.out, &words(&["PING"]));
        let mut sent = 0;
        match tokio::time::timeout(within, connection.exchange(0, &mut sent)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(cause)) => Err(cause.on(&connection.node, sent > 0)),
            Err(_) => Err(self.silent(within)),
        }
    }

    /// The next message, whatever it says. Cancel-safe: what has been read of one stays in the
    /// decoder. It waits as long as it takes; whoever calls it pings meanwhile.
    pub async fn next(&mut self) -> Result<Value, NodeError> {
        let connection = &mut self.0;
        let next = async {
            loop {
                if let Some(value) = connection.decoder.next_value()? {
                    return Ok(value);
                }
                let buffer = connection.decoder.buffer();
                if connection.stream.read_buf(buffer).await? == 0 {
                    return Err(Cause::Closed);
                }
            }
        };
        next.await.map_err(|cause| cause.on(&connection.node, true))
    }

    /// What to say of one that answers no ping.
    pub fn silent(&self, within: Duration) -> NodeError {
        NodeError::Deadline {
            node: self.0.node.clone(),
            within_ms: within.as_millis() as u64,
            sent: true,
        }
    }
}
