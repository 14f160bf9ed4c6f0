//! Walks every reachable interleaving of the switchover plan with a small world, breadth first.
//!
//! What is walked is the plan that runs in production; only the world is modelled (`world.rs` and
//! its parts): two nodes, the replication between them, a writer that bypasses the proxy, replies
//! that are lost before or after the command was executed, commands that execute late, nodes that
//! are killed and come back, timers that fire whenever they like, an order to abort, and a proxy
//! that crashes and recovers, also while recovering. What must hold in every state, and at every
//! end, is `claims.rs`.
//!
//! Two things are asked of the graph: no state violates a claim, and from every state an end is
//! reached by kind transitions alone (no new fault). As the kind successors are states of the same
//! graph, a run in which faults stop cannot avoid the end for ever unless it starves a transition.

mod claims;
mod nodes;
mod proxy;
mod rules;
mod walk;
mod world;

use pointsman::switchover::plan::Outcome::{
    Refused, RolledBack, Switched, SwitchedWithLeak, Unknown,
};
use pointsman::switchover::plan::{Dialect, Silence};
use rules::{Flaw, Rules};
use walk::{Found, walk};

fn check(name: &str, rules: Rules) {
    match walk(rules) {
        Found::Sound {
            states,
            transitions,
            ends,
            outcomes,
        } => {
            println!("{name}: {states} states, {transitions} transitions, {ends} ends");
            // A walk that never gets somewhere proves nothing about it.
            let told = |outcome| outcomes & 1 << outcome as u8 != 0;
            for outcome in [RolledBack, Refused] {
                assert!(told(outcome), "{name}: {outcome:?} was never told");
            }
            // Where nothing could be proven, nobody says that nothing was lost.
            assert_eq!(told(Switched), !rules.take_over, "{name}: told of no loss");
            // Nobody is held while a replica takes over, so nothing has to be said before it is
            // known.
            assert_eq!(
                told(Unknown),
                !rules.take_over,
                "{name}: told of not knowing"
            );
            let may_leak = rules.pops > 0 || rules.force || rules.stale_restart || rules.take_over;
            assert_eq!(told(SwitchedWithLeak), may_leak, "{name}: told of a leak");
        }
        Found::Broken { why, trace } => panic!("{name}: {why}\n{}", trace.join("\n")),
    }
}

/// The walk must find the flaw, by a claim whose text contains `by`.
fn catches(flaw: Flaw, by: &str, rules: Rules) {
    match walk(Rules {
        flaw: Some(flaw),
        ..rules
    }) {
        Found::Sound { states, .. } => panic!("{flaw:?} went unnoticed in {states} states"),
        Found::Broken { why, trace } => {
            println!("{flaw:?}: {why} ({} steps)", trace.len());
            assert!(why.contains(by), "{flaw:?}: {why}\n{}", trace.join("\n"));
        }
    }
}

#[test]
fn no_interleaving_on_redis_loses_a_write_or_makes_two_masters() {
    check("redis", Rules::new(Dialect::Redis));
}

#[test]
fn nor_when_the_target_is_far_behind_and_the_others_are_paused() {
    check(
        "redis, far behind",
        Rules {
            far_behind: true,
            ..Rules::new(Dialect::Redis)
        },
    );
}

#[test]
fn nor_when_the_fence_cuts_the_replicas_off() {
    check("redis before 7", Rules::new(Dialect::RedisBefore7));
}

#[test]
fn nor_when_nobody_can_be_paused() {
    check(
        "redis before 6.2",
        Rules {
            knows_pause: false,
            ..Rules::new(Dialect::RedisBefore7)
        },
    );
    check(
        "kvrocks, far behind",
        Rules {
            far_behind: true,
            pops: 1,
            ..Rules::new(Dialect::Kvrocks)
        },
    );
}

#[test]
fn nor_when_a_blocked_client_pops_behind_the_fence() {
    check(
        "kvrocks",
        Rules {
            pops: 1,
            ..Rules::new(Dialect::Kvrocks)
        },
    );
}

#[test]
fn a_forced_switchover_says_what_it_lost() {
    check(
        "redis, forced",
        Rules {
            force: true,
            ..Rules::new(Dialect::Redis)
        },
    );
}

#[test]
fn a_master_that_restarts_with_an_old_config_is_never_routed_to_and_never_attached_with_a_leak() {
    check(
        "redis, stale restart",
        Rules {
            stale_restart: true,
            ..Rules::new(Dialect::Redis)
        },
    );
}

#[test]
fn a_master_that_was_replaced_when_it_was_out_of_reach_is_attached_only_without_a_leak() {
    for dialect in [Dialect::Redis, Dialect::Kvrocks] {
        check(
            "take over",
            Rules {
                take_over: true,
                ..Rules::new(dialect)
            },
        );
    }
}

