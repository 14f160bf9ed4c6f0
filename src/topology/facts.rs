//! What one node says about itself, read in one write.
//!
//! Owns the meaning of INFO and ROLE of every engine. **Invariant:** an offset here is always the
//! node's own and live; what a master knows about its replicas is up to a second old and is never
//! used to prove anything.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::resp::reply::{Info, RoleReply, Value};
use crate::topology::engine::{Engine, Version, identify};
use crate::topology::node::{Connection, NodeError, NodeName};

/// One node as it described itself.
#[derive(Clone, Debug)]
pub struct NodeFacts {
    pub node: NodeName,
    pub engine: Engine,
    pub version: Version,
    pub life: Life,
    pub mode: Mode,
    pub role: Role,
    /// The master's own offset, or what a replica has applied. `None` on a Redis replica that has
    /// no link and no history.
    pub offset: Option<u64>,
    /// Redis' `master_replid`; Kvrocks has none.
    pub history: Option<String>,
    /// Redis' `master_replid2`: the history that this one goes on from.
    pub history_before: Option<String>,
    /// Where that one ended.
    pub history_before_end: Option<u64>,
    /// `ip:port` of attached replicas, as the node lists them. May be stale; for warnings only.
    pub attached: Vec<String>,
    pub loading: bool,
    pub backlog_bytes: Option<u64>,
    pub syncs: SyncCounters,
}

/// One run of a server. The next one knows only what is in its files: a role that was ordered and
/// not written there is forgotten.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Life {
    /// Redis and Valkey draw one at each start.
    pub run_id: Option<String>,
    pub process_id: Option<u64>,
    pub uptime_s: Option<u64>,
}

impl Life {
    /// As INFO server tells it.
    pub fn of(server: &Info) -> Life {
        Life {
            run_id: server.get("run_id").map(str::to_owned),
            process_id: server.number("process_id"),
            uptime_s: server.number("uptime_in_seconds"),
        }
    }

    /// Whether `later`, seen `after` this one, is another run. In containers a process id says
    /// little, hence the uptime; it counts whole seconds.
    pub fn ended_before(&self, later: &Life, after: Duration) -> bool {
        if self.run_id.is_some() || later.run_id.is_some() {
            return self.run_id != later.run_id;
        }
        let too_short = later
            .uptime_s
            .is_some_and(|uptime_s| uptime_s + 2 < after.as_secs());
        self.process_id != later.process_id || too_short
    }
}

/// How the server runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Standalone,
    Cluster,
    Sentinel,
}

/// Master, or replica of whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    Master,
    Replica { host: String, port: u16, link: Link },
}

impl Role {
    /// The role as INFO replication tells it.
    pub fn of(info: &Info) -> Option<Role> {
        match info.get("role")? {
            "master" => Some(Role::Master),
            "slave" => {
                let link = match info.get("master_link_status") {
                    _ if info.is("master_sync_in_progress", "1") => Link::Sync,
                    Some("up") => Link::Up,
                    _ => Link::Down,
                };
                let host = info.get("master_host")?.to_owned();
                Some(Role::Replica {
                    host,
                    port: info.number("master_port")?,
                    link,
                })
            }
            _ => None,
        }
    }

    /// `host:port` of the master that a replica follows.
    pub fn follows(&self) -> Option<String> {
        match self {
            Role::Master => None,
            Role::Replica { host, port, .. } => Some(join(host, *port)),
        }
    }

    pub fn is_master(&self) -> bool {
        *self == Role::Master
    }
}

/// The replication link of a replica to its master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Link {
    Up,
    Down,
    Sync,
}

/// How many replicas attached to this node by which kind of synchronisation since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SyncCounters {
    pub full: u64,
    pub partial: u64,
}

impl SyncCounters {
    pub fn of(stats: &Info) -> SyncCounters {
        let number = |name| stats.number(name).unwrap_or_default();
        SyncCounters {
            full: number("sync_full"),
            partial: number("sync_partial_ok"),
        }
    }
}

const SECTIONS: [&str; 4] = ["server", "replication", "persistence", "stats"];

impl NodeFacts {
    pub async fn read(connection: &mut Connection, within: Duration) -> Result<Self, NodeError> {
        // One command per section: Redis before 7 knows one section per INFO.
        let mut commands: Vec<&[&str]> = Vec::new();
        let infos = SECTIONS.map(|section| ["INFO", section]);
        commands.extend(infos.iter().map(|info| info.as_slice()));
        commands.push(&["ROLE"]);
        let values = connection.call_words(&commands, within).await?;
        let node = connection.node().clone();
        NodeFacts::of(node.clone(), &values).ok_or_else(|| NodeError::Refused {
            text: values
                .iter()
                .find_map(Value::error)
                .unwrap_or("no INFO replication")
                .to_owned(),
            command: "INFO".to_owned(),
            node,
        })
    }

