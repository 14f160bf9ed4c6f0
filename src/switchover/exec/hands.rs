//! The executor's hands on the data path: the writing halves of a shard's gate and route.

use std::time::Duration;

use super::{Gates, HoldStats, Opening, Routes};
use crate::shard::gate::GateState;
use crate::shard::gate_control::GateControl;
use crate::shard::route::{Habits, Life, RouteControl};
use crate::topology::engine::Engine;
use crate::topology::node::NodeName;

impl Gates for GateControl {
    async fn hold(&self, deadline: Duration) -> Result<(), String> {
        GateControl::hold(self, deadline)
            .await
            .map_err(|failed| failed.to_string())
    }

    async fn release(&self, to: Opening) -> HoldStats {
        let state = match to {
            Opening::Open => GateState::Open,
            Opening::Shut => GateState::Shut,
        };
        GateControl::release(self, state).await
    }

    async fn move_receivers(&self) {
        GateControl::move_receivers(self).await;
    }

    async fn prepare(&self, node: &str, deadline: Duration) -> Result<(), String> {
        GateControl::prepare(self, node, deadline).await
    }
}

impl Routes for RouteControl {
    fn publish(&self, master: Option<&str>, replicas: &[String]) -> u64 {
        RouteControl::publish(self, master, replicas)
    }

    fn suit(&self, engine: Engine) {
        RouteControl::suit(self, habits_of(engine));
    }

    fn saw(&self, lives: Vec<(NodeName, String)>) {
        let life = |(node, run_id): (NodeName, String)| Life {
            node: node.as_ref().into(),
            run_id: run_id.into(),
        };
        RouteControl::saw(self, lives.into_iter().map(life).collect());
    }

    fn may_stand_in(&self, nodes: &[NodeName]) {
        let nodes = nodes.iter().map(|node| node.as_ref().into());
        RouteControl::may_stand_in(self, nodes.collect());
    }

    fn current(&self) -> (u64, Option<String>) {
        let route = RouteControl::current(self);
        (route.epoch, route.master.as_deref().map(str::to_owned))
    }
}

/// Redis and Valkey execute on one thread: a second connection only splits the batches. Kvrocks
/// executes a connection on one of its worker threads and may wait for the disk there; and its
/// blocked clients hang on when its role changes.
fn habits_of(engine: Engine) -> Habits {
    match engine {
        Engine::Redis | Engine::Valkey => Habits::default(),
        Engine::Kvrocks => Habits {
            lanes: 4,
            lets_go: false,
            reads_scripts_alone: true,
            pushes_messages: false,
        },
    }
}
