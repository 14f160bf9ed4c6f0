//! What a command may do: whether the gate holds it, and which way it goes.
//!
//! The proxy trusts its own table only. A command that is not in it is taken for a write that
//! changes its connection, because the two mistakes are not alike: a read held for some
//! milliseconds costs latency, a write let through behind the fence costs data, and an unforeseen
//! command on a shared connection costs its neighbours their replies. What a server says of itself
//! (`COMMAND`) may make a verdict stricter, never laxer: Kvrocks flags read-only what writes.
//!
//! **Invariant:** [`Path::Lane`] is given only to commands that answer exactly once and //!
//! connection as it was, and unless they write may be asked twice.: false` is given only to
//! commands that change nothing replicated.
//!
//! Trade-offs: a verdict is made from the name and a few arguments, without the keys and without
//! asking which server is behind. A `GETEX` without options is held although it only reads. Two
//! things are taken as they are meant, not as they could be used: on Kvrocks a script runs on its
//! caller's connection and could change it (`redis.call('HELLO', 3)`) before the next session gets
//! it, and its `EVAL_RO` lets `ZDIFFSTORE` and `PUBLISH` through.
//!
//! Measured on two busy shared cores (`benches/command.rs`): 7 ns a command in a mix of 16
//! commands, 12 to 15 ns for one, 25 ns with a subcommand, under 50 ns at worst.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing)]

use self::index::Rule;
use self::policy::Ruled;
use self::table::UNKNOWN;

mod index;
pub mod policy;
mod table;

/// What kind of command it is, for metrics, logs and whoever has to explain a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// Asks for data, and changes nothing that is replicated: every node that has the data could
    /// answer.
    Read,
    /// Changes data, or is not known.
    Write,
    /// Changes data or not, by its arguments, its script or the state of the key.
    MayWrite,
    /// May answer after a long time, when somebody else has done something.
    Blocking,
    /// Asks for or changes what the server keeps for one connection.
    Session,
    /// `MULTI` and what belongs to it.
    Transaction,
    /// Subscribing and publishing.
    PubSub,
    /// About the server rather than its data.
    Admin,
    /// Not passed on.
    Refused,
}

/// The way that a command takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// A shared connection: one reply, nothing left behind.
    Lane,
    /// A connection of the session's own.
    Pinned(Pin),
    /// The session answers, with or without asking the server for it.
    Local(Local),
    /// An error: its full text, without the leading `-` and the line end.
    Refused(&'static str),
    /// As the operator has decided: [`policy::Policy::settle`] says which of the above.
    Ruled(&'static Ruled),
}

/// Why a command needs a connection of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    Multi,
    Exec,
    Discard,
    Watch,
    Unwatch,
    /// Answers when its key has something, or at its time-out.
    Blocking,
    /// Answers for the writes that this connection made.
    Wait,
    Subscribe(SubKind),
    Unsubscribe(SubKind),
    Monitor,
    /// Client-side caching: the connection will receive invalidations.
    Tracking,
    /// `CLIENT PAUSE`: while it lasts, nobody may wait on a shared connection.
    Pause,
    /// `CLIENT UNPAUSE`.
    Unpause,
    /// Turns the connection into something that is not requests and replies.
    Tunnel,
    /// A step of an iteration: its cursor belongs to the node that gave it.
    Scan,
    /// One reply and a clean connection; scripts that were known are not any more.
    ScriptFlush,
    /// Leaves behind what nobody knows: the connection is never given back.
    Sticky,
    /// One reply and a clean connection, but possibly slow, huge or not to be queued.
    OneShot,
}

/// Which name space a subscription is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubKind {
    Channel,
    Pattern,
    Shard,
}

