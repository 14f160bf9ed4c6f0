//! Every program of a shard killed, and frozen, at every step of a switchover.
//!
//! A relay withholds the order of the step, or its reply; the blow falls; what was withheld is let
//! go. Afterwards there is one master, followed by the others, without pause or fence; the outcome
//! is told; and at the end every history is judged. The outcomes are printed as a table.

use std::time::Duration;

use tokio::time::sleep;

use crate::dice::Dice;
use crate::nemesis::{LOST_WITH_PROXY, Party, begin, kill, outcome};
use crate::proof::judge;
use crate::runs::{redis, say};
use crate::support::{Wire, in_phase};
use crate::trap::{Bait, Trap, When};
use crate::world::{Setting, World};

const DEAD: Duration = Duration::from_millis(400);
/// Orders that may be refused before a step is come to.
const ORDERS_MAX: usize = 5;
/// Past the time that a switchover waits for one who is silent.
const FROZEN: Duration = Duration::from_millis(1600);

const FENCE: &[u8] = b"OF\r\n$9\r\n127.0.0.1\r\n$1\r\n1\r\n";
const FOLLOW: &[u8] = b"OF\r\n$9\r\n127.0.0.1\r\n$5\r\n";
const PROMOTE: &[u8] = b"*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n";
/// A write whose reply is withheld, so that the drain waits.
const STUCK: &[u8] = b"stuck";

struct Step {
    name: &'static str,
    at: Party,
    bait: Bait,
    /// The promotion has been executed when the blow falls.
    promoted: bool,
}

impl Step {
    fn is_delicate(&self) -> bool {
        self.bait.words == PROMOTE || self.name == "fence executed"
    }
}

const fn step(name: &'static str, at: Party, words: &'static [u8], when: When) -> Step {
    let bait = Bait {
        behind: None,
        words,
        when,
    };
    Step {
        name,
        at,
        bait,
        promoted: false,
    }
}