    fn of(node: NodeName, values: &[Value]) -> Option<NodeFacts> {
        let info = |at: usize| values.get(at).and_then(Info::of);
        let (server, replication) = (info(0)?, info(1)?);
        let (persistence, stats) = (info(2).unwrap_or_default(), info(3).unwrap_or_default());
        let (engine, version) = identify(&server);
        let told = values.get(4).and_then(RoleReply::of);
        let mode = match server.get("redis_mode") {
            _ if told == Some(RoleReply::Sentinel) => Mode::Sentinel,
            Some("sentinel") => Mode::Sentinel,
            Some("cluster") => Mode::Cluster,
            _ => Mode::Standalone,
        };
        // While it restores, Kvrocks' INFO has no replication section and ROLE alone answers.
        let role = Role::of(&replication).or_else(|| told.as_ref().and_then(role_of))?;
        let own_offset = match role {
            Role::Master => replication.number("master_repl_offset"),
            Role::Replica { .. } => replication.number("slave_repl_offset"),
        };
        let attached = replication
            .numbered("slave")
            .filter_map(attached_address)
            .collect();
        Some(NodeFacts {
            node,
            engine,
            version,
            life: Life::of(&server),
            mode,
            role,
            offset: own_offset.or_else(|| told.as_ref().and_then(offset_of)),
            history: replication.get("master_replid").map(str::to_owned),
            history_before: replication.get("master_replid2").map(str::to_owned),
            // The first byte of this history, which is -1 while there has been no other.
            history_before_end: replication
                .number("second_repl_offset")
                .and_then(|first: u64| first.checked_sub(1)),
            attached,
            loading: is_loading(&persistence),
            backlog_bytes: replication.number("repl_backlog_size"),
            syncs: SyncCounters::of(&stats),
        })
    }
}

/// `loading` of both engines, and the flag of an asynchronous load.
fn is_loading(persistence: &Info) -> bool {
    persistence.is("loading", "1") || persistence.is("async_loading", "1")
}

fn role_of(told: &RoleReply) -> Option<Role> {
    match told {
        RoleReply::Master { .. } => Some(Role::Master),
        RoleReply::Replica {
            host, port, state, ..
        } => {
            let link = match state.as_str() {
                "connected" => Link::Up,
                "sync" => Link::Sync,
                _ => Link::Down,
            };
            Some(Role::Replica {
                host: host.clone(),
                port: *port,
                link,
            })
        }
        RoleReply::Sentinel => None,
    }
}

fn offset_of(told: &RoleReply) -> Option<u64> {
    match told {
        RoleReply::Master { offset } | RoleReply::Replica { offset, .. } => *offset,
        RoleReply::Sentinel => None,
    }
}

/// `ip:port` of a `slave0:ip=..,port=..,state=..` value.
fn attached_address(value: &str) -> Option<String> {
    let field = |name: &str| {
        value
            .split(',')
            .find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='))
    };
    Some(join(field("ip")?, field("port")?.parse().ok()?))
}

/// `host:port`, with brackets around an IPv6 address.
pub fn join(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Host and port of `host:port`, without the brackets of an IPv6 address.
pub fn split(address: &str) -> Option<(&str, &str)> {
    let (host, port) = address.rsplit_once(':')?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    Some((bare.unwrap_or(host), port))
}

#[cfg(test)]
impl NodeFacts {
    /// A Redis node with this role, and nothing else of note.
    pub fn example(node: NodeName, role: Role) -> Self {
        Self {
            node,
            engine: Engine::Redis,
            version: Version(7, 0, 0),
            life: Life::default(),
            mode: Mode::Standalone,
            role,
            offset: Some(1),
            history: None,
            history_before: None,
            history_before_end: None,
            attached: Vec::new(),
            loading: false,
            backlog_bytes: None,
            syncs: SyncCounters::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn facts(replication: &'static str) -> NodeFacts {
        let text = |text: &'static str| Value::Bulk(Bytes::from_static(text.as_bytes()));
        let values = [
            text("redis_version:7.0.15\r\nredis_mode:standalone"),
            text(replication),
            text("loading:0\r\nasync_loading:0"),
            text("sync_full:2\r\nsync_partial_ok:3"),
            Value::Error("NOPERM".into()),
        ];
        NodeFacts::of("n:1".into(), &values).unwrap()
    }

    #[test]
    fn a_replica_is_described_by_its_own_offset_and_link() {
        let seen = facts(
            "role:slave\r\nmaster_host:10.0.0.1\r\nmaster_port:7\r\nmaster_link_status:up\r\n\
             master_sync_in_progress:0\r\nslave_repl_offset:99\r\nmaster_repl_offset:50",
        );
        assert_eq!(seen.offset, Some(99));
        assert_eq!(seen.role.follows().as_deref(), Some("10.0.0.1:7"));
        assert!(matches!(seen.role, Role::Replica { link: Link::Up, .. }));
        assert_eq!(
            seen.syncs,
            SyncCounters {
                full: 2,
                partial: 3
            }
        );
    }

    #[test]
    fn a_restart_is_told_by_run_id_or_else_by_process_and_uptime() {
        let life = |run_id: Option<&str>, process_id, uptime_s| Life {
            run_id: run_id.map(str::to_owned),
            process_id: Some(process_id),
            uptime_s: Some(uptime_s),
        };
        let hour = Duration::from_secs(3600);
        let redis = life(Some("a"), 1, 5);
        assert!(!redis.ended_before(&life(Some("a"), 1, 5), hour));
        assert!(redis.ended_before(&life(Some("b"), 1, 9000), hour));
        let kvrocks = life(None, 1, 5);
        assert!(!kvrocks.ended_before(&life(None, 1, 3605), hour));
        assert!(kvrocks.ended_before(&life(None, 2, 3605), hour));
        assert!(kvrocks.ended_before(&life(None, 1, 60), hour));
    }

    #[test]
    fn a_master_lists_who_is_attached() {
        let seen = facts(
            "role:master\r\nmaster_repl_offset:50\r\nslave0:ip=::1,port=8,state=online,offset=1",
        );
        assert_eq!((seen.offset, seen.role.is_master()), (Some(50), true));
        assert_eq!(seen.attached, ["[::1]:8"]);
    }

    #[test]
    fn addresses_split_and_join_with_and_without_brackets() {
        for address in ["[::1]:6379", "db.example:6379"] {
            let (host, port) = split(address).unwrap();
            assert_eq!(join(host, port.parse().unwrap()), address);
        }
    }
}
