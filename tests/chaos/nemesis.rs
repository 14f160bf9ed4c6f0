//! What goes wrong, by the seed: a switchover is ordered, and at a random moment of it something
//! strikes, stays for a while and goes away again.
//!
//! The decisions are the seed's. What they meet is not: which step a switchover has come to when
//! the blow falls is the machine's affair, so a seed repeats the plan of a run and not its course.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value as Json;
use tokio::time::sleep;

use crate::dice::Dice;
use crate::nodes::{NewRole, pause};
use crate::relay::{Fault, Whose};
use crate::support::SHARD;
use crate::world::{IN_ORDER_WITHIN, World};

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Party {
    OldMaster,
    Target,
    Other,
}

const PARTIES: [Party; 3] = [Party::OldMaster, Party::Target, Party::Other];

#[derive(Clone, Copy, Debug)]
pub enum Strike {
    Nothing,
    Abort,
    ProxyKilled,
    ProxyFrozen,
    Frozen(Party),
    Killed(Party),
    Link(Party, Fault, Whose),
    LinkCut(Party, Whose),
    ClientLink(Fault),
    ClientsCut,
    Paused,
    Unpaused,
}

impl Strike {
    fn kind(self) -> String {
        match self {
            Strike::Frozen(party) => format!("{party:?} frozen"),
            Strike::Killed(party) => format!("{party:?} killed"),
            Strike::Link(_, fault, _) => format!("node link {}", word(fault)),
            Strike::LinkCut(..) => "node link cut".to_owned(),
            Strike::ClientLink(fault) => format!("client link {}", word(fault)),
            other => word(other),
        }
    }
}

fn word(of: impl std::fmt::Debug) -> String {
    let text = format!("{of:?}");
    text.split('(').next().unwrap_or_default().to_owned()
}

/// What a run may do to its servers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Cruelty {
    /// Switchovers alone: no client may notice anything.
    None,
    /// All but killing nodes.
    Faults,
    /// Nodes are killed as well, and come back with their data.
    Deaths,
}

#[derive(Debug, Default)]
pub struct Tally {
    pub outcomes: BTreeMap<String, u64>,
    pub strikes: BTreeMap<String, u64>,
}

pub struct Nemesis {
    pub dice: Dice,
    pub cruelty: Cruelty,
    pub tally: Tally,
}

impl Nemesis {
    pub fn new(dice: Dice, cruelty: Cruelty) -> Nemesis {
        Nemesis {
            dice,
            cruelty,
            tally: Tally::default(),
        }
    }

    fn fault(&mut self) -> Fault {
        let delay = self.dice.ms(1, 60);
        self.dice.pick(&[
            Fault::Delay(delay),
            Fault::Trickle,
            Fault::Silent,
            Fault::NoReplies,
            Fault::NoRequests,
            Fault::Swallow,
            Fault::Refuse,
        ])
    }

    fn strike(&mut self, relayed: bool) -> Strike {
        if self.cruelty == Cruelty::None || self.dice.percent(20) {
            return Strike::Nothing;
        }
        let party = self.dice.pick(&PARTIES);
        let fault = self.fault();
        let whose = self.dice.pick(&[
            Whose::Everybodys,
            Whose::Replication,
            Whose::AllButReplication,
        ]);
        let mut all = vec![
            Strike::Abort,
            Strike::ProxyKilled,
            Strike::ProxyKilled,
            Strike::ProxyFrozen,
            Strike::Frozen(party),
            Strike::Frozen(party),
            Strike::ClientLink(fault),
            Strike::ClientsCut,
            Strike::Paused,
            Strike::Unpaused,
        ];
        if relayed {
            all.extend([Strike::Link(party, fault, whose); 4]);
            all.push(Strike::LinkCut(party, whose));
        }
        if self.cruelty == Cruelty::Deaths {
            all.extend([Strike::Killed(party); 4]);
        }
        self.dice.pick(&all)
    }

    /// One switchover with what befalls it.
    pub async fn round(&mut self, world: &mut World) {
        let Some(from) = world.routed().await else {
            return world.in_order().await;
        };
        let relayed = world.nodes.all[0].relay.is_some();
        let names = world.nodes.names();
        let others: Vec<&String> = names.iter().filter(|name| **name != from).collect();
        let to = self.dice.pick(&others).clone();
        let strike = self.strike(relayed);
        let moment = self.dice.moment();
        let lasts = match self.dice.percent(70) {
            true => self.dice.ms(1, 250),
            false => self.dice.ms(250, 2500),
        };
        let parties = |party| match party {
            Party::OldMaster => from.clone(),
            Party::Target => to.clone(),
            Party::Other => {
                let other = names.iter().find(|name| **name != from && **name != to);
                other.expect("a third node").clone()
            }
        };
        let order = begin(world, &to).await;
        sleep(moment).await;
        let verbose = std::env::var_os("CHAOS_VERBOSE").is_some();
        if verbose {
            eprintln!("{from} -> {to} {order:?}: {strike:?} after {moment:?} for {lasts:?}");
        }
        let id = order.as_deref().unwrap_or_default();
        self.strikes(world, strike, id, lasts, parties).await;
        let (outcome, report) = match order {
            Ok(id) => outcome(world, &id).await,
            Err(status) => (format!("not begun ({status})"), String::new()),
        };
        if verbose {
            eprintln!("  {outcome} {report}");
        }
        *self.tally.outcomes.entry(outcome).or_default() += 1;
        *self.tally.strikes.entry(strike.kind()).or_default() += 1;
        // Now and then the next blow falls on a shard that has not recovered from the last one.
        if self.cruelty == Cruelty::None || self.dice.percent(85) {
            world.in_order().await;
            world.go_on().await;
        }
    }