#[test]
fn nor_when_somebody_else_takes_over_while_it_waits() {
    for dialect in [Dialect::Redis, Dialect::Kvrocks] {
        check(
            "taken over",
            Rules {
                taken_over: true,
                crashes: 1,
                ..Rules::new(dialect)
            },
        );
    }
}

#[test]
fn beside_another_proxy_nobody_reads_what_is_old_and_no_message_is_lost() {
    check(
        "redis, beside another proxy",
        Rules::beside_another(Dialect::Redis, Silence::Abort),
    );
}

#[test]
fn nor_when_a_silent_proxy_is_only_reported() {
    check(
        "redis, beside a silent proxy",
        Rules::beside_another(Dialect::Redis, Silence::Report),
    );
}

#[test]
fn a_walk_notices_a_fence_that_does_not_wait_for_the_other_proxy() {
    let rules = Rules::beside_another(Dialect::Redis, Silence::Abort);
    catches(Flaw::PeerNotAwaited, "reaches nobody", rules);
}

#[test]
fn a_walk_notices_a_release_that_does_not_wait_for_the_other_proxy() {
    let rules = Rules::beside_another(Dialect::Redis, Silence::Abort);
    catches(Flaw::PeerNotRouted, "another proxy", rules);
}

#[test]
fn a_walk_notices_another_proxy_that_is_forgotten() {
    let rules = Rules::beside_another(Dialect::Redis, Silence::Abort);
    catches(Flaw::PeerNotReleased, "still holds", rules);
}

#[test]
fn a_walk_notices_a_proof_that_is_skipped() {
    catches(Flaw::ProofSkipped, "lacks", Rules::new(Dialect::Redis));
}

#[test]
fn a_walk_notices_a_release_before_the_promotion_is_answered() {
    catches(Flaw::ReleasedEarly, "no master", Rules::new(Dialect::Redis));
}

#[test]
fn a_walk_notices_a_fence_taken_for_granted() {
    catches(
        Flaw::FenceAssumed,
        "two masters",
        Rules::new(Dialect::Redis),
    );
}

#[test]
fn a_walk_notices_a_promotion_undone_while_it_may_still_execute() {
    catches(
        Flaw::LateNotKilled,
        "promotion may still execute",
        Rules::new(Dialect::Redis),
    );
}

#[test]
fn a_walk_notices_a_recovery_that_takes_silence_for_no() {
    catches(
        Flaw::SilenceMeansReplica,
        "master",
        Rules::new(Dialect::Redis),
    );
}

#[test]
fn a_walk_notices_a_fence_left_behind() {
    catches(Flaw::FenceNotLifted, "", Rules::new(Dialect::Redis));
}

#[test]
fn a_walk_notices_a_pause_left_behind() {
    let rules = Rules {
        far_behind: true,
        ..Rules::new(Dialect::Redis)
    };
    catches(Flaw::PauseNotLifted, "pause", rules);
}

#[test]
fn a_walk_notices_a_late_fence_that_outlives_its_operation() {
    catches(Flaw::RestoreUnsettled, "late", Rules::new(Dialect::Redis));
}

#[test]
fn a_walk_notices_an_old_master_attached_with_a_leak() {
    catches(
        Flaw::AttachedBlindly,
        "diverged",
        Rules {
            pops: 1,
            ..Rules::new(Dialect::Kvrocks)
        },
    );
}

#[test]
fn a_walk_notices_a_second_reading_that_is_skipped() {
    let rules = Rules {
        pops: 1,
        ..Rules::new(Dialect::Kvrocks)
    };
    catches(Flaw::SecondReadSkipped, "lacks", rules);
}

#[test]
fn a_walk_notices_a_lost_promotion_taken_for_a_refused_one() {
    let rules = Rules::new(Dialect::Redis);
    catches(Flaw::LossMeansRefused, "may still execute or has", rules);
}

#[test]
fn a_walk_notices_a_restarted_master_taken_at_its_word() {
    let rules = Rules {
        stale_restart: true,
        ..Rules::new(Dialect::Redis)
    };
    catches(Flaw::RebornBelieved, "may still execute or has", rules);
}

#[test]
fn a_walk_notices_a_journal_that_was_not_written() {
    catches(Flaw::NoJournal, "journal", Rules::new(Dialect::Redis));
}

#[test]
fn a_walk_notices_a_retry_that_never_comes() {
    catches(Flaw::NoRetry, "no end", Rules::new(Dialect::Redis));
}

#[test]
fn a_walk_notices_an_operation_that_is_left_with_an_order_under_way() {
    let rules = Rules {
        taken_over: true,
        ..Rules::new(Dialect::Redis)
    };
    catches(Flaw::LeftInHaste, "under way when it was left", rules);
}
