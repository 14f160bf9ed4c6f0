//! What the walk of the model does not reach: strangers, and the shape of single steps.

use super::*;

const REDIS: Facts = Facts {
    dialect: Dialect::Redis,
    knows_pause: true,
    lag: 0,
    lag_small: 1000,
    old_is_down: false,
};

/// Tells the events one after the other; the state at the end and the effects of the last step.
fn after(terms: Terms, facts: Facts, events: &[Event]) -> (State, Vec<Effect>) {
    let (mut state, mut effects) = begin(terms);
    let prelude = [
        Event::PreflightPassed(facts),
        Event::Recorded(Record::Begin),
        Event::Warmed,
        Event::Drained,
        Event::NoPeers,
    ];
    for event in prelude.iter().chain(events) {
        (state, effects) = step(&state, event.clone());
    }
    (state, effects)
}

fn recovered(facts: Facts, old: Seen, target: Seen) -> (State, Vec<Effect>) {
    let (state, _) = recover(Terms::default(), facts);
    let (state, _) = step(&state, Event::Settled(Node::Old, old));
    step(&state, Event::Settled(Node::Target, target))
}

fn fenced() -> Event {
    Event::Fenced { offset: 70 }
}

fn old_at(offset: u64) -> Event {
    Event::OldRead {
        offset,
        seen: Seen::Fenced,
    }
}

fn target_at(offset: u64) -> Event {
    Event::TargetRead {
        offset,
        seen: Seen::Follows,
        link_up: true,
    }
}

#[test]
fn a_near_target_costs_three_round_trips() {
    let terms = Terms::default();
    let (_, effects) = after(terms, REDIS, &[]);
    assert!(
        effects.ends_with(&[Effect::Fence, Effect::ReadTarget]),
        "{effects:?}"
    );
    let (_, effects) = after(terms, REDIS, &[target_at(69), fenced()]);
    assert_eq!(effects, []);
    let (_, effects) = after(terms, REDIS, &[target_at(70), fenced(), target_at(70)]);
    assert!(effects.ends_with(&[Effect::Promote]), "{effects:?}");
}

#[test]
fn a_fence_behind_a_pause_and_one_that_is_not_exact_are_read_again() {
    let check = |facts: Facts, events: &[Event], read: Effect| {
        let (state, effects) = after(Terms::default(), facts, events);
        assert_eq!(effects, [read]);
        let (_, effects) = step(&state, target_at(70));
        assert_eq!(effects, []);
        let (state, _) = after(
            Terms::default(),
            facts,
            &[events, &[target_at(70)]].concat(),
        );
        let (_, effects) = step(&state, old_at(70));
        assert!(effects.ends_with(&[Effect::Promote]), "{effects:?}");
    };
    let kvrocks = Facts {
        dialect: Dialect::Kvrocks,
        ..REDIS
    };
    let (unpause, apart) = (false, true);
    check(kvrocks, &[fenced()], Effect::ReadOld { unpause, apart });
    let far = Facts { lag: 2000, ..REDIS };
    let master_at = Event::OldRead {
        offset: 70,
        seen: Seen::Master,
    };
    let paused = [Event::Paused, master_at, target_at(69), fenced()];
    let (unpause, apart) = (true, false);
    check(far, &paused, Effect::ReadOld { unpause, apart });
}

#[test]
fn the_route_the_release_and_the_demotion_go_out_together() {
    let events = [fenced(), target_at(70), Event::Promoted];
    let (state, effects) = after(Terms::default(), REDIS, &events);
    let order: Vec<_> = effects
        .iter()
        .filter(|effect| !matches!(effect, Effect::Arm(_) | Effect::Disarm(_)))
        .cloned()
        .collect();
    let demote = Effect::Demote {
        attach: Attach::At(70),
        settle: Settle::No,
        unpause: false,
    };
    let publish = Effect::Publish(Master::Target);
    assert_eq!(order, [publish, Effect::Release, demote, Effect::Repoint]);
    assert_eq!(phase(&state), "demote");
}

#[test]
fn kvrocks_repoints_the_others_before_it_demotes() {
    let facts = Facts {
        dialect: Dialect::Kvrocks,
        ..REDIS
    };
    let events = [fenced(), target_at(70), old_at(70), Event::Promoted];
    let (state, effects) = after(Terms::default(), facts, &events);
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Demote { .. }))
    );
    let (_, effects) = step(&state, Event::RepointFailed);
    assert!(
        effects
            .iter()
            .any(|effect| matches!(effect, Effect::Demote { .. }))
    );
}

#[test]
fn a_target_behind_the_end_is_not_promoted_and_one_that_lost_its_link_ends_it() {
    let terms = Terms::default();
    let (_, effects) = after(terms, REDIS, &[fenced(), target_at(69)]);
    assert_eq!(effects, [Effect::ReadTarget]);
    let broken = Event::TargetRead {
        offset: 69,
        seen: Seen::Follows,
        link_up: false,
    };
    let (state, effects) = after(terms, REDIS, &[fenced(), broken]);
    assert_eq!(phase(&state), "undo");
    let restore = Effect::Restore {
        settle: Settle::No,
        unfence: true,
        unpause: false,
    };
    assert!(effects.contains(&restore), "{effects:?}");
}

