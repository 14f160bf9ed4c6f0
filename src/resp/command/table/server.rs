//! Commands without subcommands that concern the connection or the server rather than a key.

use super::{
    ADMIN, ADMIN_ONE_SHOT, ADMIN_WRITE, OF_REPLICATION, PUBLISH, REPLICATES, Row, WRITE_ONE_SHOT,
    by_policy, local, pinned, pinned_write,
};
use crate::resp::command::Class::{Admin, Blocking, PubSub, Read, Session, Transaction};
use crate::resp::command::{Local, Pin, SubKind};

// One command per line and a blank line between the groups.
#[rustfmt::skip]
pub(super) const ROWS: &[Row] = &[
    // The session itself.
    ("AUTH", local(Session, Local::Auth)),
    ("HELLO", local(Session, Local::Hello)),
    ("SELECT", local(Session, Local::Select)),
    ("RESET", local(Session, Local::Reset)),
    ("QUIT", local(Session, Local::Quit)),

    // Modes of the connection in a cluster; ASKING lasts for exactly one command.
    ("READONLY", local(Session, Local::ReadOnly)),
    ("READWRITE", local(Session, Local::ReadWrite)),
    ("ASKING", pinned(Session, Pin::Sticky)),

    // Transactions. A transaction is held at its EXEC, which is where it writes.
    ("MULTI", pinned(Transaction, Pin::Multi)),
    ("EXEC", pinned_write(Transaction, Pin::Exec)),
    ("DISCARD", pinned(Transaction, Pin::Discard)),
    ("WATCH", pinned(Transaction, Pin::Watch)),
    ("UNWATCH", pinned(Transaction, Pin::Unwatch)),

    // Waiting for replicas counts the writes of one connection, so it can't share one.
    ("WAIT", pinned(Blocking, Pin::Wait)),
    ("WAITAOF", pinned(Blocking, Pin::Wait)),

    // Pub/sub. A message published behind the fence would reach nobody: publishing is a write.
    ("SUBSCRIBE", pinned(PubSub, Pin::Subscribe(SubKind::Channel))),
    ("PSUBSCRIBE", pinned(PubSub, Pin::Subscribe(SubKind::Pattern))),
    ("SSUBSCRIBE", pinned(PubSub, Pin::Subscribe(SubKind::Shard))),
    ("UNSUBSCRIBE", pinned(PubSub, Pin::Unsubscribe(SubKind::Channel))),
    ("PUNSUBSCRIBE", pinned(PubSub, Pin::Unsubscribe(SubKind::Pattern))),
    ("SUNSUBSCRIBE", pinned(PubSub, Pin::Unsubscribe(SubKind::Shard))),
    ("PUBLISH", PUBLISH),
    ("SPUBLISH", PUBLISH),
    ("MPUBLISH", PUBLISH),
    ("MONITOR", pinned(Admin, Pin::Monitor)),

    // Questions about the server: a node that stands in for it would speak of itself.
    ("PING", ADMIN),
    ("ECHO", ADMIN),
    ("TIME", ADMIN),
    ("ROLE", ADMIN),
    ("INFO", local(Read, Local::Info)),
    ("LASTSAVE", ADMIN),
    ("LOLWUT", ADMIN),

    // Administration that is the operator's own business; some of it takes long.
    ("SAVE", ADMIN_ONE_SHOT),
    ("BGSAVE", ADMIN_ONE_SHOT),
    ("BGREWRITEAOF", ADMIN_ONE_SHOT),
    ("PFSELFTEST", ADMIN_ONE_SHOT),
    ("HOTKEYS", ADMIN_ONE_SHOT),

    // What would change or stop the master behind the proxy's back.
    ("REPLICAOF", by_policy!(Replicaof, ADMIN_WRITE, "REPLICAOF", "the master is changed with `pointsman switchover`")),
    ("SLAVEOF", by_policy!(Replicaof, ADMIN_WRITE, "SLAVEOF", "the master is changed with `pointsman switchover`")),
    ("FAILOVER", by_policy!(Failover, ADMIN_WRITE, "FAILOVER", "the master is changed with `pointsman switchover`")),
    ("SHUTDOWN", by_policy!(Shutdown, ADMIN_WRITE, "SHUTDOWN", "switch over, then stop the node on its own address")),

    // The replication protocol, which turns the connection into something else.
    ("SYNC", REPLICATES),
    ("PSYNC", REPLICATES),
    ("REPLCONF", OF_REPLICATION),
    ("RESTORE-ASKING", by_policy!(Cluster, WRITE_ONE_SHOT, "RESTORE-ASKING", "slots are moved between the nodes themselves")),

    // How an HTTP request begins that was aimed at a Redis port. The server hangs up on it, because
    // the body, which a browser can be made to send, would be read as commands.
    ("POST", local(Session, Local::HangUp)),
    ("HOST:", local(Session, Local::HangUp)),
];
