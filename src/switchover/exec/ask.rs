//! Single effects on single nodes: orders go out, events come back.
//!
//! Each function owns its connection while it runs and hands it back only when it is in step with
//! the node. **Invariant:** an answer that is missing or makes no sense becomes `Lost`, never
//! success and never refusal; the connection that carried it is given up.

use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use crate::resp::reply::{Info, Value};
use crate::switchover::attach::is_empty;
use crate::switchover::claim::Claim;
use crate::switchover::exec::measure::unix_ms;
use crate::switchover::orders::{Change, Orders, SinkAddress, refused};
use crate::switchover::plan::{Event, Node, Seen, Settle};
use crate::switchover::resolve::settle;
use crate::topology::engine::Engine;
use crate::topology::facts::{Life, Link, Role};
use crate::topology::identity::Identity;
use crate::topology::node::{Connection, Credentials, NodeError, NodeName};

/// On Kvrocks a woken blocked client may still pop behind the fence: two readings this far apart
/// see it.
const READINGS_APART: Duration = Duration::from_millis(2);

/// How every connection of one operation is made, and how the nodes are known.
#[derive(Clone, Debug)]
pub struct Desk {
    pub credentials: Credentials,
    pub operation: String,
    /// `pointsman-<operation>`.
    pub name: String,
    pub orders: Orders,
    pub sink: SinkAddress,
    pub old: Identity,
    pub target: Identity,
    /// The run of the old master that the journal knows, and when; a recovery alone asks.
    pub old_life: Option<(Life, u64)>,
    /// What the target was last seen to hold. A master that holds less has restarted without its
    /// data: it never counts as promoted, and nobody is made to follow it.
    pub target_holds: u64,
    /// The old master was out of reach, and nothing is proven about it.
    pub old_was_down: bool,
    /// `config_rewrite`: roles go into the nodes' own config files.
    pub rewrites_config: bool,
    /// Deadline of a read, a pause, a fence and of dialling.
    pub read_within: Duration,
    /// Deadline of leaving the fence and of settling: Kvrocks joins a thread for 0.1 to 1 s.
    pub undo_within: Duration,
    /// Deadline of the promotion: 10 s on Kvrocks when the target's link is broken.
    pub promote_within: Duration,
}

/// What one effect came to.
pub struct Done {
    /// In step with its node, or given up.
    pub connection: Option<Connection>,
    pub event: Event,
    /// The server's own words, where something did not go as ordered.
    pub words: Option<String>,
}

impl Done {
    fn lost(node: Node, words: String) -> Done {
        Done {
            connection: None,
            event: Event::Lost(node),
            words: Some(words),
        }
    }

    fn said(connection: Connection, event: Event, words: Option<String>) -> Done {
        Done {
            connection: Some(connection),
            event,
            words,
        }
    }
}

/// Under which claim an effect that changes roles runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claims {
    /// That of the whole operation.
    Held,
    /// One of its own.
    Each,
}

impl Desk {
    /// The claim that an effect relying on the role of `node` runs under. `Err` says who owns it.
    pub async fn claim(&self, claims: Claims, node: Node) -> Result<Claim, String> {
        match claims {
            Claims::Held => Ok(Claim::default()),
            Claims::Each => {
                let node = &self.identity(node).name;
                let (credentials, within) = (&self.credentials, self.read_within);
                let claim = Claim::of(&[node], credentials, &self.operation, within).await?;
                match claim.nodes() {
                    0 => Err(format!("{node} could not be claimed against other proxies")),
                    _ => Ok(claim),
                }
            }
        }
    }

    /// Runs `effect`, which `node` is to answer, under a claim on the node whose role it relies on;
    /// without one it counts as lost, and is tried again.
    pub async fn claimed(
        self,
        claims: Claims,
        relied_on: Node,
        node: Node,
        effect: impl Future<Output = Done>,
    ) -> Done {
        match self.claim(claims, relied_on).await {
            Ok(_claim) => effect.await,
            Err(barred) => Done::lost(node, barred),
        }
    }

