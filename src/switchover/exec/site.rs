//! Where an operation works: one shard, with the writing halves of its gate and route.
//!
//! Owns the seam between the control path and the objects in which it meets the data path, so that
//! operations can be tested against real servers with a gate that only remembers.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::ArcSwap;

use crate::config::{ProxyConfig, ShardConfig, SwitchoverConfig};
use crate::shard::doubt::Doubts;
pub use crate::shard::gate::HoldStats;
use crate::switchover::journal::Journal;
use crate::switchover::peers::Peers;
use crate::telemetry::SwitchoverMetrics;
use crate::topology::engine::Engine;
use crate::topology::node::{Credentials, NodeName};
use crate::topology::sentinel::Sentinels;

/// Whether writes go on after a release.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// There is a master: the held writes go to it.
    Open,
    /// There is none: writes wait for one as long as their own budget lasts.
    Shut,
}

/// The writing half of a shard's gate.
pub trait Gates: Send + Sync + 'static {
    /// Holds writes everywhere; returns when all admitted ones have ended. The future may be
    /// dropped; a release follows in any case.
    fn hold(&self, deadline: Duration) -> impl Future<Output = Result<(), String>> + Send;
    fn release(&self, to: Opening) -> impl Future<Output = HoldStats> + Send;
    /// A route has been published in a hold: every session that receives messages has them from the
    /// new master when this returns, or is late.
    fn move_receivers(&self) -> impl Future<Output = ()> + Send {
        std::future::ready(())
    }
    /// Opens the lanes to `node` that live sessions will need.
    fn prepare(
        &self,
        node: &str,
        deadline: Duration,
    ) -> impl Future<Output = Result<(), String>> + Send;
}

/// The writing half of a shard's route.
pub trait Routes: Send + Sync + 'static {
    fn publish(&self, master: Option<&str>, replicas: &[String]) -> u64;
    /// The nodes' engine is known: routes published from now on ask for the lanes that suit it.
    fn suit(&self, engine: Engine);
    /// The nodes have been looked at: the run (`run_id`) that each was in.
    fn saw(&self, _lives: Vec<(NodeName, String)>) {}
    /// The same: who may be read from without the master, best first.
    fn may_stand_in(&self, _nodes: &[NodeName]) {}
    /// The epoch and master published last.
    fn current(&self) -> (u64, Option<String>);
}

/// Where an operation works: one shard.
pub struct Site<G, R> {
    pub shard: String,
    pub nodes: Vec<NodeName>,
    pub credentials: Credentials,
    pub gates: G,
    pub routes: R,
    pub journal: Mutex<Journal>,
    switchover: ArcSwap<SwitchoverConfig>,
    pub connect_timeout: Duration,
    pub metrics: SwitchoverMetrics,
    /// Where the data path tells that the master refuses.
    pub doubts: Doubts,
    /// Those that watch the shard and are told of what becomes of it.
    pub sentinels: Option<Arc<Sentinels>>,
    /// The other proxies of the shard; `None` where it has a single node.
    pub peers: Option<Arc<Peers>>,
    /// How long the master must have been out of reach to be replaced; never, where it is `None`.
    pub promote_after: Option<Duration>,
}

impl<G, R> Site<G, R> {
    pub fn new(
        shard: &ShardConfig,
        proxy: &ProxyConfig,
        switchover: &SwitchoverConfig,
        journal: Journal,
        gates: G,
        routes: R,
        doubts: Doubts,
    ) -> Site<G, R> {
        let nodes: Vec<NodeName> = shard
            .nodes
            .iter()
            .map(|node| node.as_str().into())
            .collect();
        Site {
            shard: shard.name.clone(),
            peers: Peers::of(&shard.name, &nodes),
            nodes,
            credentials: Credentials::of(shard),
            gates,
            routes,
            journal: Mutex::new(journal),
            switchover: ArcSwap::from_pointee(switchover.clone()),
            connect_timeout: proxy.connect_timeout,
            metrics: SwitchoverMetrics::new(&shard.name),
            doubts,
            sentinels: Sentinels::of(shard),
            promote_after: shard.promote_after,
        }
    }

    /// `[switchover]`, as it counts at present.
    pub fn switchover(&self) -> Arc<SwitchoverConfig> {
        self.switchover.load_full()
    }

    /// From now on this counts, for the next connection to a node and the next operation. Not
    /// called while one is running.
    pub fn renew(&self, shard: &ShardConfig, switchover: &SwitchoverConfig) {
        self.credentials.renew(shard);
        if let Some(sentinels) = &self.sentinels {
            sentinels.credentials.renew_sentinels(shard);
        }
        self.switchover.store(Arc::new(switchover.clone()));
    }

    /// Every node but `master`.
    pub fn replicas_of(&self, master: Option<&str>) -> Vec<String> {
        let others = self
            .nodes
            .iter()
            .filter(|node| Some(node.as_ref()) != master);
        others.map(|node| node.to_string()).collect()
    }
}
