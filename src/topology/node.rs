//! One control connection to one node: dial, authenticate, name itself, ask.
//!
//! Owns its socket and keeps nothing else. Every call is one write and as many replies as commands,
//! within a deadline. **Invariant:** a connection that missed a deadline or broke is never used
//! again, because its next reply would answer an older question; and every error says whether the
//! command may have executed, which decides between retrying and resolving.

mod subscription;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use crate::config::{Secret, ShardConfig};
use crate::resp::reply::{ReplyDecoder, ReplyError, Value};
use crate::resp::scan::write_request;
pub use crate::topology::engine::{Abilities, Engine, Version};
pub use crate::topology::facts::NodeFacts;
use crate::transport::{Dialer, Stream};
pub use subscription::Subscription;

/// `host:port` as the config names the node.
pub type NodeName = Arc<str>;

/// What a control connection reaches a node with.
/// Clones share it: what is renewed counts for every connection that is opened from then on.
#[derive(Clone, Debug, Default)]
pub struct Credentials {
    login: Arc<ArcSwap<Login>>,
    /// How it gets there.
    pub dialer: Dialer,
}

/// Who the proxy is to the nodes.
#[derive(Debug, Default)]
struct Login {
    username: Option<String>,
    password: Option<Secret>,
}

impl Credentials {
    pub fn of(shard: &ShardConfig) -> Credentials {
        let credentials = Credentials::default();
        credentials.renew(shard);
        credentials
    }

    /// Of the Sentinels, who are reached as the nodes are but may know us otherwise.
    pub fn of_sentinels(shard: &ShardConfig) -> Credentials {
        let credentials = Credentials::default();
        credentials.renew_sentinels(shard);
        credentials
    }

    /// [`Credentials::renew`] for those of the Sentinels.
    pub fn renew_sentinels(&self, shard: &ShardConfig) {
        let sentinel = shard.sentinel.as_ref();
        let username = sentinel.and_then(|sentinel| sentinel.username.clone());
        let password = sentinel.and_then(|sentinel| sentinel.password.clone());
        self.login.store(Arc::new(Login { username, password }));
        self.dialer.set(shard.upstream_tls.clone());
    }

    /// In plain TCP.
    pub fn new(username: Option<String>, password: Option<Secret>) -> Credentials {
        let credentials = Credentials::default();
        credentials
            .login
            .store(Arc::new(Login { username, password }));
        credentials
    }

    /// From now on connections are opened as the shard's config says.
    pub fn renew(&self, shard: &ShardConfig) {
        let (username, password) = (shard.username.clone(), shard.password.clone());
        self.login.store(Arc::new(Login { username, password }));
        self.dialer.set(shard.upstream_tls.clone());
    }

    /// What others need to be us: AUTH's user, if one is named, and password.
    pub fn login(&self) -> (Option<String>, Option<Secret>) {
        let login = self.login.load();
        (login.username.clone(), login.password.clone())
    }

    /// The user's name on the nodes.
    pub fn user(&self) -> String {
        let login = self.login.load();
        login.username.as_deref().unwrap_or("default").to_owned()
    }
}

/// The arguments of one command.
pub fn words(args: &[&str]) -> Vec<Bytes> {
    args.iter()
        .map(|arg| Bytes::copy_from_slice(arg.as_bytes()))
        .collect()
}

/// A control connection, authenticated and named.
pub struct Connection {
    node: NodeName,
    stream: Stream,
    local: SocketAddr,
    peer: SocketAddr,
    decoder: ReplyDecoder,
    out: BytesMut,
    usable: bool,
    client_id: Option<i64>,
    name: String,
    named: bool,
}

impl Connection {
    /// Dials, logs in and calls itself `name` in the node's CLIENT LIST, all within `within`.
    pub async fn open(
        node: &NodeName,
        credentials: &Credentials,
        name: &str,
        within: Duration,
    ) -> Result<Connection, NodeError> {
        let unreachable = |reason: String| NodeError::Unreachable {
            node: node.clone(),
            reason,
        };
        let deadline = Instant::now() + within;
        let stream = timeout_at(deadline, credentials.dialer.connect(node))
            .await
            .map_err(|_| unreachable(too_late(credentials, within)))?
            .map_err(|error| unreachable(error.to_string()))?;
        let socket = stream.socket();
        let addresses = socket
            .local_addr()
            .and_then(|local| Ok((local, socket.peer_addr()?)));
        let (local, peer) = addresses.map_err(|error| unreachable(error.to_string()))?;
        let mut connection = Connection {
            node: node.clone(),
            stream,
            local,
            peer,
            decoder: ReplyDecoder::default(),
            out: BytesMut::new(),
            usable: true,
            client_id: None,
            name: name.to_owned(),
            named: false,
        };
        let left = deadline.saturating_duration_since(Instant::now());
        connection.introduce(credentials, left).await?;
        Ok(connection)
    }

