use super::*;

fn node(name: &str, role: Option<Role>, now: Instant) -> Observed {
    let name: NodeName = name.into();
    let seen_at = role.is_some().then_some(now);
    let facts = role.map(|role| NodeFacts::example(name.clone(), role));
    Observed {
        identity: Identity::unresolved(name),
        facts,
        seen_at,
        error: None,
    }
}

fn follows(host: &str) -> Option<Role> {
    Some(Role::Replica {
        host: host.to_owned(),
        port: 1,
        link: Link::Up,
    })
}

fn check(nodes: &[(&str, Option<Role>)], age: Duration) -> MasterFinding {
    let now = Instant::now();
    let nodes = nodes
        .iter()
        .map(|(name, role)| node(name, role.clone(), now))
        .collect();
    find_master(&Snapshot { nodes }, now + age)
}

const NOW: Duration = Duration::ZERO;

#[test]
fn one_node_that_says_so_and_is_followed_is_the_master() {
    let nodes = [("a:1", Some(Role::Master)), ("b:1", follows("a"))];
    assert_eq!(check(&nodes, NOW), MasterFinding::One("a:1".into()));
}

#[test]
fn a_silent_replica_does_not_unmake_a_master() {
    let nodes = [("a:1", Some(Role::Master)), ("b:1", None)];
    assert_eq!(check(&nodes, NOW), MasterFinding::One("a:1".into()));
}

#[test]
fn two_masters_are_none() {
    let nodes = [("a:1", Some(Role::Master)), ("b:1", Some(Role::Master))];
    let both = vec!["a:1".into(), "b:1".into()];
    assert_eq!(check(&nodes, NOW), MasterFinding::Several(both));
}

#[test]
fn a_master_that_came_back_is_not_believed_while_the_real_one_is_silent() {
    let nodes = [
        ("a:1", Some(Role::Master)),
        ("b:1", follows("c")),
        ("c:1", None),
    ];
    assert!(matches!(check(&nodes, NOW), MasterFinding::None(_)));
}

#[test]
fn a_chained_replica_is_no_contradiction() {
    let nodes = [
        ("a:1", Some(Role::Master)),
        ("b:1", follows("c")),
        ("c:1", follows("a")),
    ];
    assert_eq!(check(&nodes, NOW), MasterFinding::One("a:1".into()));
}

#[test]
fn an_old_observation_is_no_evidence() {
    let nodes = [("a:1", Some(Role::Master))];
    assert!(
        matches!(check(&nodes, FRESH), MasterFinding::One(_)),
        "at the limit"
    );
    let past = FRESH + Duration::from_millis(1);
    assert!(
        matches!(check(&nodes, past), MasterFinding::None(_)),
        "one past it"
    );
}

#[test]
fn nodes_that_take_up_new_roles_are_asked_often_for_a_while() {
    let watch = Watch::new(&["a:1".into()]);
    let before = Instant::now();
    assert_eq!(watch.poll_after(before), POLL_EVERY);
    watch.want_closely();
    assert_eq!(watch.poll_after(before), CLOSE_POLL_EVERY);
    assert_eq!(watch.poll_after(Instant::now() + CLOSE_FOR), POLL_EVERY);
}