/// Commands about the session itself: the server would speak of the proxy's connection. Most are
/// asked of the server all the same, which decides whether they are right and allowed, and its
/// reply is told in the session's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Local {
    Auth,
    Hello,
    Select,
    Reset,
    Quit,
    /// An HTTP request: nothing behind it may be read.
    HangUp,
    ClientId,
    ClientInfo,
    ClientList,
    ClientKill,
    ClientUnblock,
    ClientGetName,
    ClientSetName,
    ClientSetInfo,
    ClientReply,
    ClientNoEvict,
    ClientNoTouch,
    /// Modes of a connection in a cluster.
    ReadOnly,
    ReadWrite,
    ClientGetRedir,
    ClientTrackingInfo,
    /// `FAILOVER` where it means the proxy's own switchover.
    Failover,
    /// `CLIENT CAPA redirect` would turn READONLY errors into redirections past the proxy.
    ClientCapa,
    /// It says how many clients there are.
    Info,
}

impl Local {
    /// The session answers it, wherever its commands run.
    pub fn needs_no_server(self) -> bool {
        matches!(
            self,
            Self::Quit | Self::HangUp | Self::Reset | Self::ClientReply | Self::Failover
        )
    }

    /// Changes who the session is to the server: what comes next may have to go another way.
    pub fn changes_identity(self) -> bool {
        matches!(self, Self::Auth | Self::Hello | Self::Select)
    }
}

/// What is to be done with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    pub class: Class,
    /// The gate holds it.
    pub writes: bool,
    pub path: Path,
}

/// Judges a command by its name and, where it matters, its arguments.
///
/// `args(1)` is the first argument after the name, None when it is not there or not known;
/// `argc` counts the name. What is not known is taken for the worst that it could be.
#[inline]
pub fn classify<'a>(name: &[u8], args: impl Fn(usize) -> Option<&'a [u8]>, argc: usize) -> Verdict {
    match index::find(name) {
        Some(Rule::Always(verdict)) => *verdict,
        Some(Rule::BySubcommand((_, alone, _))) if argc == 1 => *alone,
        Some(Rule::BySubcommand((_, _, known))) => args(1)
            .and_then(|name| subcommand(known, name))
            .unwrap_or(UNKNOWN),
        Some(Rule::ByBlockOption((_, plain, blocking))) => {
            if may_block(args, argc) {
                *blocking
            } else {
                *plain
            }
        }
        None => UNKNOWN,
    }
}

/// Whether a command, or one subcommand of it, stands in the table by name.
pub fn is_known(name: &[u8], sub: Option<&[u8]>) -> bool {
    match (index::find(name), sub) {
        (None, _) => false,
        (Some(_), None) => true,
        (Some(Rule::BySubcommand((_, _, known))), Some(sub)) => subcommand(known, sub).is_some(),
        // HOTKEYS START and its like: the same whatever the subcommand is.
        (Some(Rule::Always(_)), Some(_)) => true,
        (Some(Rule::ByBlockOption(_)), Some(_)) => false,
    }
}

fn subcommand(known: &[table::Row], name: &[u8]) -> Option<Verdict> {
    let row = known
        .iter()
        .find(|(row, _)| row.as_bytes().eq_ignore_ascii_case(name));
    row.map(|&(_, verdict)| verdict)
}

/// Whether XREAD or XREADGROUP has the option BLOCK, or might have it.
///
/// The options are walked as the server walks them, so that a group called "streams" does not end
/// the walk. A group called "block" does count as the option: it is cheaper to be wrong that way.
fn may_block<'a>(args: impl Fn(usize) -> Option<&'a [u8]>, argc: usize) -> bool {
    let mut values_left = 0;
    for at in 1..argc {
        let Some(arg) = args(at) else { return true };
        let is = |option: &[u8]| arg.eq_ignore_ascii_case(option);
        if is(b"BLOCK") {
            return true;
        } else if values_left > 0 {
            values_left -= 1;
        } else if is(b"STREAMS") {
            return false;
        } else if is(b"COUNT") || is(b"CLAIM") {
            values_left = 1;
        } else if is(b"GROUP") {
            values_left = 2;
        } else if !is(b"NOACK") {
            return true;
        }
    }
    // No STREAMS at all is a syntax error, which is answered at once.
    false
}

#[cfg(test)]
mod tests;