    /// AUTH, CLIENT SETNAME and CLIENT ID in one write. Only a refused AUTH is an error: a user may
    /// be forbidden to name its connection and still be of use.
    async fn introduce(
        &mut self,
        credentials: &Credentials,
        within: Duration,
    ) -> Result<(), NodeError> {
        let mut commands = Vec::new();
        let login = credentials.login.load_full();
        let auth = login.password.as_ref().map(|password| {
            let user = login.username.as_deref();
            ["AUTH"]
                .into_iter()
                .chain(user)
                .chain([password.expose()])
                .collect::<Vec<_>>()
        });
        commands.extend(auth.as_deref().map(words));
        commands.push(words(&["CLIENT", "SETNAME", &self.name]));
        commands.push(words(&["CLIENT", "ID"]));
        let values = self.call_many(&commands, within).await?;
        if auth.is_some()
            && let Some(text) = values.first().and_then(Value::error)
        {
            let (node, text) = (self.node.clone(), text.to_owned());
            return Err(NodeError::Credentials { node, text });
        }
        // Without a password the node may still ask for one; say so here, not at the first use.
        let last = values.last();
        if let Some(text) = last
            .and_then(Value::error)
            .filter(|text| text.starts_with("NOAUTH"))
        {
            let (node, text) = (self.node.clone(), text.to_owned());
            return Err(NodeError::Credentials { node, text });
        }
        self.client_id = last.and_then(Value::number);
        self.named = values.iter().rev().nth(1).is_some_and(Value::is_ok);
        Ok(())
    }

    pub fn node(&self) -> &NodeName {
        &self.node
    }

    /// Our end of the connection: an address of this host that the node can be told to reach.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    pub fn peer_addr(&self) -> SocketAddr {
        self.peer
    }

    /// The id that the node gave this connection.
    pub fn client_id(&self) -> Option<i64> {
        self.client_id
    }

    pub fn name(&self) -> &str {
        &self.name
    }

    /// Whether the node shows this connection under its name and id, so that it can be found and
    /// closed there from another one.
    pub fn is_traceable(&self) -> bool {
        self.named && self.client_id.is_some()
    }

    pub fn is_usable(&self) -> bool {
        self.usable
    }

    /// Sends all commands in one write and reads as many replies. Error replies are values.
    pub async fn call_many(
        &mut self,
        commands: &[Vec<Bytes>],
        within: Duration,
    ) -> Result<Vec<Value>, NodeError> {
        self.begin(commands)?;
        let deadline = Instant::now() + within;
        let mut sent = 0;
        let result = timeout_at(deadline, self.exchange(commands.len(), &mut sent)).await;
        match result {
            Ok(Ok(values)) => {
                self.usable = true;
                Ok(values)
            }
            Ok(Err(cause)) => Err(cause.on(&self.node, sent > 0)),
            Err(_) => Err(NodeError::Deadline {
                node: self.node.clone(),
                within_ms: within.as_millis() as u64,
                sent: sent > 0,
            }),
        }
    }

    /// [`Connection::call_many`] for commands made of text.
    pub async fn call_words(
        &mut self,
        commands: &[&[&str]],
        within: Duration,
    ) -> Result<Vec<Value>, NodeError> {
        let commands: Vec<Vec<Bytes>> = commands.iter().map(|args| words(args)).collect();
        self.call_many(&commands, within).await
    }

    /// One command, one reply.
    pub async fn call(&mut self, args: &[&str], within: Duration) -> Result<Value, NodeError> {
        let mut values = self.call_words(&[args], within).await?;
        Ok(values.pop().unwrap_or(Value::Null))
    }

    /// One command whose only good reply is OK.
    pub async fn order(&mut self, args: &[&str], within: Duration) -> Result<(), NodeError> {
        let value = self.call(args, within).await?;
        if value.is_ok() {
            return Ok(());
        }
        Err(NodeError::Refused {
            node: self.node.clone(),
            command: args.iter().take(2).copied().collect::<Vec<_>>().join(" "),
            text: value.error().unwrap_or("not OK").to_owned(),
        })
    }

    /// Closes other connections on the node, by the ids that its CLIENT LIST shows. Nobody learns
    /// from the answers which were gone already: whoever has to know lists them again.
    pub async fn kill_clients(&mut self, ids: &[u64], within: Duration) -> Result<(), NodeError> {
        let kill = |id: &u64| words(&["CLIENT", "KILL", "ID", &id.to_string()]);
        let kills: Vec<Vec<Bytes>> = ids.iter().map(kill).collect();
        self.call_many(&kills, within).await?;
        Ok(())
    }

    /// Encodes the request. Until the last reply has been read the connection counts as unusable,
    /// so that a call whose future is dropped half-way leaves no connection out of step.
    fn begin(&mut self, commands: &[Vec<Bytes>]) -> Result<(), NodeError> {
        if !std::mem::replace(&mut self.usable, false) || !self.decoder.is_empty() {
            let reason = "an earlier call on this connection was not answered".to_owned();
            return Err(NodeError::Broken {
                node: self.node.clone(),
                reason,
                sent: false,
            });
        }
        self.out.clear();
        for command in commands {
            write_request(&mut self.out, command);
        }
        Ok(())
    }

    async fn exchange(&mut self, replies: usize, sent: &mut usize) -> Result<Vec<Value>, Cause> {
        while let Some(rest) = self.out.get(*sent..).filter(|rest| !rest.is_empty()) {
            match self.stream.write(rest).await? {
                0 => return Err(Cause::Closed),
                count => *sent += count,
            }
        }
        self.stream.flush().await?;
        let mut values = Vec::with_capacity(replies);
        while values.len() < replies {
            match self.decoder.next_value()? {
                Some(value) => values.push(value),
                None if self.stream.read_buf(self.decoder.buffer()).await? == 0 => {
                    return Err(Cause::Closed);
                }
                None => {}
            }
        }
        Ok(values)
    }
}