    pub fn identity(&self, node: Node) -> &Identity {
        match node {
            Node::Old => &self.old,
            Node::Target => &self.target,
        }
    }

    /// The connection at hand, or a fresh one to `node`.
    pub async fn connect(
        &self,
        at_hand: Option<Connection>,
        node: &NodeName,
    ) -> Result<Connection, NodeError> {
        match at_hand.filter(Connection::is_usable) {
            Some(connection) => Ok(connection),
            None => Connection::open(node, &self.credentials, &self.name, self.read_within).await,
        }
    }

    /// What `node` turned out to be, by INFO replication; `None` while it shows no role.
    pub fn seen(&self, node: Node, info: &Info) -> Option<Seen> {
        let role = Role::of(info)?;
        let other = match node {
            Node::Old => &self.target,
            Node::Target => &self.old,
        };
        Some(match &role {
            Role::Master => Seen::Master,
            Role::Replica { host, port, .. }
                if *host == self.sink.host && *port == self.sink.port =>
            {
                Seen::Fenced
            }
            role if other.is_followed_by(role) => Seen::Follows,
            Role::Replica { .. } => Seen::Foreign,
        })
    }

    pub async fn pause(self, at_hand: Option<Connection>, length: Duration) -> Done {
        let mut connection = match self.connect(at_hand, &self.old.name).await {
            Ok(connection) => connection,
            Err(error) => return Done::lost(Node::Old, error.to_string()),
        };
        match self
            .orders
            .pause(&mut connection, length, self.read_within)
            .await
        {
            Ok(()) => Done::said(connection, Event::Paused, None),
            Err(NodeError::Refused { text, .. }) => {
                Done::said(connection, Event::PauseRefused, Some(text))
            }
            Err(error) => Done::lost(Node::Old, error.to_string()),
        }
    }

    pub async fn fence(self, at_hand: Option<Connection>) -> Done {
        let mut connection = match self.connect(at_hand, &self.old.name).await {
            Ok(connection) => connection,
            Err(error) => return Done::lost(Node::Old, error.to_string()),
        };
        let change = self
            .orders
            .fence(&mut connection, &self.sink, None, self.read_within)
            .await;
        match change {
            Change::Done(offset) => Done::said(connection, Event::Fenced { offset }, None),
            Change::NotDone(words) if connection.is_usable() => {
                Done::said(connection, Event::FenceRefused, Some(words))
            }
            Change::NotDone(words) | Change::Unclear(words) => Done::lost(Node::Old, words),
        }
    }

    pub async fn read_old(
        self,
        at_hand: Option<Connection>,
        unpause: bool,
        not_before: Option<Instant>,
    ) -> Done {
        if let Some(at) = not_before {
            sleep_until(at + READINGS_APART).await;
        }
        let mut connection = match self.connect(at_hand, &self.old.name).await {
            Ok(connection) => connection,
            Err(error) => return Done::lost(Node::Old, error.to_string()),
        };
        match self.read(&mut connection, Node::Old, unpause).await {
            Ok((seen, offset, _)) => Done::said(connection, Event::OldRead { offset, seen }, None),
            Err(error) => Done::lost(Node::Old, error.to_string()),
        }
    }

    pub async fn read_target(self, at_hand: Option<Connection>) -> Done {
        let mut connection = match self.connect(at_hand, &self.target.name).await {
            Ok(connection) => connection,
            Err(error) => return Done::lost(Node::Target, error.to_string()),
        };
        match self.read(&mut connection, Node::Target, false).await {
            Ok((seen, offset, link_up)) => Done::said(
                connection,
                Event::TargetRead {
                    offset,
                    seen,
                    link_up,
                },
                None,
            ),
            Err(error) => Done::lost(Node::Target, error.to_string()),
        }
    }