    /// Strikes, waits, and takes it back.
    async fn strikes(
        &mut self,
        world: &mut World,
        strike: Strike,
        id: &str,
        lasts: Duration,
        name: impl Fn(Party) -> String,
    ) {
        let at = |party| world.nodes.at(&name(party));
        match strike {
            Strike::Nothing => {}
            Strike::Abort => {
                let _ = world.admin().delete(&format!("/v1/operations/{id}")).await;
            }
            Strike::ProxyKilled => {
                world.proxy.kill();
                if self.dice.percent(30) {
                    sleep(lasts).await;
                }
                world.restart_proxy().await;
            }
            Strike::ProxyFrozen => {
                world.proxy.signal("STOP").unwrap();
                sleep(lasts).await;
                world.proxy.signal("CONT").unwrap();
            }
            Strike::Frozen(party) => {
                let node = &world.nodes.all[at(party)];
                node.freeze();
                sleep(lasts).await;
                node.thaw();
            }
            Strike::Killed(party) => {
                let victim = at(party);
                kill(world, victim, lasts, || ()).await;
            }
            Strike::Link(party, fault, whose) => {
                let relay = world.nodes.all[at(party)].relay.as_ref();
                let relay = relay.expect("a relay");
                relay.strike(fault, whose);
                sleep(lasts).await;
                relay.clear();
            }
            Strike::LinkCut(party, whose) => {
                let relay = world.nodes.all[at(party)].relay.as_ref();
                relay.expect("a relay").cut(whose);
            }
            Strike::ClientLink(fault) => {
                world.front.strike(fault, Whose::Everybodys);
                sleep(lasts).await;
                world.front.clear();
            }
            Strike::ClientsCut => world.front.cut(Whose::Everybodys),
            Strike::Paused => {
                let node = &world.nodes.all[at(Party::OldMaster)];
                let ms = lasts.as_millis().min(900);
                node.run(&format!("CLIENT PAUSE {ms} WRITE")).await;
            }
            Strike::Unpaused => {
                let node = &world.nodes.all[at(Party::OldMaster)];
                node.run("CLIENT UNPAUSE").await;
            }
        }
    }
}

/// Orders a switchover; the id, or the status of the refusal.
pub async fn begin(world: &World, to: &str) -> Result<String, u16> {
    let body = serde_json::json!({ "to": to }).to_string();
    let path = format!("/v1/shards/{SHARD}/switchover?wait=false");
    match world.admin().post(&path, body).await {
        Ok(answer) if answer.status == 202 => Ok(answer.text("id")),
        Ok(answer) => Err(answer.status),
        Err(_) => Err(0),
    }
}

/// The journal knew nothing of it, or its end: there was nothing left to do.
pub const LOST_WITH_PROXY: &str = "not begun, or over, when the proxy died";

/// Waits for the end of an operation, whichever proxy ends it; gives its outcome and whole report.
pub async fn outcome(world: &World, id: &str) -> (String, String) {
    let deadline = Instant::now() + IN_ORDER_WITHIN;
    while Instant::now() < deadline {
        if let Ok(answer) = world.admin().get(&format!("/v1/operations/{id}")).await {
            if answer.status == 404 {
                return (LOST_WITH_PROXY.to_owned(), String::new());
            }
            let json = answer.json().unwrap_or_default();
            if let Json::String(outcome) = &json["report"]["outcome"] {
                return (outcome.clone(), json["report"].to_string());
            }
        }
        pause().await;
    }
    let status = world.status().await;
    ("untold".to_owned(), format!("{status:?}"))
}

/// Kills a node, and lets its supervisor start it with the role that the proxy sees it in.
pub async fn kill(
    world: &mut World,
    victim: usize,
    lasts: Duration,
    killed: impl FnOnce(),
) -> bool {
    if !world.nodes.all[victim].is_durable().await {
        return false;
    }
    let from = world.routed().await;
    world.nodes.all[victim].kill();
    killed();
    sleep(lasts).await;
    let deadline = Instant::now() + Duration::from_secs(8);
    let mut leader = world.routed().await;
    while leader.is_none() && Instant::now() < deadline {
        pause().await;
        leader = world.routed().await;
    }
    let leader = leader.or(from);
    let own = world.nodes.all[victim].name.clone();
    let role = match &leader {
        Some(leader) if *leader != own => NewRole::Replica(leader),
        _ => NewRole::Master,
    };
    world.nodes.all[victim].restart(Some(role)).await;
    true
}