#[test]
fn what_was_forced_is_reported_and_kept_apart() {
    let terms = Terms {
        force_on_timeout: true,
        ..Terms::default()
    };
    let promoted = [
        fenced(),
        target_at(60),
        Event::Expired(Timer::Sync),
        target_at(61),
        Event::Promoted,
    ];
    let (state, effects) = after(terms, REDIS, &promoted);
    let attach = Attach::Never { carried: 61 };
    let demote = Effect::Demote {
        attach,
        settle: Settle::No,
        unpause: false,
    };
    assert!(effects.contains(&demote), "{effects:?}");
    let (state, _) = step(&state, Event::Leaked { by: 9 });
    let (state, _) = step(&state, Event::Repointed);
    let (state, effects) = step(
        &state,
        Event::Recorded(Record::End(Outcome::SwitchedWithLeak)),
    );
    let verdict = Verdict {
        outcome: Outcome::SwitchedWithLeak,
        reasons: vec![],
        not_carried: 9,
        old: OldNow::Apart,
    };
    assert_eq!(effects, [Effect::Report(verdict)]);
    assert!(is_over(&state));
}

#[test]
fn an_order_to_abort_is_refused_once_the_promotion_was_sent() {
    let (state, _) = after(Terms::default(), REDIS, &[fenced(), target_at(70)]);
    assert!(!can_abort(&state));
    let (same, effects) = step(&state, Event::Abort);
    assert_eq!((same, effects), (state, vec![Effect::TooLate]));
}

#[test]
fn an_old_master_that_follows_a_stranger_is_left_to_whoever_did_that() {
    let stranger = Event::OldRead {
        offset: 70,
        seen: Seen::Foreign,
    };
    let events = [
        fenced(),
        target_at(60),
        stranger,
        Event::Restored(Seen::Foreign),
    ];
    let (_, effects) = after(Terms::default(), REDIS, &events);
    assert!(
        effects.contains(&Effect::Alarm(Alarm::Foreign)),
        "{effects:?}"
    );
    assert!(effects.contains(&Effect::Release), "{effects:?}");
}

#[test]
fn two_masters_after_a_restart_are_no_master() {
    let (state, effects) = recovered(REDIS, Seen::Master, Seen::Master);
    assert_eq!(
        effects,
        [Effect::Alarm(Alarm::TwoMasters), Effect::Arm(Timer::Retry)]
    );
    let (_, effects) = step(&state, Event::Expired(Timer::Retry));
    assert_eq!(
        effects,
        [Effect::Settle(Node::Old), Effect::Settle(Node::Target)]
    );
}

#[test]
fn a_restarted_old_master_is_believed_only_beside_a_target_that_answers() {
    let (_, effects) = recovered(REDIS, Seen::Reborn, Seen::Master);
    assert!(
        effects.contains(&Effect::Publish(Master::Target)),
        "{effects:?}"
    );
    let (state, _) = recovered(REDIS, Seen::Reborn, Seen::Follows);
    assert_eq!(phase(&state), "undo");
    let (state, _) = recover(Terms::default(), REDIS);
    let (state, _) = step(&state, Event::Settled(Node::Old, Seen::Reborn));
    let (state, effects) = step(&state, Event::Lost(Node::Target));
    assert_eq!(phase(&state), "recover");
    assert!(effects.contains(&Effect::Arm(Timer::Retry)), "{effects:?}");
}

#[test]
fn nobody_is_master_when_each_follows_the_other() {
    let (state, effects) = recovered(REDIS, Seen::Follows, Seen::Follows);
    assert_eq!(phase(&state), "recover");
    assert!(
        effects.contains(&Effect::Alarm(Alarm::NoMaster)),
        "{effects:?}"
    );
}

const DOWN: Facts = Facts {
    lag: 7,
    old_is_down: true,
    ..REDIS
};

#[test]
fn a_replica_takes_the_place_of_a_master_that_is_out_of_reach_and_the_loss_is_told() {
    let (state, effects) = take_over(DOWN);
    assert_eq!(effects, [Effect::Record(Record::Begin)]);
    let (state, effects) = step(&state, Event::Recorded(Record::Begin));
    assert!(effects.ends_with(&[Effect::Promote]), "{effects:?}");
    let (state, effects) = step(&state, Event::Promoted);
    assert!(
        effects.contains(&Effect::Publish(Master::Target)),
        "{effects:?}"
    );
    let demote = Effect::Demote {
        attach: Attach::IfPrefix,
        settle: Settle::No,
        unpause: false,
    };
    assert!(effects.contains(&demote), "{effects:?}");
    let (_, effects) = step(&state, Event::Expired(Timer::Demote));
    let verdict = Verdict {
        outcome: Outcome::SwitchedWithLeak,
        reasons: vec![Reason::OldDown],
        not_carried: 7,
        old: OldNow::AttachPending,
    };
    assert_eq!(effects, [Effect::Report(verdict)]);
}

#[test]
fn a_replica_that_refuses_to_take_over_is_none_and_nobody_is_master() {
    let (state, _) = take_over(DOWN);
    let (state, _) = step(&state, Event::Recorded(Record::Begin));
    let (_, effects) = step(&state, Event::PromotionRefused);
    assert!(
        effects.contains(&Effect::Record(Record::End(Outcome::Refused))),
        "{effects:?}"
    );
    assert!(
        !effects
            .iter()
            .any(|effect| matches!(effect, Effect::Publish(_))),
        "{effects:?}"
    );
}

#[test]
fn an_old_master_that_came_back_proves_nothing_where_it_was_never_fenced() {
    let (state, effects) = recovered(DOWN, Seen::Master, Seen::Master);
    assert!(
        effects.contains(&Effect::Publish(Master::Target)),
        "{effects:?}"
    );
    assert_eq!(phase(&state), "demote");
    let (state, _) = recover(Terms::default(), DOWN);
    let (state, _) = step(&state, Event::Settled(Node::Old, Seen::Master));
    let (state, _) = step(&state, Event::Lost(Node::Target));
    assert_eq!(phase(&state), "recover");
    let (state, _) = recovered(DOWN, Seen::Master, Seen::Follows);
    assert_eq!(phase(&state), "undo");
}
