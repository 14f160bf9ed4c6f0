//! Asks the master in use every 100 ms whether it is still one, and has all nodes looked at as soon
//! as it is not, or does not answer.
//!
//! Owns one connection to that master. **Invariant:** it decides nothing: it only makes the watch
//! look earlier than it would have.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::resp::reply::RoleReply;
use crate::switchover::exec::{Routes, Site};
use crate::topology::node::Connection;
use crate::topology::watch::Watch;

/// How often the master is asked. Readers see what an old master has for as long at most, when
/// nothing else tells that it is one.
const ASK_EVERY: Duration = Duration::from_millis(100);
/// While there is no master, clients wait: the nodes are looked at more often, at first.
const LOOK_EVERY: Duration = Duration::from_millis(10);
const LOOK_OFTEN_FOR: Duration = Duration::from_secs(10);
/// What the connection calls itself.
const NAME: &str = "pointsman-pulse";

pub(super) async fn run<G, R: Routes>(
    site: Arc<Site<G, R>>,
    watch: Arc<Watch>,
    stop: CancellationToken,
) {
    let mut pulse = Pulse {
        site,
        watch,
        connection: None,
        masterless: Instant::now(),
    };
    // Dropped in the middle of a question, it takes its connection along.
    let beating = async {
        loop {
            let pause = pulse.beat().await;
            sleep(pause).await;
        }
    };
    tokio::select! {
        () = beating => {}
        () = stop.cancelled() => {}
    }
}

struct Pulse<G, R> {
    site: Arc<Site<G, R>>,
    watch: Arc<Watch>,
    connection: Option<Connection>,
    /// Since when there has been no master; now, while there is one.
    masterless: Instant,
}

impl<G, R: Routes> Pulse<G, R> {
    /// Asks once; says how long to wait until the next time.
    async fn beat(&mut self) -> Duration {
        let Some(master) = self.site.routes.current().1 else {
            self.connection = None;
            self.watch.want();
            return match self.masterless.elapsed() < LOOK_OFTEN_FOR {
                true => LOOK_EVERY,
                false => ASK_EVERY,
            };
        };
        if !self.is_master(&master).await {
            self.watch.want();
        }
        self.masterless = Instant::now();
        ASK_EVERY
    }

    async fn is_master(&mut self, master: &str) -> bool {
        let within = self.site.connect_timeout;
        let known = self.connection.take();
        let known = known.filter(|known| known.is_usable() && known.node().as_ref() == master);
        let mut connection = match known {
            Some(known) => known,
            None => {
                let opened =
                    Connection::open(&master.into(), &self.site.credentials, NAME, within).await;
                match opened {
                    Ok(opened) => opened,
                    Err(_) => return false,
                }
            }
        };
        let told = connection.call(&["ROLE"], within).await;
        self.connection = Some(connection);
        let role = told.ok().as_ref().and_then(RoleReply::of);
        matches!(role, Some(RoleReply::Master { .. }))
    }
}
