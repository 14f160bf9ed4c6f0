use std::time::Duration;

use super::*;
use crate::topology::identity::Identity;

/// What a node says of itself; `None`: it is silent.
#[derive(Clone)]
struct Says {
    name: &'static str,
    told: Option<(Role, u64, &'static str, bool)>,
    histories: [Option<&'static str>; 2],
}

fn master(name: &'static str, offset: u64) -> Says {
    let told = Some((Role::Master, offset, name, false));
    Says::of(name, told)
}

fn replica(name: &'static str, link: Link, offset: u64) -> Says {
    let (host, port) = ("a".to_owned(), 1);
    let role = Role::Replica { host, port, link };
    let told = Some((role, offset, name, false));
    Says::of(name, told)
}

fn silent(name: &'static str) -> Says {
    Says::of(name, None)
}

impl Says {
    fn of(name: &'static str, told: Option<(Role, u64, &'static str, bool)>) -> Says {
        let histories = [None, None];
        Says {
            name,
            told,
            histories,
        }
    }

    /// In a history that goes on from another.
    fn after(mut self, history: &'static str, before: Option<&'static str>) -> Says {
        self.histories = [Some(history), before];
        self
    }

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
                life: Life {
                    run_id: Some(run_id.to_owned()),
                    ..Life::default()
                },
                offset: Some(offset),
                history: node.histories[0].map(str::to_owned),
                history_before: node.histories[1].map(str::to_owned),
                loading,
                ..NodeFacts::example(name.clone(), role)
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

/// Two looks: the second a second later, with `a:1` as the master of the route unless it is given
/// up.
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

/// Looks a second apart, `a:1` being the master of the route.
fn able_after(looks: &[&[Says]]) -> Vec<String> {
    let begin = Instant::now();
    let mut stand_ins = StandIns::default();
    let mut able = Vec::new();
    for (at, told) in looks.iter().enumerate() {
        let now = begin + Duration::from_secs(at as u64);
        able = stand_ins.look(&snapshot(told, now), Some("a:1"), now);
    }
    able.iter().map(|name| name.to_string()).collect()
}

#[test]
fn who_does_not_follow_while_the_master_speaks_is_forgotten_soon() {
    let in_sync: &[Says] = &[master("a:1", 9), replica("b:1", Link::Up, 9)];
    let behind: &[Says] = &[master("a:1", 99), replica("b:1", Link::Down, 9)];
    let dead: &[Says] = &[silent("a:1"), replica("b:1", Link::Down, 9)];
    let gone: &[Says] = &[master("a:1", 99), silent("b:1")];
    let long = WITHIN.as_secs() as usize;
    for without in [behind, gone] {
        let mut looks = vec![in_sync];
        looks.extend([without].repeat(long));
        looks.push(dead);
        assert_eq!(able_after(&looks), ["b:1"]);
        looks.insert(1, without);
        assert_eq!(able_after(&looks), [] as [&str; 0]);
    }
    // A master that says nothing more is outlived by none.
    let mut looks = vec![in_sync];
    looks.extend([dead].repeat(10 * long));
    assert_eq!(able_after(&looks), ["b:1"]);
}

#[test]
fn what_was_seen_beside_another_master_or_another_run_of_it_is_forgotten() {
    let in_sync = [master("a:1", 9), replica("b:1", Link::Up, 9)];
    let down = replica("b:1", Link::Down, 9);
    let dead = [silent("a:1"), down.clone()];
    let check = |now: Says| {
        let told = [now, down.clone()];
        assert_eq!(able_after(&[&in_sync, &told, &dead]), [] as [&str; 0]);
    };
    check(master("a:1", 10).in_run("another"));
    check(master("a:1", 10).after("another", None));

    let now = Instant::now();
    let mut stand_ins = StandIns::default();
    stand_ins.look(&snapshot(&in_sync, now), Some("a:1"), now);
    let told = [silent("a:1"), down.clone(), master("c:1", 1)];
    let able = stand_ins.look(&snapshot(&told, now), Some("c:1"), now);
    assert_eq!(able, [] as [NodeName; 0]);
    let able = stand_ins.look(&snapshot(&told, now), None, now);
    assert_eq!(able, ["c:1".into()] as [NodeName; 1]);
}

#[test]
fn a_node_of_another_history_does_not_stand_in_however_far_it_is() {
    let before = [
        master("a:1", 9).after("first", None),
        replica("b:1", Link::Up, 9).after("first", None),
    ];
    let check = |now: Says, expected: &[&str]| {
        let after = [silent("a:1"), now];
        assert_eq!(able_after(&[&before, &after]), expected);
    };
    check(replica("b:1", Link::Down, 9).after("first", None), &["b:1"]);
    check(master("b:1", 12).after("next", Some("first")), &["b:1"]);
    check(replica("b:1", Link::Up, 99).after("other", None), &[]);
    check(master("b:1", 99).after("other", None), &[]);
}

#[test]
fn where_histories_have_no_names_who_follows_another_does_not_stand_in() {
    let before: &[Says] = &[master("a:1", 9), replica("b:1", Link::Up, 9)];
    let mut other = replica("b:1", Link::Up, 99);
    if let Some((Role::Replica { port, .. }, ..)) = &mut other.told {
        *port = 2;
    }
    let able = able_after(&[before, &[silent("a:1"), other]]);
    assert_eq!(able, [] as [&str; 0]);
}
