//! Which node is master: an immutable snapshot, swapped whole.
//!
//! Workers read it through [`arc_swap::Cache`], which costs a plain load where `ArcSwap::load`
//! takes and gives back a reference. The cache revalidates with a relaxed load; that is enough
//! because a worker learns that the gate is open again through its channel, whose receive happens
//! after the route was stored, and because everybody else reaches a worker through a socket.
//!
//! **Invariant:** an epoch names one route for ever; it grows by one at each publication.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};

/// One published answer to "who is master?".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// Counts publications; 0 is the route of a shard whose master is not known yet.
    pub epoch: u64,
    /// `host:port` of the master; `None` while there is no single master.
    pub master: Option<Arc<str>>,
    /// `host:port` of every other node.
    pub replicas: Vec<Arc<str>>,
    /// What suits the nodes' engine.
    pub habits: Habits,
}

/// What the data path has to know of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Habits {
    /// Lanes per worker, identity and use.
    pub lanes: usize,
    /// A node whose role changes lets blocked clients go. Otherwise their commands must be called
    /// back before.
    pub lets_go: bool,
    /// What `EVAL_RO` brings is known to one of the node's threads, not to the node.
    pub reads_scripts_alone: bool,
    /// Messages are pushes in RESP3.
    pub pushes_messages: bool,
}

impl Default for Habits {
    /// Redis: it executes on one thread, and tells blocked clients `UNBLOCKED`.
    fn default() -> Self {
        Self {
            lanes: 1,
            lets_go: true,
            reads_scripts_alone: false,
            pushes_messages: true,
        }
    }
}

/// One run of one node, for the data path: what a process has given out (cursors of `SCAN`) means
/// nothing to the next one on the same address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Life {
    pub node: Arc<str>,
    pub run_id: Arc<str>,
}

/// The writing half: the control path publishes routes with it.
#[derive(Debug)]
pub struct RouteControl {
    route: Arc<ArcSwap<Route>>,
    lives: Arc<ArcSwap<Vec<Life>>>,
    stand_ins: Arc<ArcSwap<Vec<Arc<str>>>>,
    habits: ArcSwap<Habits>,
}

/// The reading half; cheap to clone, one per worker.
#[derive(Debug, Clone)]
pub struct RouteReader {
    route: Arc<ArcSwap<Route>>,
    lives: Arc<ArcSwap<Vec<Life>>>,
    stand_ins: Arc<ArcSwap<Vec<Arc<str>>>>,
}

/// A reader with its own cached snapshot.
pub type RouteCache = Cache<Arc<ArcSwap<Route>>, Arc<Route>>;

/// A route without a master, and both halves of it.
pub fn route() -> (RouteControl, RouteReader) {
    let route = Arc::new(ArcSwap::from_pointee(Route {
        epoch: 0,
        master: None,
        replicas: Vec::new(),
        habits: Habits::default(),
    }));
    let control = RouteControl {
        route: Arc::clone(&route),
        lives: Arc::default(),
        stand_ins: Arc::default(),
        habits: ArcSwap::default(),
    };
    let lives = Arc::clone(&control.lives);
    let stand_ins = Arc::clone(&control.stand_ins);
    (
        control,
        RouteReader {
            route,
            lives,
            stand_ins,
        },
    )
}

impl RouteControl {
    /// Publishes a route and returns its epoch. Every request that a worker admits afterwards
    /// goes there.
    pub fn publish(&self, master: Option<&str>, replicas: &[String]) -> u64 {
        let epoch = self.route.load().epoch + 1;
        self.route.store(Arc::new(Route {
            epoch,
            master: master.map(Arc::from),
            replicas: replicas
                .iter()
                .map(|node| Arc::from(node.as_str()))
                .collect(),
            habits: **self.habits.load(),
        }));
        epoch
    }

    /// What suits the engine; part of every route published from now on.
    pub fn suit(&self, habits: Habits) {
        self.habits.store(Arc::new(habits));
    }

    /// The nodes have been looked at: these run now. Nothing for nodes that do not say.
    pub fn saw(&self, lives: Vec<Life>) {
        if **self.lives.load() != lives {
            self.lives.store(Arc::new(lives));
        }
    }

    /// The nodes have been looked at: without the master these may be read from, best first.
    pub fn may_stand_in(&self, nodes: Vec<Arc<str>>) {
        if **self.stand_ins.load() != nodes {
            self.stand_ins.store(Arc::new(nodes));
        }
    }

    /// The route as published last.
    pub fn current(&self) -> Arc<Route> {
        self.route.load_full()
    }
}

impl RouteReader {
    /// Who may be read from while there is no master, best first.
    pub fn stand_ins(&self) -> Arc<Vec<Arc<str>>> {
        self.stand_ins.load_full()
    }

    /// The run that a node was in when it was looked at last.
    pub fn life_of(&self, node: &str) -> Option<Life> {
        let lives = self.lives.load();
        lives.iter().find(|life| *life.node == *node).cloned()
    }

    /// A cached view for one worker.
    pub fn cache(&self) -> RouteCache {
        Cache::new(Arc::clone(&self.route))
    }

    /// The route now, for slow paths.
    pub fn current(&self) -> Arc<Route> {
        self.route.load_full()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_published_route_is_seen_by_caches_made_before_it() {
        let (control, reader) = route();
        let mut cache = reader.cache();
        assert_eq!(cache.load().master, None);

        let epoch = control.publish(Some("a:1"), &["b:2".to_owned()]);

        assert_eq!(epoch, 1);
        assert_eq!(cache.load().epoch, 1);
        assert_eq!(cache.load().master.as_deref(), Some("a:1"));
        assert_eq!(control.publish(None, &[]), 2);
    }
}
