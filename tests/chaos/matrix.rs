//! Every program of a shard killed, and frozen, at every step of a switchover.
//!
//! A relay withholds the order of the step, or its reply; the blow falls; what was withheld is let
//! go. Afterwards there is one master, followed by the others, without pause or fence; the outcome
//! is told; and at the end every history is judged. The outcomes are printed as a table, for Redis,
//! and for Kvrocks where `KVROCKS_BIN` names it.

use std::time::{Duration, Instant};

use pointsman::cli::demo::servers::EngineKind;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::nemesis::{LOST_WITH_PROXY, Party, begin, kill, outcome};
use crate::proof::judge;
use crate::runs::{redis, say};
use crate::support::{Engine, EngineChoice, Wire, in_phase, say_skipped};
use crate::trap::{Bait, Trap, When};
use crate::world::{Setting, World};

const DEAD: Duration = Duration::from_millis(400);
/// Orders that may be refused before a step is come to.
const ORDERS_MAX: usize = 5;
/// Past the time that a switchover waits for one who is silent.
const FROZEN: Duration = Duration::from_millis(1600);

/// How long a victim's fields on Kvrocks may take: past it nobody is frozen any more.
const KVROCKS_WITHIN: Duration = Duration::from_secs(100);

/// What a request of a step says.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Words {
    Preflight,
    /// A write whose reply is withheld, so that the drain waits.
    Stuck,
    Fence,
    Prove,
    Promote,
    Follow,
}

impl Words {
    /// As an engine is told, with the target at this name.
    fn of(self, engine: EngineKind, target: &str) -> Vec<u8> {
        let (host, port) = target.rsplit_once(':').unwrap();
        let follow = format!("OF\r\n$9\r\n{host}\r\n");
        let words = match (self, engine) {
            (Words::Preflight, _) => "pointsman-20".to_owned(),
            (Words::Stuck, _) => "stuck".to_owned(),
            (Words::Prove, _) => "INFO".to_owned(),
            // The only transaction that begins so. Its sink is another one each time.
            (Words::Fence, EngineKind::Redis) => "MULTI\r\n*4\r\n$6\r\nCONFIG\r\n".to_owned(),
            // The sink listens at a port of the proxy's: the first order to follow is the fence.
            (Words::Fence, EngineKind::Kvrocks) => follow,
            // Redis is asked before whether it would let us.
            (Words::Promote, EngineKind::Redis) => {
                "*3\r\n$9\r\nREPLICAOF\r\n$2\r\nNO\r\n".to_owned()
            }
            (Words::Promote, EngineKind::Kvrocks) => "OF\r\n$2\r\nNO\r\n".to_owned(),
            (Words::Follow, _) => format!("{follow}${}\r\n{port}\r\n", port.len()),
        };
        words.into_bytes()
    }
}

#[derive(Clone, Copy)]
struct Step {
    name: &'static str,
    at: Party,
    words: Words,
    when: When,
}

impl Step {
    fn is_delicate(&self) -> bool {
        self.words == Words::Promote || self.name == "fence executed"
    }

    /// The promotion has been executed when the blow falls.
    fn is_promoted(&self) -> bool {
        self.words == Words::Follow || self.name == "promotion executed"
    }

    fn bait(&self, engine: EngineKind, target: &str) -> Bait {
        let behind = (self.words == Words::Prove).then(|| Words::Fence.of(engine, target));
        Bait {
            behind,
            words: self.words.of(engine, target),
            when: self.when,
        }
    }
}

const fn step(name: &'static str, at: Party, words: Words, when: When) -> Step {
    Step {
        name,
        at,
        words,
        when,
    }
}

const STEPS: [Step; 11] = {
    use Party::*;
    use When::*;
    [
        step("preflight", OldMaster, Words::Preflight, Before),
        step("hold, a write is under way", OldMaster, Words::Stuck, After),
        step("fence ordered", OldMaster, Words::Fence, Before),
        step("fence executed", OldMaster, Words::Fence, After),
        step("prove", OldMaster, Words::Prove, Before),
        step("promotion ordered", Target, Words::Promote, Before),
        step("promotion executed", Target, Words::Promote, After),
        step("demotion ordered", OldMaster, Words::Follow, Before),
        step("demotion executed", OldMaster, Words::Follow, After),
        step(
            "other replica ordered to follow",
            Other,
            Words::Follow,
            Before,
        ),
        step("other replica follows", Other, Words::Follow, After),
    ]
};

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
    trap.set(step.bait(world.engine, &cast.to));
    let mut stuck = Wire::connect(&world.proxy.addr).await.unwrap();
    let id = if step.words == Words::Stuck {
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
    let (hands, crashes) = (world.by_hand, world.crashes);
    world.in_order().await;
    world.go_on().await;
    world.assert_unpaused().await;
    let mut known = vec!["switched", "switched_with_leak", "rolled_back", "refused"];
    if victim == Victim::Proxy && step.name == "preflight" {
        known.push(LOST_WITH_PROXY);
    }
    let is_known = known.contains(&told.as_str());
    assert!(is_known, "{}: {told} {report}", step.name);
    let may_be = !step.is_promoted() || told.starts_with("switched");
    assert!(may_be, "{}: {told} {report}", step.name);
    let mut told = told;
    for (count, what) in [
        (world.by_hand - hands, "by hand"),
        (world.crashes - crashes, "crashed by themselves"),
    ] {
        if count > 0 {
            told += &format!(", {count} {what}");
        }
    }
    told
}

/// Orders the switchover, which comes to the step. Nodes that have just returned may not be ready
/// to be switched yet: an order that was refused without having come to it is given again.
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
    check_on(&redis(), victim).await;
}

/// The same on Kvrocks, where there is one.
async fn check_kvrocks(victim: Victim) {
    match Engine::find(EngineChoice::Kvrocks) {
        Ok(engine) => check_on(&engine, victim).await,
        Err(error) => say_skipped(&error.to_string()),
    }
}

async fn check_on(engine: &Engine, victim: Victim) {
    let mut dice = Dice::new(5);
    let setting = Setting {
        relayed: true,
        clients: 6,
        past: 0,
        patience_ms: 800,
    };
    let mut world = World::start(engine, setting, &mut dice).await;
    // Frozen programs are waited for, which takes long: all of them by `make chaos` alone.
    let whole = std::env::var_os("CHAOS_SECONDS").is_some();
    let began = Instant::now();
    let is_in_time = || engine.kind == EngineKind::Redis || began.elapsed() < KVROCKS_WITHIN;
    let mut table = format!(
        "{:?}: {victim:?} is killed, is frozen, and what the operation then says:\n",
        engine.kind
    );
    for step in STEPS {
        let killed = field(&mut world, &step, victim, Blow::Kill).await;
        let frozen = match (whole || step.is_delicate()) && is_in_time() {
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

#[tokio::test]
async fn the_proxy_may_die_or_hang_at_every_step_on_kvrocks() {
    check_kvrocks(Victim::Proxy).await;
}

#[tokio::test]
async fn a_kvrocks_master_may_die_and_return_or_hang_at_every_step() {
    check_kvrocks(Victim::Node(Party::OldMaster)).await;
}

#[tokio::test]
async fn a_kvrocks_target_may_die_and_return_or_hang_at_every_step() {
    check_kvrocks(Victim::Node(Party::Target)).await;
}

#[tokio::test]
async fn another_kvrocks_replica_may_die_and_return_or_hang_at_every_step() {
    check_kvrocks(Victim::Node(Party::Other)).await;
}
