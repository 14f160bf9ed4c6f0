use std::time::Duration;

use super::*;
use crate::topology::engine::{Engine, Version};
use crate::topology::facts::{Mode, SyncCounters};
use crate::topology::identity::Identity;

/// What a node says of itself; `None`: it is silent.
#[derive(Clone)]
struct Says {
    name: &'static str,
    told: Option<(Role, u64, &'static str, bool)>,
}

fn master(name: &'static str, offset: u64) -> Says {
    let told = Some((Role::Master, offset, name, false));
    Says { name, told }
}

fn replica(name: &'static str, link: Link, offset: u64) -> Says {
    let (host, port) = ("a".to_owned(), 1);
    let role = Role::Replica { host, port, link };
    let told = Some((role, offset, name, false));
    Says { name, told }
}

fn silent(name: &'static str) -> Says {
    Says { name, told: None }
}

impl Says {
    fn in_run(mut self, run_id: &'static str) -> Says {
        if let Some(told) = &mut self.told {
            told.2 = run_id;
        }
        self
    }

    fn loading(mut self) -> Says {
        if let Some(told) = &mut self.told {
            told.3 = true;
        }
        self
    }
}

fn snapshot(nodes: &[Says], now: Instant) -> Snapshot {
    let observed = |node: &Says| {
        let name: NodeName = node.name.into();
        let facts = node
            .told
            .clone()
            .map(|(role, offset, run_id, loading)| NodeFacts {
                node: name.clone(),
                engine: Engine::Redis,
                version: Version(7, 0, 0),
                life: Life {
                    run_id: Some(run_id.to_owned()),
                    ..Life::default()
                },
                mode: Mode::Standalone,
                role,
                offset: Some(offset),
                history: None,
                history_before: None,
                history_before_end: None,
                attached: Vec::new(),
                loading,
                backlog_bytes: None,
                syncs: SyncCounters::default(),
            });
        Observed {
            identity: Identity::unresolved(name),
            seen_at: facts.is_some().then_some(now),
            facts,
            error: None,
        }
    };
    Snapshot {
        nodes: nodes.iter().map(observed).collect(),
    }
}

/// Two looks: the second a second later, with `a:1` as the master of the route unless it is given up.
fn check(before: &[Says], after: &[Says], expected: &[&str]) {
    let now = Instant::now();
    let later = now + Duration::from_secs(1);
    for routed in [Some("a:1"), None] {
        let mut stand_ins = StandIns::default();
        stand_ins.look(&snapshot(before, now), Some("a:1"), now);
        let able = stand_ins.look(&snapshot(after, later), routed, later);
        let able: Vec<&str> = able.iter().map(|name| &**name).collect();
        assert_eq!(able, expected, "routed {routed:?}");
    }
}

#[test]
fn the_replica_that_is_furthest_stands_in_first() {
    check(
        &[
            master("a:1", 9),
            replica("b:1", Link::Up, 7),
            replica("c:1", Link::Up, 7),
        ],
        &[
            silent("a:1"),
            replica("b:1", Link::Down, 8),
            replica("c:1", Link::Down, 9),
        ],
        &["c:1", "b:1"],
    );
}

#[test]
fn who_was_never_seen_with_the_data_does_not_stand_in() {
    check(
        &[
            master("a:1", 9),
            replica("b:1", Link::Sync, 9),
            replica("c:1", Link::Down, 9),
        ],
        &[
            silent("a:1"),
            replica("b:1", Link::Down, 9),
            replica("c:1", Link::Down, 9),
        ],
        &[],
    );
    check(
        &[master("a:1", 9), silent("b:1")],
        &[silent("a:1"), replica("b:1", Link::Down, 9)],
        &[],
    );
}

#[test]
fn a_replica_that_was_started_anew_or_copies_or_loads_does_not_stand_in() {
    let check = |now| {
        check(
            &[master("a:1", 9), replica("b:1", Link::Up, 9)],
            &[silent("a:1"), now],
            &[],
        );
    };
    check(replica("b:1", Link::Down, 9).in_run("another"));
    check(replica("b:1", Link::Sync, 9));
    check(replica("b:1", Link::Down, 9).loading());
    check(replica("b:1", Link::Down, 8));
    check(silent("b:1"));
}

#[test]
fn what_a_replica_copied_without_our_master_is_not_believed() {
    let now = Instant::now();
    let mut stand_ins = StandIns::default();
    let told = [master("a:1", 9), replica("b:1", Link::Up, 9)];
    stand_ins.look(&snapshot(&told, now), Some("a:1"), now);
    // The master came back empty, and the replica has copied that.
    for routed in [None, Some("b:1")] {
        let told = [
            master("a:1", 1).in_run("another"),
            replica("b:1", Link::Up, 1),
        ];
        let able = stand_ins.look(&snapshot(&told, now), routed, now);
        assert_eq!(able, [] as [NodeName; 0], "routed {routed:?}");
    }
}

#[test]
fn a_master_that_gave_up_its_role_may_be_read_from() {
    let now = Instant::now();
    let mut stand_ins = StandIns::default();
    let told = [master("a:1", 9), replica("b:1", Link::Up, 8)];
    stand_ins.look(&snapshot(&told, now), Some("a:1"), now);
    let told = [replica("a:1", Link::Down, 9), replica("b:1", Link::Up, 8)];
    let able = stand_ins.look(&snapshot(&told, now), None, now);
    assert_eq!(able, ["a:1".into(), "b:1".into()] as [NodeName; 2]);
}