fn steps() -> Vec<Step> {
    use Party::*;
    use When::*;
    let mut steps = vec![
        step("preflight", OldMaster, b"pointsman-20", Before),
        step("hold, a write is under way", OldMaster, STUCK, After),
        step("fence ordered", OldMaster, FENCE, Before),
        step("fence executed", OldMaster, FENCE, After),
        step("prove", OldMaster, b"INFO", Before),
        step("promotion ordered", Target, PROMOTE, Before),
        step("promotion executed", Target, PROMOTE, After),
        step("demotion ordered", OldMaster, FOLLOW, Before),
        step("demotion executed", OldMaster, FOLLOW, After),
        step("other replica ordered to follow", Other, FOLLOW, Before),
        step("other replica follows", Other, FOLLOW, After),
    ];
    for step in &mut steps {
        if step.name == "prove" {
            step.bait.behind = Some(FENCE);
        }
        step.promoted = step.at == Other || step.bait.words == FOLLOW;
        step.promoted |= step.name == "promotion executed";
    }
    steps
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Victim {
    Proxy,
    Node(Party),
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Blow {
    Kill,
    Freeze,
}

/// Who is who in one switchover.
struct Cast {
    from: String,
    to: String,
    other: String,
}

impl Cast {
    async fn choose(world: &World) -> Cast {
        let from = world.routed().await.expect("a master");
        let mut others = world.nodes.names();
        others.retain(|name| *name != from);
        let [to, other] = <[String; 2]>::try_from(others).expect("two replicas");
        Cast { from, to, other }
    }

    fn node(&self, world: &World, party: Party) -> usize {
        world.nodes.at(match party {
            Party::OldMaster => &self.from,
            Party::Target => &self.to,
            Party::Other => &self.other,
        })
    }
}

/// One field of the table.
async fn field(world: &mut World, step: &Step, victim: Victim, blow: Blow) -> String {
    let durable = world.nodes.all.iter().map(|node| node.durable());
    for node in durable {
        node.await;
    }
    let cast = Cast::choose(world).await;
    let at = cast.node(world, step.at);
    let relay = world.nodes.all[at].relay.as_ref();
    let trap = relay.expect("a relay").trap.clone();
    trap.set(step.bait);
    let mut stuck = Wire::connect(&world.proxy.addr).await.unwrap();
    let id = if step.bait.words == STUCK {
        stuck.send(&["SET", "stuck", "1"]).await.unwrap();
        assert!(trap.sprung().await, "the write does not arrive");
        let id = begin(world, &cast.to).await.expect("an order");
        in_phase(&world.proxy, &id, "hold").await;
        id
    } else {
        come_to(world, &cast, &trap, step).await
    };
    match victim {
        Victim::Proxy => strike_proxy(world, blow, &trap).await,
        Victim::Node(party) => strike_node(world, cast.node(world, party), blow, &trap).await,
    }
    let (told, report) = outcome(world, &id).await;
    let hands = world.by_hand;
    world.in_order().await;
    world.go_on().await;
    world.assert_unpaused().await;
    let mut known = vec!["switched", "switched_with_leak", "rolled_back", "refused"];
    if victim == Victim::Proxy && step.name == "preflight" {
        known.push(LOST_WITH_PROXY);
    }
    let is_known = known.contains(&told.as_str());
    assert!(is_known, "{}: {told} {report}", step.name);
    let may_be = !step.promoted || told.starts_with("switched");
    assert!(may_be, "{}: {told} {report}", step.name);
    match world.by_hand - hands {
        0 => told,
        count => format!("{told}, {count} by hand"),
    }
}

/// Orders the switchover, which comes to the step. Nodes that have just returned may not be ready to be
/// switched yet: an order that was refused without having come to it is given again.
async fn come_to(world: &World, cast: &Cast, trap: &Trap, step: &Step) -> String {
    for _ in 0..ORDERS_MAX {
        let id = begin(world, &cast.to).await.expect("an order");
        tokio::select! {
            sprung = trap.sprung() => {
                assert!(sprung, "it does not come to: {}", step.name);
                return id;
            }
            (told, report) = outcome(world, &id) => {
                assert_eq!(told, "refused", "before {}: {report}", step.name);
                eprintln!("  before {}: {report}", step.name);
            }
        }
    }
    panic!("it is refused all the time: {}", step.name);
}

async fn strike_proxy(world: &mut World, blow: Blow, trap: &Trap) {
    match blow {
        Blow::Kill => {
            world.proxy.kill();
            trap.let_go();
            world.restart_proxy().await;
        }
        Blow::Freeze => {
            world.proxy.signal("STOP").unwrap();
            trap.let_go();
            sleep(FROZEN).await;
            world.proxy.signal("CONT").unwrap();
        }
    }
}

async fn strike_node(world: &mut World, victim: usize, blow: Blow, trap: &Trap) {
    match blow {
        Blow::Kill => {
            let killed = kill(world, victim, DEAD, || trap.let_go()).await;
            assert!(killed, "its log is not written");
        }
        Blow::Freeze => {
            world.nodes.all[victim].freeze();
            trap.let_go();
            sleep(FROZEN).await;
            world.nodes.all[victim].thaw();
        }
    }
}

/// All steps for one victim.
async fn check(victim: Victim) {
    let mut dice = Dice::new(5);
    let setting = Setting {
        relayed: true,
        clients: 6,
        past: 0,
        patience_ms: 800,
    };
    let mut world = World::start(&redis(), setting, &mut dice).await;
    // Frozen programs are waited for, which takes long: all of them by `make chaos` alone.
    let whole = std::env::var_os("CHAOS_SECONDS").is_some();
    let mut table = format!("{victim:?} is killed, is frozen, and what the operation then says:\n");
    for step in steps() {
        let killed = field(&mut world, &step, victim, Blow::Kill).await;
        let frozen = match whole || step.is_delicate() {
            true => field(&mut world, &step, victim, Blow::Freeze).await,
            false => "-".to_owned(),
        };
        table += &format!("  {:34} {killed:40} {frozen}\n", step.name);
    }
    let (book, _) = world.finish().await;
    assert_eq!(book.complaints, Vec::<String>::new());
    judge(&book).assert_linearizable();
    say(&table);
}

#[tokio::test]
async fn the_proxy_may_die_or_hang_at_every_step() {
    check(Victim::Proxy).await;
}

#[tokio::test]
async fn the_old_master_may_die_and_return_or_hang_at_every_step() {
    check(Victim::Node(Party::OldMaster)).await;
}

#[tokio::test]
async fn the_target_may_die_and_return_or_hang_at_every_step() {
    check(Victim::Node(Party::Target)).await;
}

#[tokio::test]
async fn another_replica_may_die_and_return_or_hang_at_every_step() {
    check(Victim::Node(Party::Other)).await;
}
