//! What must hold: in every state, when the target is promoted, and whenever an operation is over.

use pointsman::switchover::plan::{Effect, Master, OldNow, Outcome, Timer};

use crate::world::{Charge, Flight, Journal, Lane, Late, Role, Server, World, bit};

pub fn acknowledges(server: &Server) -> bool {
    server.alive && server.role == Role::Master && !server.paused
}

/// Acknowledged writes of the old master that the target does not hold.
fn missing(world: &World) -> u8 {
    world.old.log.saturating_sub(world.target.log)
}

fn claim(holds: bool, otherwise: &str) -> Result<(), String> {
    if holds {
        Ok(())
    } else {
        Err(otherwise.to_owned())
    }
}

/// Nothing is done to a node that a crash right now could not be traced back to.
pub fn before(world: &World, effect: &Effect) -> Result<(), String> {
    let harmless = matches!(
        effect,
        Effect::Preflight | Effect::Record(_) | Effect::ReadOld { .. } | Effect::ReadTarget
    );
    let recorded = world.journal == Journal::Begun;
    claim(
        harmless || recorded,
        "a node is touched without a journal record",
    )
}

pub fn at_promotion(world: &World) -> Result<(), String> {
    claim(
        missing(world) <= world.excused,
        "promoted although the target lacks a write",
    )
}

pub fn always(world: &World) -> Result<(), String> {
    let (old, target) = (&world.old, &world.target);
    // Roles, not only who is alive and unpaused: a pause ends, and the dead come back.
    let masters = old.role == Role::Master && target.role == Role::Master;
    claim(
        world.stale || !masters,
        "two masters can acknowledge writes",
    )?;
    let under_way = matches!(
        world.flight(Lane::Target),
        Flight::Sent(Effect::Promote) | Flight::Executed(_)
    ) && target.role == Role::Master;
    let promise = matches!(world.flight(Lane::Target), Flight::Sent(Effect::Promote))
        || world.late & Late::Promote as u8 != 0
        || under_way
        || target.role == Role::Master;
    let admits = !world.down && world.plan.is_some() && !world.held;
    claim(
        !(admits && world.route == Master::Old && promise),
        "writes go to the old master while the promotion may still execute or has",
    )?;
    claim(
        !(admits && world.route == Master::Target && target.role != Role::Master),
        "writes go to a target that is no master",
    )?;
    claim(
        old.role != Role::Follows || missing(world) == 0,
        "the old master was attached although it has diverged",
    )?;
    beside(world)
}

/// What is promised for another proxy that has heard everything.
fn beside(world: &World) -> Result<(), String> {
    let Some(peer) = world.peer.filter(|peer| !peer.silent) else {
        return Ok(());
    };
    let running = world.plan.is_some() && !world.down;
    claim(
        !running || world.old.role != Role::Fenced || peer.held || peer.routed,
        "another proxy does not hold, and what is published through it reaches nobody",
    )?;
    let writes = running && !world.held && world.route == Master::Target;
    claim(
        !writes || peer.routed,
        "writes go to the target while another proxy reads from the old master",
    )?;
    claim(
        !peer.routed || world.target.role == Role::Master,
        "another proxy reads from a target that is no master",
    )
}

/// Whoever is held has a clock running for him.
pub fn bounded(world: &World) -> Result<(), String> {
    let runs = world.timers & bit(Timer::Hold) != 0;
    claim(!world.held || runs, "writes are held without a limit")
}

pub fn at_the_end(world: &World) -> Result<(), String> {
    if world.charge == Charge::Theirs {
        return when_left(world);
    }
    let (old, target) = (&world.old, &world.target);
    // The end of a fence changes nothing about a node that is a master.
    let harmless = match old.role {
        Role::Master => Late::Restore as u8,
        Role::Fenced | Role::Follows => 0,
    };
    claim(
        world.late & !harmless == 0,
        "a late command can still execute when all is over",
    )?;
    claim(!old.paused, "the pause was left behind")?;
    claim(world.timers == 0, "a timer runs on when all is over")?;
    claim(!world.held, "writes are still held when all is over")?;
    let released = world.peer.is_none_or(|peer| !peer.held || peer.silent);
    claim(released, "another proxy still holds when all is over")?;
    let switched = match (&world.plan, world.said, world.journal) {
        (Some(_), Some((outcome, not_carried, old_now)), _) => {
            said_true(world, outcome, not_carried, old_now)?;
            matches!(outcome, Outcome::Switched | Outcome::SwitchedWithLeak)
        }
        (Some(_), None, _) => return Err("it ended without a report".to_owned()),
        // The proxy came back and its journal told it that there is nothing to do.
        (None, _, Journal::Ended(outcome)) => {
            matches!(outcome, Outcome::Switched | Outcome::SwitchedWithLeak)
        }
        (None, _, Journal::Nothing) => false,
        (None, _, Journal::Begun) => return Err("an unfinished record was ignored".to_owned()),
    };
    // What a stale restart did after the last command is the topology's business.
    let settled = if switched {
        target.role == Role::Master && (world.stale || old.role != Role::Master)
    } else {
        target.role != Role::Master && old.role == Role::Master
    };
    claim(
        settled,
        "the roles are not what the outcome says, or the fence was left behind",
    )
}

/// The nodes are somebody else's; clients are not.
fn when_left(world: &World) -> Result<(), String> {
    claim(world.timers == 0, "a timer runs on when it was left")?;
    claim(!world.held, "writes are still held when it was left")?;
    for lane in [Lane::Old, Lane::Target] {
        // A read that nobody waits for changes nothing.
        let changes = match world.flight(lane) {
            Flight::Sent(effect) => !matches!(effect, Effect::ReadOld { .. } | Effect::ReadTarget),
            Flight::None | Flight::Executed(_) => false,
        };
        claim(!changes, "an order to a node is under way when it was left")?;
    }
    let route = match world.said {
        Some((outcome, ..)) if outcome.is_switched() => Master::Target,
        Some((Outcome::Unknown, ..)) => Master::Nobody,
        Some(_) => Master::Old,
        // It had ended before the proxy was started again.
        None if world.plan.is_none() => Master::Nobody,
        None => return Err("it was left without a report".to_owned()),
    };
    claim(world.route == route, "the route is not what was reported")
}

/// The last report, word by word.
fn said_true(world: &World, outcome: Outcome, lost: u64, now: OldNow) -> Result<(), String> {
    let missing = u64::from(missing(world));
    match outcome {
        Outcome::Switched => {
            claim(
                missing == 0,
                "it says switched, and the target lacks a write",
            )?;
            claim(
                now == OldNow::Attached,
                "it says switched, and the old master is not attached",
            )?;
            claim(
                world.stale || world.old.role == Role::Follows,
                "the old master is not attached",
            )?;
            claim(
                world.route == Master::Target,
                "the route does not name the target",
            )
        }
        Outcome::SwitchedWithLeak => {
            claim(lost >= missing, "it says less than was lost")?;
            claim(
                world.stale || world.old.role == Role::Fenced,
                "a leak was not kept apart",
            )?;
            claim(
                world.route == Master::Target,
                "the route does not name the target",
            )
        }
        Outcome::Refused if now == OldNow::Unknown => claim(
            world.stale && world.route == Master::Nobody,
            "nobody was promoted, and yet there is a route",
        ),
        Outcome::RolledBack | Outcome::Refused => {
            claim(
                now == OldNow::Master,
                "it is over, and the old master is not restored",
            )?;
            claim(
                world.route == Master::Old,
                "the route does not name the old master",
            )
        }
        Outcome::Unknown => Err("it ended without knowing how".to_owned()),
    }
}