    /// Role, own offset and link, in one write.
    async fn read(
        &self,
        connection: &mut Connection,
        node: Node,
        unpause: bool,
    ) -> Result<(Seen, u64, bool), NodeError> {
        let mut asked: Vec<&[&str]> = Vec::with_capacity(2);
        if unpause {
            asked.push(&["CLIENT", "UNPAUSE"]);
        }
        asked.push(&["INFO", "replication"]);
        let value = connection.call_words(&asked, self.read_within).await?.pop();
        let value = value.unwrap_or(Value::Null);
        let read = Info::of(&value).and_then(|info| {
            let link = Role::of(&info)?;
            // What a replica has applied is its own field; a fenced master still counts its log.
            let offset = match node {
                Node::Target => info.number("slave_repl_offset"),
                Node::Old => None,
            };
            let offset = offset.or_else(|| info.number("master_repl_offset"))?;
            let link_up = matches!(link, Role::Replica { link: Link::Up, .. });
            Some((self.seen(node, &info)?, offset, link_up))
        });
        read.ok_or_else(|| refused(connection, "INFO replication", &value))
    }

    pub async fn promote(self, at_hand: Option<Connection>) -> Done {
        let mut connection = match self.connect(at_hand, &self.target.name).await {
            Ok(connection) => connection,
            // Nothing was sent, but the plan knows one word for a target that is out of reach, and
            // settling it finds out that nothing happened.
            Err(error) => return Done::lost(Node::Target, error.to_string()),
        };
        match self
            .orders
            .promote(&mut connection, self.promote_within)
            .await
        {
            Change::Done(_) => Done::said(connection, Event::Promoted, None),
            Change::NotDone(words) if connection.is_usable() => {
                Done::said(connection, Event::PromotionRefused, Some(words))
            }
            Change::NotDone(words) | Change::Unclear(words) => Done::lost(Node::Target, words),
        }
    }

    pub async fn settle(self, node: Node, at_hand: Option<Connection>) -> Done {
        match self.found(node, at_hand).await {
            Ok((connection, seen)) => Done::said(connection, Event::Settled(node, seen), None),
            Err(error) => Done::lost(node, error.to_string()),
        }
    }

    /// What a settled node turned out to be, told apart from what a restart made of it.
    async fn found(
        &self,
        node: Node,
        at_hand: Option<Connection>,
    ) -> Result<(Connection, Seen), NodeError> {
        let (mut connection, info) = self.settled(node, at_hand, Settle::First).await?;
        let seen = self
            .seen(node, &info)
            .ok_or_else(|| refused(&connection, "INFO replication", &Value::Null))?;
        match (node, seen) {
            (Node::Target, Seen::Master) => self.holds_enough(&info)?,
            (Node::Old, Seen::Master) if self.is_reborn(&mut connection).await? => {
                if self.target_holds > 0 && self.lost_all(&mut connection).await? {
                    return Err(self.old_refuses());
                }
                return Ok((connection, Seen::Reborn));
            }
            _ => {}
        }
        Ok((connection, seen))
    }

    /// Whether a node that restarted has come back without its data. (Kvrocks keeps its own.)
    async fn lost_all(&self, node: &mut Connection) -> Result<bool, NodeError> {
        Ok(self.orders.engine != Engine::Kvrocks && is_empty(node, self.read_within).await?)
    }

    fn old_refuses(&self) -> NodeError {
        NodeError::Refused {
            node: self.old.name.clone(),
            command: "to lead again".to_owned(),
            text: "it restarted without its data; promote a node that has them".to_owned(),
        }
    }

    /// Promotes a replica whose master is out of reach, when both still are what they were seen to
    /// be.
    pub async fn promote_alone(self, at_hand: Option<Connection>) -> Done {
        let name = format!("{}-look", self.name);
        let old = &self.old.name;
        if Connection::open(old, &self.credentials, &name, self.read_within)
            .await
            .is_ok()
        {
            let words = format!("{old} answers again");
            return Done {
                connection: at_hand,
                event: Event::PromotionRefused,
                words: Some(words),
            };
        }
        let mut connection = match self.connect(at_hand, &self.target.name).await {
            Ok(connection) => connection,
            Err(error) => return Done::lost(Node::Target, error.to_string()),
        };
        match self.read(&mut connection, Node::Target, false).await {
            Ok((Seen::Follows | Seen::Foreign, offset, false)) if offset >= self.target_holds => {}
            Ok((_, offset, link_up)) => {
                let words = format!(
                    "{} is not what it was any more: at {offset}, {} before, link {}",
                    self.target.name,
                    self.target_holds,
                    if link_up { "up" } else { "down" }
                );
                return Done::said(connection, Event::PromotionRefused, Some(words));
            }
            Err(error) => return Done::lost(Node::Target, error.to_string()),
        }
        self.promote(Some(connection)).await
    }

