//! After the promotion: the old master and the other replicas are put behind the target.
//!
//! **Invariant:** an old master is attached only after the plan's condition was judged on a reading
//! made on the same connection immediately before; otherwise it stays fenced.

use std::time::Duration;

use tokio::task::JoinSet;

use crate::resp::reply::{Info, Value};
use crate::switchover::attach::{Attachment, Tail, await_link, compare_tails, is_empty};
use crate::switchover::exec::ask::{Desk, Done, replication};
use crate::switchover::orders::{Change, refused};
use crate::switchover::plan::{Attach, Event, Node, Seen, Settle};
use crate::switchover::preflight::Seat;
use crate::switchover::telling::Telling;
use crate::topology::engine::Engine;
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, NodeError};
use crate::topology::sentinel::Sentinels;

/// A replica beside the target.
pub struct Other {
    pub identity: Identity,
    pub connection: Option<Connection>,
}

impl From<Seat> for Other {
    fn from(seat: Seat) -> Other {
        Other {
            identity: seat.identity,
            connection: Some(seat.connection),
        }
    }
}

/// How the old master is to be attached.
#[derive(Clone, Copy, Debug)]
pub struct Demotion {
    pub attach: Attach,
    pub settle: Settle,
    pub unpause: bool,
    pub within: Duration,
}

impl Desk {
    pub async fn demote(self, at_hand: Option<Connection>, order: Demotion) -> Done {
        match self.demoted(at_hand, order).await {
            Ok((connection, event, words)) => Done {
                connection: Some(connection),
                event,
                words,
            },
            // The node's own no leaves the connection in step, but a fresh one costs little here.
            Err(NodeError::Refused { text, .. }) => Done {
                connection: None,
                event: Event::DemoteRefused,
                words: Some(text),
            },
            Err(error) => {
                let words = Some(error.to_string());
                Done {
                    connection: None,
                    event: Event::Lost(Node::Old),
                    words,
                }
            }
        }
    }

    async fn demoted(
        &self,
        at_hand: Option<Connection>,
        order: Demotion,
    ) -> Result<(Connection, Event, Option<String>), NodeError> {
        let (settled, target) = tokio::join!(
            self.settled(Node::Old, at_hand, order.settle),
            self.standing_target()
        );
        let (mut old, mut info) = settled?;
        let (mut target, target_info) = match target {
            Ok(target) => target,
            Err(error) => return Ok((old, Event::DemoteRefused, Some(error.to_string()))),
        };
        if self.seen(Node::Old, &info) == Some(Seen::Master) {
            // Restarted with an old config: it must stop being a master before anything else.
            match self
                .orders
                .fence(&mut old, &self.sink, None, self.read_within)
                .await
            {
                Change::Done(_) => info = replication(&mut old, self.read_within).await?,
                Change::NotDone(words) | Change::Unclear(words) => {
                    return Ok((old, Event::DemoteRefused, Some(words)));
                }
            }
        }
        if order.unpause {
            old.call(&["CLIENT", "UNPAUSE"], self.read_within).await?;
        }
        match self.seen(Node::Old, &info) {
            Some(Seen::Follows) => {
                self.rewrite_config(&mut old).await;
                return Ok((old, Event::Demoted, None));
            }
            Some(Seen::Fenced) => {}
            // Somebody else is in charge of it now; it is not ours to attach.
            Some(_) => {
                let words = "the old master follows somebody else".to_owned();
                return Ok((old, Event::Leaked { by: 0 }, Some(words)));
            }
            None => {
                let words = "the old master shows no role".to_owned();
                return Ok((old, Event::DemoteRefused, Some(words)));
            }
        }
        let leak = self.leak(&mut old, &info, order.attach, &mut target, &target_info);
        if let Some(by) = leak.await? {
            return Ok((old, Event::Leaked { by }, None));
        }
        self.orders
            .attach(&mut old, &self.target.name, order.within)
            .await?;
        let info = replication(&mut old, self.read_within).await?;
        if self.seen(Node::Old, &info) != Some(Seen::Follows) {
            let words = "it does not show the new master".to_owned();
            return Ok((old, Event::DemoteRefused, Some(words)));
        }
        self.rewrite_config(&mut old).await;
        Ok((old, Event::Demoted, None))
    }

    /// Where wanted. The role is what counts: a file that cannot be written is no reason to retry.
    async fn rewrite_config(&self, node: &mut Connection) {
        if self.rewrites_config {
            let _ = self.orders.rewrite_config(node, self.read_within).await;
        }
    }

    /// A connection to the target, which is seen to be master and to hold what it was promoted
    /// with. Whoever is made to follow a node that restarted empty throws its own copy away.
    async fn standing_target(&self) -> Result<(Connection, Info), NodeError> {
        let name = format!("{}-look", self.name);
        let target = &self.target.name;
        let mut target =
            Connection::open(target, &self.credentials, &name, self.read_within).await?;
        let info = replication(&mut target, self.read_within).await?;
        if self.seen(Node::Target, &info) != Some(Seen::Master) {
            return Err(self.target_refuses("it is no master any more".to_owned()));
        }
        self.holds_enough(&info)?;
        Ok((target, info))
    }

