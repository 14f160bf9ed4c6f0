//! What must hold before anything is touched, as pure judgements over what was seen.
//!
//! **Invariant:** every failing requirement is named, each with what to do about it; one that is
//! not known counts as failing only where going on without it could lose a write.

use crate::switchover::preflight::examine::Examined;
use crate::topology::engine::Engine;
use crate::topology::facts::{Link, Mode, Role};
use crate::topology::identity::Identity;

/// Connections that must still fit on the target beside those that are on the old master now.
const CLIENTS_SPARE: u64 = 32;

/// The nodes by their part in the operation.
pub struct Cast<'a> {
    pub old: &'a Examined,
    pub target: &'a Examined,
    pub others: Vec<&'a Examined>,
}

impl<'a> Cast<'a> {
    fn all(&self) -> impl Iterator<Item = &'a Examined> {
        [self.old, self.target]
            .into_iter()
            .chain(self.others.iter().copied())
    }

    /// Everything that is wrong, apart from lag and history, which need both nodes at one time.
    pub fn failings(&self) -> Vec<String> {
        let mut failings = Vec::new();
        for node in self.all() {
            single(node, &mut failings);
        }
        self.roles(&mut failings);
        self.same_everywhere(&mut failings);
        self.target_can_take_over(&mut failings);
        failings
    }

    fn roles(&self, failings: &mut Vec<String>) {
        let (old, target) = (&self.old.facts, &self.target.facts);
        if !old.role.is_master() {
            failings.push(format!(
                "{} is no master: it follows {}; wait until the route is right",
                old.node,
                old.role.follows().unwrap_or_default()
            ));
        }
        match &target.role {
            Role::Master => failings.push(format!(
                "{} is a master already; make it a replica of {} first",
                target.node, old.node
            )),
            Role::Replica { link, .. } => {
                follows(self.target, &[&self.old.identity], failings);
                link_is_up(self.target, *link, failings);
            }
        }
        for other in &self.others {
            match &other.facts.role {
                Role::Master => failings.push(format!(
                    "{} says that it is a master too; make it a replica or take it out of nodes",
                    other.facts.node
                )),
                Role::Replica { link, .. } => {
                    let chained = [&self.old.identity, &self.target.identity];
                    follows(other, &chained, failings);
                    link_is_up(other, *link, failings);
                }
            }
        }
    }

    fn same_everywhere(&self, failings: &mut Vec<String>) {
        let old = &self.old.facts;
        for node in [self.target].into_iter().chain(self.others.iter().copied()) {
            let name = &node.facts.node;
            if node.facts.engine != old.engine {
                failings.push(format!(
                    "{name} runs {}, {} runs {}; a shard runs one engine",
                    node.facts.engine, old.node, old.engine
                ));
            }
            if old.history.is_some() && node.facts.history != old.history {
                failings.push(format!(
                    "{name} has another replication history than {}; let it synchronise first",
                    old.node
                ));
            }
            for names in [["databases", "redis-databases"], ["db-name", "db-name"]] {
                let (here, there) = (node.setting(&names), self.old.setting(&names));
                if here != there {
                    failings.push(format!(
                        "{} is {} on {name} and {} on {}; make them equal",
                        names[0],
                        here.unwrap_or("unset"),
                        there.unwrap_or("unset"),
                        old.node
                    ));
                }
            }
        }
    }

    fn target_can_take_over(&self, failings: &mut Vec<String>) {
        let name = &self.target.facts.node;
        let number = |node: &Examined, names: &[&str]| {
            node.setting(names)
                .and_then(|value| value.parse::<u64>().ok())
        };
        if let Some(limit) = number(self.target, &["maxclients"])
            && limit < self.old.clients.saturating_add(CLIENTS_SPARE)
        {
            failings.push(format!(
                "maxclients of {name} is {limit}, too few for the {} clients of {}; raise it",
                self.old.clients, self.old.facts.node
            ));
        }
        let needed = number(
            self.target,
            &["min-replicas-to-write", "min-slaves-to-write"],
        );
        let attached = self.target.facts.attached.len() as u64;
        if let Some(needed) = needed.filter(|needed| *needed > attached) {
            failings.push(format!(
                "{name} would refuse writes at first: min-replicas-to-write is {needed} and \
                 {attached} replicas are attached to it; set it to {attached} until it is master"
            ));
        }
        // Who becomes a replica of the target must know its password.
        let password = self
            .target
            .setting(&["requirepass"])
            .filter(|text| !text.is_empty());
        if let Some(password) = password {
            let joining = [self.old].into_iter().chain(self.others.iter().copied());
            for node in joining {
                let known = node.setting(&["masterauth"]).unwrap_or_default();
                let by_user = node
                    .setting(&["masteruser"])
                    .is_some_and(|user| !user.is_empty());
                if known.is_empty() || (known != password && !by_user) {
                    failings.push(format!(
                        "masterauth of {} is not the password of {name}; set it",
                        node.facts.node
                    ));
                }
            }
        }
    }
}

