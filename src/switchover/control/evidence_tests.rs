use super::super::fixtures::*;
use super::*;
use crate::topology::watch::{FRESH, Trouble};

/// What is decided about `later` by one who has seen master `a:1` at 100 of history `h`, followed
/// by `b:1` at 90.
fn check(later: &[(&str, Says<'_>)], routed: bool) -> Verdict {
    let now = Instant::now();
    let before = [
        ("a:1", (MASTER, 100, "h", "0")),
        ("b:1", (follows("a", Link::Up), 90, "h", "0")),
        ("c:1", SILENT),
    ];
    let mut known = Known::master("a:1");
    known.learn(&snapshot(&before, now), now);
    verdict(&snapshot(later, now), &known, routed, now)
}

fn follow(name: &str) -> Verdict {
    Verdict::Follow(name.into())
}

#[test]
fn the_master_that_we_have_is_kept_while_it_says_that_it_is_one() {
    let alone = [("a:1", (MASTER, 100, "h", "0")), ("b:1", SILENT)];
    assert_eq!(check(&alone, true), Verdict::Keep);
    let two = [
        ("a:1", (MASTER, 100, "h", "0")),
        ("b:1", (MASTER, 500, "i", "h")),
    ];
    assert_eq!(check(&two, true), Verdict::Keep);
}

#[test]
fn without_a_route_two_masters_are_none() {
    let two = [
        ("a:1", (MASTER, 100, "h", "0")),
        ("b:1", (MASTER, 500, "i", "h")),
    ];
    assert_eq!(check(&two, false), Verdict::Keep);
}

#[test]
fn a_demoted_master_is_left_at_once_and_its_successor_followed() {
    let fenced = ("a:1", (follows("sink", Link::Down), 100, "h", "0"));
    let waiting = ("b:1", (follows("a", Link::Up), 100, "h", "0"));
    assert_eq!(check(&[fenced.clone(), waiting], true), Verdict::Shut);
    let promoted = ("b:1", (MASTER, 100, "i", "h"));
    assert_eq!(
        check(&[fenced.clone(), promoted.clone()], true),
        follow("b:1")
    );
    assert_eq!(check(&[fenced, promoted], false), follow("b:1"));
}

#[test]
fn a_silent_master_is_left_for_a_replica_that_lost_nothing() {
    let promoted = |offset| [("a:1", SILENT), ("b:1", (MASTER, offset, "i", "h"))];
    assert_eq!(check(&promoted(90), true), follow("b:1"), "at the limit");
    assert_eq!(check(&promoted(89), true), Verdict::Keep, "one below it");
}

/// What is decided about `later` by one who has also seen `between`, in which the master had spoken
/// `again` or was silent already.
fn check_between(between: &[(&str, Says<'_>)], again: bool, later: &Snapshot) -> Verdict {
    let before = [
        ("a:1", (MASTER, 100, "h", "0")),
        ("b:1", (follows("a", Link::Up), 90, "h", "0")),
        ("c:1", (follows("a", Link::Up), 90, "h", "0")),
    ];
    let at = Instant::now();
    let soon = at + std::time::Duration::from_millis(100);
    let mut known = Known::master("a:1");
    known.learn(&snapshot(&before, at), at);
    let mut between = snapshot(between, soon);
    if !again {
        between.nodes[0].seen_at = Some(at);
    }
    known.learn(&between, soon);
    verdict(later, &known, true, soon)
}

#[test]
fn what_was_promoted_while_the_master_was_silent_already_is_still_what_followed_it() {
    let between = [
        ("a:1", (MASTER, 100, "h", "0")),
        ("b:1", (MASTER, 90, "i", "h")),
        ("c:1", (follows("a", Link::Down), 90, "h", "0")),
    ];
    let later = [("a:1", SILENT), ("b:1", (MASTER, 90, "i", "h"))];
    let later = snapshot(&later, Instant::now());
    assert_eq!(check_between(&between, false, &later), follow("b:1"));
    // It lived beside the other, and clients may have written to it.
    assert_eq!(check_between(&between, true, &later), Verdict::Keep);
}

#[test]
fn the_only_replica_is_one_no_more_when_the_master_speaks_without_it() {
    let detached = |name| (name, (MASTER, 90, "i", "h"));
    let between = [("a:1", (MASTER, 100, "h", "0")), detached("b:1")];
    let later = [("a:1", SILENT), detached("b:1")];
    let later = snapshot(&later, Instant::now());
    assert_eq!(check_between(&between, false, &later), follow("b:1"));
    assert_eq!(check_between(&between, true, &later), Verdict::Keep);
}

#[test]
fn a_replica_that_missed_a_question_is_still_one() {
    let at = Instant::now();
    let nodes = [
        ("a:1", (MASTER, 100, "h", "0")),
        ("b:1", (follows("a", Link::Up), 90, "h", "0")),
    ];
    let later = [("a:1", SILENT), ("b:1", (MASTER, 90, "i", "h"))];
    for (silent_for, expected) in [(FRESH, follow("b:1")), (FRESH * 2, Verdict::Keep)] {
        let now = at + silent_for;
        let mut known = Known::master("a:1");
        known.learn(&snapshot(&nodes, at), at);
        let mut missed = snapshot(&nodes, now);
        missed.nodes[1].seen_at = Some(at);
        missed.nodes[1].error = Some(Trouble {
            words: "no answer".to_owned(),
            is_silence: true,
        });
        known.learn(&missed, now);
        assert_eq!(verdict(&snapshot(&later, now), &known, true, now), expected);
    }
}

#[test]
fn an_empty_node_that_was_restarted_never_wins() {
    let demoted = ("a:1", (follows("sink", Link::Down), 100, "h", "0"));
    let empty = ("b:1", (MASTER, 0, "n", "0"));
    assert_eq!(check(&[demoted.clone(), empty], true), Verdict::Shut);
    let busy_since = ("b:1", (MASTER, 9000, "n", "0"));
    assert_eq!(check(&[demoted.clone(), busy_since], false), Verdict::Keep);
    let stranger = ("c:1", (MASTER, 9000, "h", "0"));
    assert_eq!(check(&[demoted, stranger], false), Verdict::Keep);
}

#[test]
fn a_node_that_our_master_has_copied_is_followed_whatever_it_is() {
    let copied = [
        ("a:1", (follows("c", Link::Up), 5, "n", "0")),
        ("c:1", (MASTER, 5, "n", "0")),
    ];
    assert_eq!(check(&copied, true), follow("c:1"));
}

#[test]
fn a_master_that_was_demoted_and_promoted_again_goes_on() {
    let again = ("a:1", (MASTER, 100, "j", "h"));
    assert_eq!(check(&[again], false), follow("a:1"));
}

#[test]
fn a_proxy_that_has_just_been_started_believes_whoever_is_master_alone() {
    let now = Instant::now();
    let one = snapshot(&[("a:1", (MASTER, 0, "h", "0"))], now);
    assert_eq!(verdict(&one, &Known::default(), false, now), follow("a:1"));
    let masters = [
        ("a:1", (MASTER, 0, "h", "0")),
        ("b:1", (MASTER, 9, "i", "0")),
    ];
    let two = snapshot(&masters, now);
    assert_eq!(verdict(&two, &Known::default(), false, now), Verdict::Keep);
}

/// What is decided about `later` by one who has seen what [`check`] has, when Sentinels have been
/// naming `named` since before the look, or only since then.
fn check_word(later: &[(&str, Says<'_>)], named: &str, before_the_look: bool) -> Verdict {
    let now = Instant::now();
    let known = Known {
        history: Some("h".to_owned()),
        offset: Some(100),
        replicas: vec![("b:1".into(), 90)],
        ..Known::master("a:1")
    };
    let since = match before_the_look {
        true => now,
        false => now + std::time::Duration::from_millis(1),
    };
    let told = Told::Master(named.into(), since);
    verdict_beside(&told, &snapshot(later, now), &known, true, now)
}

fn told_to_follow(master: &str, missing: u64) -> Verdict {
    Verdict::FollowWord {
        master: master.into(),
        missing: Some(missing),
    }
}

#[test]
fn a_node_that_lacks_writes_is_followed_on_the_word_of_sentinels_only() {
    let later = [("a:1", SILENT), ("b:1", (MASTER, 80, "i", "h"))];
    assert_eq!(check(&later, true), Verdict::Keep);
    assert_eq!(check_word(&later, "b:1", true), told_to_follow("b:1", 20));
}

#[test]
fn sentinels_are_not_believed_before_the_node_says_so_itself() {
    let replica = follows("a", Link::Down);
    let later = [("a:1", SILENT), ("b:1", (replica, 100, "h", "0"))];
    assert_eq!(check_word(&later, "b:1", true), Verdict::Keep);
    let later = [("a:1", SILENT), ("b:1", (MASTER, 80, "i", "h"))];
    assert_eq!(check_word(&later, "b:1", false), Verdict::Keep);
    assert_eq!(check_word(&later, "c:1", true), Verdict::Keep);
}

#[test]
fn of_two_masters_the_one_that_sentinels_name_is_followed() {
    let both = [
        ("a:1", (MASTER, 120, "h", "0")),
        ("b:1", (MASTER, 80, "i", "h")),
    ];
    assert_eq!(check_word(&both, "b:1", true), told_to_follow("b:1", 20));
    assert_eq!(check_word(&both, "a:1", true), Verdict::Keep);
}

#[test]
fn at_the_start_nobody_is_followed_before_sentinels_have_been_asked_or_against_their_word() {
    let now = Instant::now();
    let alone = [("a:1", (MASTER, 120, "h", "0")), ("b:1", SILENT)];
    let judge = |told: &Told| {
        let nothing = Known::default();
        verdict_beside(told, &snapshot(&alone, now), &nothing, false, now)
    };
    assert_eq!(judge(&Told::Unasked), Verdict::Keep);
    assert_eq!(judge(&Told::Master("b:1".into(), now)), Verdict::Keep);
    assert_eq!(judge(&Told::Nothing), Verdict::Follow("a:1".into()));
    let named = judge(&Told::Master("a:1".into(), now));
    assert!(matches!(named, Verdict::FollowWord { missing: None, .. }));
}

#[test]
fn what_is_missing_is_counted_to_where_the_old_history_ended() {
    let now = Instant::now();
    let mut later = snapshot(&[("a:1", SILENT), ("b:1", (MASTER, 500, "i", "h"))], now);
    let known = Known {
        history: Some("h".to_owned()),
        offset: Some(100),
        ..Known::master("a:1")
    };
    let facts = later.nodes[1].facts.as_mut().unwrap();
    facts.history_before_end = Some(70);
    assert_eq!(known.missing_in(facts), Some(30));
}
