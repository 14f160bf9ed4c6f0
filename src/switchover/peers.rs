//! The proxies of one shard talk through its nodes, so that a switchover of one is a switchover of
//! all.
//!
//! Owns the channel `__pointsman__:<shard>`. Without it another proxy learns of a switchover when
//! its writes are refused, or within 100 ms: its readers see what is older than what was
//! acknowledged elsewhere, and what is published through it behind the fence reaches nobody.
//!
//! # The protocol
//!
//! DRIVER is the proxy that carries out an operation, PEER any other.
//!
//! 1. Before its hold DRIVER asks OLD who listens there ([`census`]) and, right before it, how many
//!    do (`PUBSUB NUMSUB`). Alone: no word is said. Otherwise it publishes HOLD, and counts again.
//! 2. PEER holds its writes and waits for the replies to those under way, then publishes ACK hold.
//!    Meanwhile it dials the target and warms its lanes to it.
//! 3. DRIVER fences when all have acknowledged. `drain_timeout_ms` late: `silent_proxies` decides
//!    whether it is undone, or goes on and says so in the report.
//! 4. After the promotion DRIVER publishes ROUTE. PEER asks the target, and OLD, who they are; when
//!    the one is master and the other is not, it swaps its route, moves those who receive messages,
//!    and publishes ACK route. Nobody lets a write go on yet.
//! 5. When all have acknowledged, or `follow_timeout_ms` are over, DRIVER releases and publishes
//!    RELEASE. So no write is acknowledged by the target while a proxy still reads from OLD, and no
//!    message is published there while somebody's subscribers wait elsewhere.
//! 6. An operation that is undone ends with RELEASE, too.
//!
//! PEER gives up by itself when the time in HOLD is over, at most after its own `pause_timeout_ms`,
//! and no more often than [`allowance`] has it. Then it does what it would do without the channel.
//! Two that drive at once are kept apart by [`claim`](super::claim): HOLD ends the order of one
//! that has not begun to hold itself.
//!
//! **Invariants:** a message is a hint. It makes nobody route to a node that does not say itself
//! that it is master, and holds nobody for longer than the limit. Nothing that is heard is kept
//! without a limit.
//!
//! # Trade-offs
//!
//! * Every proxy listens on *every* node, not only on its master: nothing has to be moved when the
//!   master changes, a proxy whose route is behind is counted all the same, and ROUTE is heard when
//!   OLD dies right behind the fence. It costs two idle connections per node; and what is published
//!   on a master is heard again from its replicas, which is noticed by the operation's id.
//! * `PUBSUB NUMSUB` counts instead of the answer to `PUBLISH`, which also counts clients that
//!   listen to everything (`PSUBSCRIBE *`). It also counts strangers on the channel, and
//!   connections that broke and that OLD has not missed yet; `CLIENT LIST` tells them from proxies,
//!   by their names. That list has a line for each subscriber (on Kvrocks: each client), so it is
//!   read before the hold, and what was seen to be no proxy is subtracted from the counts: from one
//!   right before the hold, which costs a proxy that is alone nothing in it, and from one behind
//!   HOLD where there are others. A proxy that comes between list and count is thus told and waited
//!   for, and each that was named is waited for by name, whatever the count says. A list that
//!   cannot be had leaves the count alone.
//! * A proxy without a name (`CLIENT SETNAME` forbidden to its user) counts as a stranger although
//!   it acknowledges: nobody waits for it, beside strangers alone nothing is said at all, and its
//!   ACK may stand for that of a proxy that came behind the list. One without a name that drives
//!   does not find itself in the list, and goes by the count.
//! * The list does not say which channel somebody listens to: proxies of another shard on the same
//!   nodes have the names of proxies. More of them than strangers do not fit the count, which then
//!   counts alone: rightly, unless there are strangers. Beside as many strangers they are waited
//!   for by name, and undo the switchover as silent proxies do.
//! * Two more round trips between proxies are in the hold, one before the fence and one behind the
//!   promotion. Medians of switchovers at 10 000 writes/s of 2 KB, all proxies, servers and
//!   clients on two cores: held for 0.8 ms alone (100) and 2.9 ms beside two others (10), of which
//!   0.2 and 1.0 ms go up to the fence (`make bench-switchover BENCH_ARGS="-n 10 --others 2"`).
//!   Letting the others follow behind the release would save half, and is what it is there to
//!   avoid.
//! * A forged ACK makes the driver believe that somebody holds: it costs what the channel gives,
//!   and nothing else. The fence proves every write without it.
//! * HOLD names the target, which is not known to be master yet: for dialling only.

mod allowance;
mod call;
mod census;
mod channel;
mod message;
mod part;

pub use allowance::Allowance;
pub use call::Roll;
pub use census::Census;
pub use channel::{Heard, Links, Peers};
pub use message::{MESSAGE_BYTES_MAX, Message, Saying, Step};
pub use part::{End, Part, Then};