fn follows(node: &Examined, masters: &[&Identity], failings: &mut Vec<String>) {
    if !masters
        .iter()
        .any(|master| master.is_followed_by(&node.facts.role))
    {
        failings.push(format!(
            "{} follows {}, not {}; point it there first",
            node.facts.node,
            node.facts.role.follows().unwrap_or_default(),
            masters
                .first()
                .map(|master| master.name.as_ref())
                .unwrap_or_default()
        ));
    }
}

fn link_is_up(node: &Examined, link: Link, failings: &mut Vec<String>) {
    let name = &node.facts.node;
    match link {
        Link::Up => {}
        Link::Down => failings.push(format!(
            "the link of {name} to its master is down; wait until it is up"
        )),
        Link::Sync => failings.push(format!(
            "{name} is being synchronised in full; wait until that is over"
        )),
    }
}

/// What can be said of a node alone; `check` shows the same.
pub fn single(node: &Examined, failings: &mut Vec<String>) {
    let name = &node.facts.node;
    match node.facts.mode {
        Mode::Standalone => {}
        Mode::Cluster => failings.push(format!(
            "{name} runs in cluster mode, where roles are changed by the cluster itself or by \
             kvrocks-controller; order it there"
        )),
        Mode::Sentinel => failings.push(format!("{name} is a Sentinel, not a server")),
    }
    if node.setting(&["cluster-enabled"]) == Some("yes") && node.facts.mode != Mode::Cluster {
        failings.push(format!(
            "{name} has cluster-enabled yes; order the switchover there"
        ));
    }
    if node.facts.loading {
        failings.push(format!(
            "{name} is loading its data; wait until that is over"
        ));
    }
    if !node.watchers.is_empty() {
        failings.push(format!(
            "a Sentinel watches {name} and would undo the switchover; name all of them in \
             `sentinels` of the shard, or order it there (SENTINEL FAILOVER)"
        ));
    }
    if let Some(error) = &node.config_error {
        failings.push(format!(
            "{name} does not answer CONFIG GET: {error}; permit it"
        ));
    } else if node.read_only() != Some("yes") {
        failings.push(format!(
            "{} is not yes on {name}, so a fence would not stop its writers; set it to yes",
            if node.facts.engine == Engine::Kvrocks {
                "slave-read-only"
            } else {
                "replica-read-only"
            }
        ));
    }
    if node.setting(&["replica-serve-stale-data", "slave-serve-stale-data"]) == Some("no") {
        failings.push(format!(
            "serve-stale-data is no on {name}: reads would fail behind the fence; set it to yes"
        ));
    }
    if !node.traceable {
        failings.push(format!(
            "{name} does not let us name our connection (CLIENT SETNAME, ID, LIST); permit it"
        ));
    }
    for denial in &node.denied {
        failings.push(format!("{name} would refuse us: {denial}; permit it"));
    }
    if node.facts.offset.is_none() {
        failings.push(format!(
            "{name} shows no replication offset; wait until it is attached"
        ));
    }
}

/// What `node` buffers for a replica: the hard limit of its class, when there is one.
pub fn output_limit(node: &Examined) -> Option<u64> {
    node.setting(&["client-output-buffer-limit"])
        .and_then(replica_limit)
}

fn replica_limit(value: &str) -> Option<u64> {
    let mut words = value.split_whitespace();
    words.find(|word| matches!(*word, "slave" | "replica"))?;
    words.next()?.parse().ok().filter(|limit| *limit > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_output_limit_of_replicas_is_found_among_the_classes() {
        let value = "normal 0 0 0 slave 268435456 67108864 60 pubsub 33554432 8388608 60";
        assert_eq!(replica_limit(value), Some(268_435_456));
        assert_eq!(replica_limit("normal 0 0 0 replica 0 0 0"), None);
    }
}
