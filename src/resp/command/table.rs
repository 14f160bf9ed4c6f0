//! The command table, as data: what every command that the proxy knows may do.
//!
//! One line per command, grouped by what it works on: [`data`] for keys and values, [`server`] for
//! the connection and the server, [`containers`] for commands with subcommands, [`kvrocks`] and
//! [`modules`] for what only some servers have. A name stands in one place only, whoever implements
//! it; where servers disagree, the strictest of them decides.
//!
//! **Invariant:** a row says `READ` only when the command is known to change nothing that is
//! replicated, on every server that has it. What goes by a lane and is no write is asked again when
//! its connection breaks: what has an effect, even one that is not replicated, goes another way. A
//! row says nothing about arity: a known command with a wrong number of arguments gets one error
//! from the server, as it would without the proxy.

use super::policy::{Group, Ruled};
use super::{Class, Local, Path, Pin, Verdict};

mod containers;
mod data;
mod kvrocks;
mod modules;
mod server;

/// A command that is the same whatever its arguments are.
pub(super) type Row = (&'static str, Verdict);

/// A command with subcommands: its name, what it is without any, and the subcommands.
pub(super) type Container = (&'static str, Verdict, &'static [Row]);

/// A command that blocks if `BLOCK` stands before `STREAMS`: its name, without it, with it.
pub(super) type Blockable = (&'static str, Verdict, Verdict);

pub(super) const ROWS: [&[Row]; 4] = [data::ROWS, server::ROWS, kvrocks::ROWS, modules::ROWS];
pub(super) const CONTAINERS: &[Container] = containers::CONTAINERS;
pub(super) const BLOCKABLES: &[Blockable] = &[
    ("XREAD", READ, pinned(Class::Blocking, Pin::Blocking)),
    ("XREADGROUP", MAY_WRITE, BLOCKING_WRITE),
];

/// What is known of a command that is in no table: nothing, so everything is assumed of it.
pub(super) const UNKNOWN: Verdict = pinned_write(Class::Write, Pin::Sticky);

const READ: Verdict = lane(Class::Read, false);
const WRITE: Verdict = lane(Class::Write, true);
/// Reads or writes by its arguments, its script or the state of the key.
const MAY_WRITE: Verdict = lane(Class::MayWrite, true);
const SCRIPT: Verdict = pinned_write(Class::MayWrite, Pin::OneShot);
const PUBLISH: Verdict = lane(Class::PubSub, true);
const ADMIN: Verdict = lane(Class::Admin, false);
/// A command with subcommands, without one: the server answers with an error.
const ARITY_ERROR: Verdict = ADMIN;

const BLOCKING_WRITE: Verdict = pinned_write(Class::Blocking, Pin::Blocking);
/// A step of an iteration.
const STEP: Verdict = pinned(Class::Read, Pin::Scan);
const READ_ONE_SHOT: Verdict = pinned(Class::Read, Pin::OneShot);
const WRITE_ONE_SHOT: Verdict = pinned_write(Class::Write, Pin::OneShot);
const ADMIN_ONE_SHOT: Verdict = pinned(Class::Admin, Pin::OneShot);
const ADMIN_WRITE: Verdict = pinned_write(Class::Admin, Pin::OneShot);

const PAUSE: Verdict = pinned_write(Class::Admin, Pin::Pause);
const UNPAUSE: Verdict = pinned_write(Class::Admin, Pin::Unpause);
const STICKY: Verdict = pinned(Class::Session, Pin::Sticky);
const TUNNEL: Verdict = pinned(Class::Admin, Pin::Tunnel);

const REFUSAL_OF_REPLICATION: &str = "ERR this is a command of the replication protocol and is refused by pointsman: \
     attach replicas to a node itself";

/// The replication protocol until the connection is a replica's.
const OF_REPLICATION: Verdict = ruled(&Ruled {
    group: Group::Replication,
    refusal: REFUSAL_OF_REPLICATION,
    passed: STICKY,
});
/// From here on the connection is a replica's.
const REPLICATES: Verdict = ruled(&Ruled {
    group: Group::Replication,
    refusal: REFUSAL_OF_REPLICATION,
    passed: TUNNEL,
});
/// A raw write of the replication protocol.
const APPLIES: Verdict = ruled(&Ruled {
    group: Group::Replication,
    refusal: REFUSAL_OF_REPLICATION,
    passed: UNKNOWN,
});

const fn lane(class: Class, writes: bool) -> Verdict {
    Verdict {
        class,
        writes,
        path: Path::Lane,
    }
}

const fn pinned(class: Class, pin: Pin) -> Verdict {
    Verdict {
        class,
        writes: false,
        path: Path::Pinned(pin),
    }
}

const fn pinned_write(class: Class, pin: Pin) -> Verdict {
    Verdict {
        class,
        writes: true,
        path: Path::Pinned(pin),
    }
}

const fn local(class: Class, local: Local) -> Verdict {
    Verdict {
        class,
        writes: false,
        path: Path::Local(local),
    }
}

const fn ruled(ruled: &'static Ruled) -> Verdict {
    Verdict {
        class: ruled.passed.class,
        writes: ruled.passed.writes,
        path: Path::Ruled(ruled),
    }
}

/// A command that the operator decides about: its group, what it is when it is let through, and the
/// text to refuse it with otherwise.
macro_rules! by_policy {
    ($group:ident, $passed:expr, $command:literal, $instead:literal) => {
        super::ruled(&crate::resp::command::policy::Ruled {
            group: crate::resp::command::policy::Group::$group,
            refusal: concat!("ERR ", $command, " is refused by pointsman: ", $instead),
            passed: $passed,
        })
    };
}
use by_policy;