/// A node that waits for RESP says nothing to a TLS handshake.
fn too_late(credentials: &Credentials, within: Duration) -> String {
    let within_ms = within.as_millis();
    if credentials.dialer.is_tls() {
        return format!("no TLS connection within {within_ms} ms; is that its TLS port?");
    }
    format!("no connection within {within_ms} ms")
}

/// Why an exchange ended early, before it is known which node and how much was sent.
enum Cause {
    Closed,
    Io(std::io::Error),
    Reply(ReplyError),
}

impl Cause {
    fn on(self, node: &NodeName, sent: bool) -> NodeError {
        let node = node.clone();
        match self {
            Cause::Closed => NodeError::Broken {
                node,
                reason: "the node closed it".to_owned(),
                sent,
            },
            Cause::Io(error) => NodeError::Broken {
                node,
                reason: error.to_string(),
                sent,
            },
            Cause::Reply(source) => NodeError::Protocol { node, source },
        }
    }
}

impl From<std::io::Error> for Cause {
    fn from(error: std::io::Error) -> Cause {
        Cause::Io(error)
    }
}

impl From<ReplyError> for Cause {
    fn from(error: ReplyError) -> Cause {
        Cause::Reply(error)
    }
}

/// What went wrong between the proxy and a node.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NodeError {
    /// No connection came about: nothing was sent, anything may be retried.
    #[error("{node} cannot be reached: {reason}; check that it runs and its address")]
    Unreachable { node: NodeName, reason: String },
    /// The node does not let us in: nothing was executed, retrying is of no use.
    #[error("{node} refused our credentials: {text}; set username and password of the shard")]
    Credentials { node: NodeName, text: String },
    /// The connection broke. With `sent` the commands may have executed all the same.
    #[error("the connection to {node} broke: {reason}")]
    Broken {
        node: NodeName,
        reason: String,
        sent: bool,
    },
    /// No answer in time. With `sent` the commands may still execute, even later.
    #[error("{node} did not answer within {within_ms} ms")]
    Deadline {
        node: NodeName,
        within_ms: u64,
        sent: bool,
    },
    /// The answer was no RESP; what the commands did is unknown.
    #[error("the answer of {node} could not be read: {source}")]
    Protocol { node: NodeName, source: ReplyError },
    /// The node answered with an error: the command was not executed.
    #[error("{node} refused {command}: {text}")]
    Refused {
        node: NodeName,
        command: String,
        text: String,
    },
}

impl NodeError {
    /// Whether a command of the call may have been executed, or may be yet.
    pub fn may_have_executed(&self) -> bool {
        match self {
            NodeError::Unreachable { .. } | NodeError::Credentials { .. } => false,
            NodeError::Broken { sent, .. } | NodeError::Deadline { sent, .. } => *sent,
            NodeError::Protocol { .. } => true,
            NodeError::Refused { .. } => false,
        }
    }
}
