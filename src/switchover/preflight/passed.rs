//! What an operation takes over from its look at the nodes.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::switchover::claim::Claim;
use crate::switchover::orders::{Orders, SinkAddress};
use crate::switchover::plan::Facts;
use crate::switchover::sentinels::Terms;
use crate::switchover::sink::Sink;
use crate::topology::facts::{Life, split};
use crate::topology::identity::Identity;
use crate::topology::node::Connection;

/// Everything an operation goes on with.
pub struct Passed {
    pub facts: Facts,
    pub orders: Orders,
    pub old: Seat,
    pub target: Seat,
    pub others: Vec<Seat>,
    /// `replica-read-only` of the old master, for the journal.
    pub replica_read_only: String,
    pub old_life: Life,
    pub target_offset: u64,
    /// The target's count of full synchronisations so far.
    pub full_syncs: u64,
    pub sink_address: SinkAddress,
    /// The listener behind `sink_address`, where the engine needs one.
    pub sink: Option<Sink>,
    /// What the Sentinels are to be told.
    pub sentinel_terms: Vec<Terms>,
    /// What keeps other proxies off the nodes, where it was asked for.
    pub claim: Claim,
}

impl Passed {
    /// Opens the sink where the engine needs one: at `fence_address` (`host` or `host:port`), or at
    /// our end of the connection to the old master.
    pub async fn with_sink(mut self, fence_address: Option<&str>) -> Result<Passed, String> {
        if !self.orders.needs_listening_sink() {
            return Ok(self);
        }
        let failed = |error: std::io::Error| {
            format!("the sink for the fenced master cannot listen: {error}; check fence_address")
        };
        let connection = &self.old.connection;
        let Some(address) = fence_address else {
            let (local, peer) = (connection.local_addr().ip(), connection.peer_addr().ip());
            let sink = Sink::open(local, 0, Some(peer)).await.map_err(failed)?;
            self.sink_address = SinkAddress::of(sink.address());
            self.sink = Some(sink);
            return Ok(self);
        };
        let named = split(address).and_then(|(host, port)| Some((host, port.parse().ok()?)));
        let (host, port) = named.unwrap_or((address, 0));
        let everywhere = match connection.local_addr().ip() {
            IpAddr::V4(_) => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            IpAddr::V6(_) => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        };
        let sink = Sink::open(everywhere, port, None).await.map_err(failed)?;
        self.sink_address = SinkAddress {
            host: host.to_owned(),
            port: sink.address().port(),
        };
        self.sink = Some(sink);
        Ok(self)
    }
}

/// One node's connection, and the names the node goes by.
pub struct Seat {
    pub connection: Connection,
    pub identity: Identity,
}
