//! The orders that change a role, in the words of each engine, and what counts as their success.
//!
//! Owns the step from "the server said something" to "this is now true". What differs between the
//! engines is in `redis.rs` and `kvrocks.rs`. **Invariant:** a role is judged by what INFO shows
//! after the order, in the same write; an OK alone proves nothing ("OK Already connected to
//! specified master" is no new fence).

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

use crate::resp::reply::{Info, RoleReply, Value};
use crate::switchover::{kvrocks, redis};
use crate::topology::engine::{Abilities, Engine};
use crate::topology::facts::{Role, split};
use crate::topology::node::{Connection, NodeError, words};

/// How the nodes of one shard are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Orders {
    pub engine: Engine,
    pub abilities: Abilities,
}

/// Where a fenced master is told to replicate from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkAddress {
    pub host: String,
    pub port: u16,
}

impl SinkAddress {
    /// Port 1 of the node's own loopback refuses at once and nothing leaves the host. Redis and
    /// Valkey connect asynchronously, so a refused connection costs them nothing.
    ///
    /// All of 127.0.0.0/8 is loopback, and each operation takes an address of its own there: nobody
    /// lifts the fence of another proxy's operation in the belief that it is the own one. (Where
    /// only 127.0.0.1 is configured, as on BSD, the connection is not refused but goes unanswered,
    /// which costs as little.)
    pub fn closed_port(operation: &str) -> SinkAddress {
        // FNV-1a. Two operations in 16 million share an address.
        let hash = operation.bytes().fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
        });
        let [first, second, third, fourth] = hash.to_be_bytes();
        // Neither the network's own address nor one that people use.
        let (second, fourth) = ((first ^ second).max(1), fourth.clamp(1, 254));
        SinkAddress {
            host: format!("127.{second}.{third}.{fourth}"),
            port: 1,
        }
    }

    pub fn of(address: SocketAddr) -> SinkAddress {
        SinkAddress {
            host: address.ip().to_string(),
            port: address.port(),
        }
    }
}

/// What became of a role change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change<T> {
    /// Proven by the role that INFO shows.
    Done(T),
    /// Proven not to have happened: the node shows the role it had.
    NotDone(String),
    /// The answer is missing or contradicts itself: the order may still be executed.
    Unclear(String),
}

/// A replica's own account of how far it is, as ROLE tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reading {
    /// It says that it is master: somebody promoted it.
    Master { offset: Option<u64> },
    /// It follows `of`; `offset` is what it has applied.
    Following {
        of: (String, u16),
        connected: bool,
        offset: Option<u64>,
    },
}

impl Orders {
    /// Asks the node what it knows. Changes nothing there.
    pub async fn probe(
        connection: &mut Connection,
        engine: Engine,
        version: crate::topology::engine::Version,
        within: Duration,
    ) -> Result<Orders, NodeError> {
        let answers = connection.call_words(&Abilities::PROBES, within).await?;
        let abilities = Abilities::from_answers(engine, version, &answers);
        Ok(Orders { engine, abilities })
    }

    pub fn needs_listening_sink(self) -> bool {
        self.engine == Engine::Kvrocks
    }

    /// Holds the writes of clients that bypass the proxy, for `length` at most.
    pub async fn pause(
        self,
        connection: &mut Connection,
        length: Duration,
        within: Duration,
    ) -> Result<(), NodeError> {
        let ms = length.as_millis().to_string();
        connection
            .order(&["CLIENT", "PAUSE", &ms, "WRITE"], within)
            .await
    }

    pub async fn unpause(
        self,
        connection: &mut Connection,
        within: Duration,
    ) -> Result<(), NodeError> {
        connection.order(&["CLIENT", "UNPAUSE"], within).await
    }