    /// How much the old master holds that the target lacks; `None` when it may be attached.
    async fn leak(
        &self,
        old: &mut Connection,
        info: &Info,
        attach: Attach,
        target: &mut Connection,
        target_info: &Info,
    ) -> Result<Option<u64>, NodeError> {
        let offset: u64 = info.number("master_repl_offset").unwrap_or_default();
        match attach {
            Attach::At(end) if end == offset => Ok(None),
            Attach::At(end) => Ok(Some(offset.saturating_sub(end))),
            Attach::Never { carried } => Ok(Some(offset.saturating_sub(carried))),
            Attach::IfPrefix => self.beyond(old, info, offset, target, target_info).await,
        }
    }

    /// Whether the old master's history is a prefix of the target's; if not, by how much it is past
    /// the common part (0 when that cannot be counted).
    async fn beyond(
        &self,
        old: &mut Connection,
        info: &Info,
        offset: u64,
        target: &mut Connection,
        new: &Info,
    ) -> Result<Option<u64>, NodeError> {
        let number = |name: &str| new.number::<u64>(name);
        if self.orders.engine == Engine::Kvrocks {
            let reached = number("master_repl_offset").unwrap_or_default();
            if offset > reached {
                return Ok(Some(offset - reached));
            }
            let tail = compare_tails(old, target, offset, self.read_within).await?;
            let attaches = match tail {
                Tail::Same => true,
                Tail::Differs => false,
                // Behind a proof the link is evidence enough; without one it is none.
                Tail::Untold => !self.old_was_down,
            };
            return Ok((!attaches).then_some(0));
        }
        if is_empty(old, self.read_within).await? {
            return Ok(None);
        }
        let history = info.get("master_replid");
        if history.is_some() && history == new.get("master_replid") {
            let reached = number("master_repl_offset").unwrap_or_default();
            return Ok((offset > reached).then(|| offset - reached));
        }
        // The first byte of the new history stands at second_repl_offset.
        let before_fork = |info: &Info| {
            let end: u64 = info.number("second_repl_offset").unwrap_or_default();
            end.saturating_sub(1)
        };
        let common = new.get("master_replid2");
        let parted = before_fork(new);
        if history.is_some() && history == common {
            return Ok((offset > parted).then(|| offset - parted));
        }
        // A master that was shut down in order and started again has a history of its own, which
        // goes on from where its files ended.
        if common.is_some() && info.get("master_replid2") == common && before_fork(info) > 0 {
            let ended = before_fork(info);
            let past = (ended.max(offset)).saturating_sub(ended.min(parted));
            return Ok((past > 0).then_some(past));
        }
        Ok(Some(0))
    }

    /// Tells Sentinels of the target while it is master: what becomes of it later is theirs to say.
    /// The answer has what they still are to be told, and why.
    pub async fn tell(
        &self,
        watching: Option<&Sentinels>,
        mut telling: Telling,
        within: Duration,
    ) -> (Telling, Vec<String>) {
        let Some(watching) = watching.filter(|_| !telling.untold().is_empty()) else {
            return (telling, Vec::new());
        };
        if let Err(error) = self.standing_target().await {
            return (telling, vec![error.to_string()]);
        }
        let failed = telling.attempt(watching, &self.credentials, within).await;
        (telling, failed)
    }

    /// Makes every other replica follow the target, all at once. Those that do already are left
    /// alone.
    pub async fn repoint(self, others: Vec<Other>, within: Duration) -> (Vec<Other>, Vec<String>) {
        let mut target = match self.standing_target().await {
            Ok((target, _)) => target,
            Err(error) => return (others, vec![error.to_string()]),
        };
        let mut running = JoinSet::new();
        for other in others {
            let desk = self.clone();
            running.spawn(async move { desk.repoint_one(other, within).await });
        }
        let (mut back, mut failed) = (Vec::new(), Vec::new());
        for (other, words) in running.join_all().await {
            back.push(other);
            failed.extend(words);
        }
        self.rewrite_config(&mut target).await;
        (back, failed)
    }

    async fn repoint_one(&self, other: Other, within: Duration) -> (Other, Option<String>) {
        let Other {
            identity,
            connection,
        } = other;
        let result = async {
            let mut replica = self.connect(connection, &identity.name).await?;
            let follows = |info: &Info| self.seen(Node::Old, info) == Some(Seen::Follows);
            if !follows(&replication(&mut replica, self.read_within).await?) {
                self.orders
                    .repoint(&mut replica, &self.target.name, within)
                    .await?;
                let info = replication(&mut replica, self.read_within).await?;
                if !follows(&info) {
                    let nothing = Value::Null;
                    return Err(refused(&replica, "the new master", &nothing));
                }
            }
            self.rewrite_config(&mut replica).await;
            Ok(replica)
        };
        match result.await {
            Ok(replica) => (
                Other {
                    identity,
                    connection: Some(replica),
                },
                None,
            ),
            Err(error) => (
                Other {
                    identity,
                    connection: None,
                },
                Some(error.to_string()),
            ),
        }
    }
}

/// Waits for the links of all followers at once; the names come back with what was seen.
pub async fn await_links(
    followers: Vec<(Identity, Option<Connection>)>,
    master: &str,
    within: Duration,
) -> Vec<(String, Attachment)> {
    let mut running = JoinSet::new();
    for (at, (identity, connection)) in followers.into_iter().enumerate() {
        let master = master.to_owned();
        running.spawn(async move {
            let attachment = match connection {
                Some(mut connection) => await_link(&mut connection, &master, within).await,
                None => Attachment::Pending { loaded: false },
            };
            (at, identity.name.to_string(), attachment)
        });
    }
    let mut seen = running.join_all().await;
    seen.sort_by_key(|(at, ..)| *at);
    seen.into_iter()
        .map(|(_, name, attachment)| (name, attachment))
        .collect()
}