    /// On the connection that told the role, so that both are of one run.
    async fn is_reborn(&self, old: &mut Connection) -> Result<bool, NodeError> {
        let Some((life, at_ms)) = &self.old_life else {
            return Ok(false);
        };
        let value = old.call(&["INFO", "server"], self.read_within).await?;
        let server = Info::of(&value).ok_or_else(|| refused(old, "INFO server", &value))?;
        let after = Duration::from_millis(unix_ms().saturating_sub(*at_ms));
        Ok(life.ended_before(&Life::of(&server), after))
    }

    /// Whether a target that says master can be the one that was promoted.
    pub fn holds_enough(&self, info: &Info) -> Result<(), NodeError> {
        let offset: u64 = info.number("master_repl_offset").unwrap_or_default();
        if offset >= self.target_holds {
            return Ok(());
        }
        Err(self.target_refuses(format!(
            "it restarted as master at offset {offset} and held {} before; make it a replica of \
             {} again",
            self.target_holds, self.old.name
        )))
    }

    pub fn target_refuses(&self, text: String) -> NodeError {
        NodeError::Refused {
            node: self.target.name.clone(),
            command: "to lead".to_owned(),
            text,
        }
    }

    /// A connection beside which no other one of this operation lives, and the role behind that.
    pub async fn settled(
        &self,
        node: Node,
        at_hand: Option<Connection>,
        first: Settle,
    ) -> Result<(Connection, Info), NodeError> {
        let mut connection = self.connect(at_hand, &self.identity(node).name).await?;
        let info = match first {
            Settle::First => settle(&mut connection, self.undo_within).await?,
            Settle::No => replication(&mut connection, self.read_within).await?,
        };
        Ok((connection, info))
    }

    pub async fn restore(
        self,
        at_hand: Option<Connection>,
        first: Settle,
        unfence: bool,
        unpause: bool,
    ) -> Done {
        match self.restored(at_hand, first, unfence, unpause).await {
            Ok((connection, seen)) => Done::said(connection, Event::Restored(seen), None),
            Err(error) => Done::lost(Node::Old, error.to_string()),
        }
    }

    async fn restored(
        &self,
        at_hand: Option<Connection>,
        first: Settle,
        unfence: bool,
        unpause: bool,
    ) -> Result<(Connection, Seen), NodeError> {
        let (mut connection, mut info) = self.settled(Node::Old, at_hand, first).await?;
        let fenced = self.seen(Node::Old, &info) == Some(Seen::Fenced);
        if unpause {
            // Its own error says that there is nothing to end.
            connection
                .call(&["CLIENT", "UNPAUSE"], self.read_within)
                .await?;
        }
        if unfence && fenced {
            if let Change::Unclear(_) = self.orders.unfence(&mut connection, self.undo_within).await
                && !connection.is_usable()
            {
                let node = connection.node().clone();
                let reason = "no answer to the end of the fence".to_owned();
                return Err(NodeError::Broken {
                    node,
                    reason,
                    sent: true,
                });
            }
            info = replication(&mut connection, self.read_within).await?;
        }
        match self.seen(Node::Old, &info) {
            Some(seen) => Ok((connection, seen)),
            None => Err(refused(&connection, "INFO", &Value::Null)),
        }
    }
}

/// INFO replication of a node.
pub async fn replication(connection: &mut Connection, within: Duration) -> Result<Info, NodeError> {
    let value = connection.call(&["INFO", "replication"], within).await?;
    Info::of(&value).ok_or_else(|| refused(connection, "INFO replication", &value))
}