    /// Takes the master's role away from the old master, so that it acknowledges no write of
    /// anybody. `Done` carries F, the offset at which it stopped. With `pause` the pause goes in
    /// front and its end behind in the same write.
    pub async fn fence(
        self,
        connection: &mut Connection,
        sink: &SinkAddress,
        pause: Option<Duration>,
        within: Duration,
    ) -> Change<u64> {
        let word = self.abilities.role_command;
        let order = match self.engine {
            Engine::Redis | Engine::Valkey => redis::fence_order(word, sink),
            Engine::Kvrocks => kvrocks::fence_order(word, sink),
        };
        let mut commands = Vec::with_capacity(order.len() + 2);
        let pause = pause.filter(|_| self.abilities.pause);
        if let Some(length) = pause {
            let ms = length.as_millis().to_string();
            commands.push(words(&["CLIENT", "PAUSE", &ms, "WRITE"]));
        }
        commands.extend(order);
        if pause.is_some() {
            commands.push(words(&["CLIENT", "UNPAUSE"]));
        }
        let values = match connection.call_many(&commands, within).await {
            Ok(values) => values,
            Err(error) => return lost(error),
        };
        let around = usize::from(pause.is_some());
        let answers = values
            .get(around..values.len() - around)
            .unwrap_or_default();
        let judged = match self.engine {
            Engine::Redis | Engine::Valkey => redis::fence_answers(answers),
            Engine::Kvrocks => kvrocks::fence_answers(answers),
        };
        match judged {
            Ok((ok, info)) => fenced(&ok, &info, sink),
            Err(reason) => Change::NotDone(reason),
        }
    }

    /// Takes the fence down: the old master is master again, and nothing is paused there.
    pub async fn unfence(self, connection: &mut Connection, within: Duration) -> Change<u64> {
        let mut commands = self.to_master();
        if self.abilities.pause {
            commands.push(words(&["CLIENT", "UNPAUSE"]));
        }
        match connection.call_many(&commands, within).await {
            Ok(values) => now_master(&values),
            Err(error) => lost(error),
        }
    }

    /// Makes the target master. `Done` carries its offset right after.
    pub async fn promote(self, connection: &mut Connection, within: Duration) -> Change<u64> {
        match connection.call_many(&self.to_master(), within).await {
            Ok(values) => now_master(&values),
            Err(error) => lost(error),
        }
    }

    fn to_master(self) -> Vec<Vec<Bytes>> {
        let promote = words(&[self.abilities.role_command, "NO", "ONE"]);
        vec![promote, words(&["INFO", "replication"])]
    }

    /// `REPLICAOF host port` for a node named as in the config.
    pub fn follow(self, master: &str) -> Vec<Bytes> {
        let (host, port) = split(master).unwrap_or((master, "0"));
        words(&[self.abilities.role_command, host, port])
    }
}

/// The offset of a node's own log, whatever its role. On a fenced master this is F.
pub async fn own_offset(connection: &mut Connection, within: Duration) -> Result<u64, NodeError> {
    let value = connection.call(&["INFO", "replication"], within).await?;
    let offset = Info::of(&value).and_then(|info| info.number("master_repl_offset"));
    offset.ok_or_else(|| refused(connection, "INFO replication", &value))
}

/// What a replica has applied, and from whom. Its own word: never the master's list of replicas.
pub async fn read_target(
    connection: &mut Connection,
    within: Duration,
) -> Result<Reading, NodeError> {
    let value = connection.call(&["ROLE"], within).await?;
    match RoleReply::of(&value) {
        Some(RoleReply::Master { offset }) => Ok(Reading::Master { offset }),
        Some(RoleReply::Replica {
            host,
            port,
            state,
            offset,
        }) => {
            let connected = state == "connected";
            Ok(Reading::Following {
                of: (host, port),
                connected,
                offset,
            })
        }
        _ => Err(refused(connection, "ROLE", &value)),
    }
}

/// An answer that was no answer to the question.
pub(super) fn refused(connection: &Connection, command: &str, value: &Value) -> NodeError {
    NodeError::Refused {
        node: connection.node().clone(),
        command: command.to_owned(),
        text: value.error().unwrap_or("unexpected answer").to_owned(),
    }
}

fn lost<T>(error: NodeError) -> Change<T> {
    if error.may_have_executed() {
        Change::Unclear(error.to_string())
    } else {
        Change::NotDone(error.to_string())
    }
}

