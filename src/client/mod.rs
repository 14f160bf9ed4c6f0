//! The data path, downstream: client -> session -> gate -> lane or pinned connection.
//!
//! * [`listener`]: accepts and hands each connection to the least busy worker.
//! * [`seat`]: what one worker holds of one shard: gate, route, lanes, pool, limits.
//! * [`busy_poll`]: keeps a worker awake while it serves few clients.
//! * [`counts`]: what a worker counts, for telemetry.
//! * [`links`]: one worker's connections to one node.
//! * [`session`]: the loop of one client: read a batch, scan, gate, upstream.
//! * [`outbox`]: the client's write half; replies leave through it in order.
//! * [`stand_in`]: where reads go while there is no master.
//! * [`state`]: what a session is to the server and what it has open there.
//! * [`cursors`]: which node a cursor of `SCAN` came from.
//! * [`local`]: commands that the proxy answers itself.
//! * [`failover`]: `FAILOVER`, where it means the proxy's own switchover.
//! * [`pause`]: what is known of a pause that a client has set.
//! * [`registry`]: the live sessions of a shard over all workers, and the way to reach them.
//! * [`presence`]: what other sessions may see of a session.
//! * [`roster`]: the lines of `CLIENT LIST`.
//! * [`heard`]: what a session makes of the server's replies about the session.
//! * [`kill`]: whom a `CLIENT KILL` means.
//! * [`scripts`]: scripts that clients have sent, for the next master.
//! * [`withheld`]: what was answered from a refusal on.
//! * [`relay`]: a session on a pinned connection.
//!
//! **Invariant:** nothing here knows of switchovers. A session sees a gate that holds writes and
//! a route whose epoch changes.

pub mod busy_poll;
pub mod counts;
pub mod cursors;
pub mod failover;
pub mod heard;
pub mod kill;
pub mod links;
pub mod listener;
pub mod local;
pub mod outbox;
pub mod pause;
pub mod presence;
pub mod registry;
pub mod relay;
pub mod roster;
pub mod scripts;
pub mod seat;
pub mod session;
pub mod stand_in;
pub mod state;
pub mod withheld;