/// Whether the role change to the sink happened, by the order's own answer and by INFO after it.
fn fenced(answer: &Value, info: &Value, sink: &SinkAddress) -> Change<u64> {
    let said_ok = *answer == Value::Status(Bytes::from_static(b"OK"));
    let refusal = answer.error().unwrap_or("it already followed that address");
    let Some(info) = Info::of(info) else {
        let reason = "the role after the fence could not be read".to_owned();
        return if said_ok {
            Change::Unclear(reason)
        } else {
            Change::NotDone(refusal.to_owned())
        };
    };
    let at_sink = info.is("role", "slave")
        && info.is("master_host", &sink.host)
        && info.is("master_port", &sink.port.to_string());
    match (said_ok && at_sink, info.number("master_repl_offset")) {
        (true, Some(offset)) => Change::Done(offset),
        (true, None) => Change::Unclear("no offset in INFO behind the fence".to_owned()),
        _ if info.is("role", "master") => Change::NotDone(if said_ok {
            "the node says OK and is still master".to_owned()
        } else {
            refusal.to_owned()
        }),
        _ => Change::Unclear(match info.get("master_host") {
            Some(host) => format!("the node follows {host}, not our fence: {refusal}"),
            None => format!("the node shows no role behind the fence: {refusal}"),
        }),
    }
}

/// Whether `NO ONE` and the INFO behind it show a master, and at which offset.
fn now_master(values: &[Value]) -> Change<u64> {
    let refusal = values.first().and_then(Value::error);
    let Some(info) = values.get(1).and_then(Info::of) else {
        return match refusal {
            Some(text) => Change::NotDone(text.to_owned()),
            None => Change::Unclear("the role after the order could not be read".to_owned()),
        };
    };
    match Role::of(&info) {
        Some(Role::Master) => match info.number("master_repl_offset") {
            Some(offset) => Change::Done(offset),
            None => Change::Unclear("the new master shows no offset".to_owned()),
        },
        // An OK and yet a replica: somebody turned it back between the two, or it lies.
        _ => match refusal {
            Some(text) => Change::NotDone(text.to_owned()),
            None => Change::Unclear("the node says OK and is still a replica".to_owned()),
        },
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::net::Ipv4Addr;

    use super::*;

    fn text(text: &str) -> Value {
        Value::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    fn ok(text: &'static str) -> Value {
        Value::Status(Bytes::from_static(text.as_bytes()))
    }

    fn check(answer: Value, info: &str) -> Change<u64> {
        fenced(&answer, &text(info), &sink())
    }

    fn sink() -> SinkAddress {
        SinkAddress {
            host: "127.0.0.1".to_owned(),
            port: 1,
        }
    }

    #[test]
    fn every_operation_has_a_fence_of_its_own() {
        let ids = (0..1000).map(|at| format!("pointsman-20261122T000000Z-{at:04x}"));
        let sinks: HashSet<String> = ids.map(|id| SinkAddress::closed_port(&id).host).collect();
        assert_eq!(sinks.len(), 1000);
        for sink in sinks {
            assert!(sink.parse::<Ipv4Addr>().unwrap().is_loopback(), "{sink}");
        }
    }

    #[test]
    fn only_an_ok_and_our_own_sink_in_info_are_a_fence() {
        let at_sink = "role:slave\nmaster_host:127.0.0.1\nmaster_port:1\nmaster_repl_offset:7";
        assert_eq!(check(ok("OK"), at_sink), Change::Done(7));
        let again = ok("OK Already connected to specified master");
        assert!(matches!(check(again, at_sink), Change::Unclear(_)));
        let elsewhere = "role:slave\nmaster_host:10.0.0.9\nmaster_port:1\nmaster_repl_offset:7";
        assert!(matches!(check(ok("OK"), elsewhere), Change::Unclear(_)));
        let error = Value::Error("NOPERM".to_owned());
        assert_eq!(
            check(error, "role:master"),
            Change::NotDone("NOPERM".to_owned())
        );
    }

    #[test]
    fn a_promotion_is_judged_by_the_role_behind_it() {
        let master = [ok("OK"), text("role:master\nmaster_repl_offset:9")];
        assert_eq!(now_master(&master), Change::Done(9));
        let replica = text("role:slave\nmaster_host:h\nmaster_port:1");
        let turned_back = [ok("OK"), replica.clone()];
        assert!(matches!(now_master(&turned_back), Change::Unclear(_)));
        let refused = [Value::Error("NOPERM".to_owned()), replica];
        assert!(matches!(now_master(&refused), Change::NotDone(_)));
        let unreadable = [ok("OK"), Value::Error("LOADING".to_owned())];
        assert!(matches!(now_master(&unreadable), Change::Unclear(_)));
    }
}
