//! Servers, relays, the proxy and clients of one run, and what must be true when it is over.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pointsman::cli::demo::servers::EngineKind;

use crate::book::Book;
use crate::clients::{Clients, Way};
use crate::dice::Dice;
use crate::nodes::{Node, Nodes, pause};
use crate::relay::Relay;
use crate::support::{Admin, Engine, Proxy, Role, SHARD, Settings, Workspace};

/// Faults are over and servers are back: everything must be in order again within this time.
pub const IN_ORDER_WITHIN: Duration = Duration::from_secs(40);
/// After this time a person puts nodes right that the proxy rightly keeps apart.
const BY_HAND_AFTER: Duration = Duration::from_secs(6);
/// The pause that the proxy asks for, and how soon a write that nobody pauses is answered.
const PAUSE_MS: u64 = 3000;
const UNPAUSED_WITHIN: Duration = Duration::from_millis(1500);

/// What surrounds the proxy in a run.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// The proxy and the replicas reach every node through a relay.
    pub relayed: bool,
    /// Clients through the proxy, and past it.
    pub clients: usize,
    pub past: usize,
    /// How long a switchover waits for its drain, and for the target.
    pub patience_ms: u64,
}

pub struct World {
    pub nodes: Nodes,
    pub proxy: Proxy,
    /// Between the clients and the proxy, whichever process that is.
    pub front: Relay,
    pub clients: Clients,
    workspace: Arc<Workspace>,
    settings: Settings,
    pub engine: EngineKind,
    /// Nodes that had to be put right by hand.
    pub by_hand: u64,
    /// Nodes that crashed by themselves and were started again.
    pub crashes: u64,
}

impl World {
    pub async fn start(engine: &Engine, setting: Setting, dice: &mut Dice) -> World {
        let workspace = Workspace::create("pointsman-chaos").unwrap();
        let nodes = Nodes::start(engine, &workspace, 3, setting.relayed).await;
        let settings = Settings {
            proxy: "hold_budget_ms = 1500\nlog_level = \"info\"".into(),
            switchover: format!(
                "sync_timeout_ms = {0}\ndrain_timeout_ms = {0}\npause_timeout_ms = {PAUSE_MS}\n\
                 demote_timeout_ms = 1000\nconfig_rewrite = true",
                setting.patience_ms
            ),
            ..Settings::default()
        };
        let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
        let proxy = Proxy::start(binary, &workspace, &nodes.names(), &settings).await;
        let proxy = proxy.unwrap_or_else(|error| panic!("{error:#}"));
        let front = Relay::start(&proxy.addr).await;
        let mut ways = vec![Way::Proxy(front.name.clone()); setting.clients];
        let direct = nodes.all.iter().map(|node| node.addr.clone()).collect();
        ways.extend(vec![Way::Past(direct); setting.past]);
        let clients = Clients::start(ways, engine.kind == EngineKind::Redis, dice);
        let mut world = World {
            nodes,
            proxy,
            front,
            clients,
            workspace,
            settings,
            engine: engine.kind,
            by_hand: 0,
            crashes: 0,
        };
        world.go_on().await;
        world
    }

    /// Starts another proxy with the journal of the one that was killed. It need not have a master.
    pub async fn restart_proxy(&mut self) {
        let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
        let names = self.nodes.names();
        self.proxy = Proxy::launch(binary, &self.workspace, &names, &self.settings).unwrap();
        self.front.leads_to(&self.proxy.addr);
        let deadline = Instant::now() + IN_ORDER_WITHIN;
        while self.proxy.admin.get("/healthz").await.is_err() {
            assert!(Instant::now() < deadline, "{}", self.proxy.log_tail());
            pause().await;
        }
    }

    pub fn admin(&self) -> &Admin {
        &self.proxy.admin
    }

    /// The shard as the proxy shows it; `None` while it is not there to ask.
    pub async fn status(&self) -> Option<serde_json::Value> {
        let answer = self.admin().get(&format!("/v1/shards/{SHARD}")).await;
        answer.ok()?.json().ok()
    }

    /// The master by the route of the proxy.
    pub async fn routed(&self) -> Option<String> {
        Some(self.status().await?["master"].as_str()?.to_owned())
    }

    /// Returns when clients have further replies.
    pub async fn go_on(&mut self) {
        let before = self.clients.acked();
        let deadline = Instant::now() + IN_ORDER_WITHIN;
        while self.clients.acked() < before + 40 {
            assert!(Instant::now() < deadline, "nobody gets replies any more");
            pause().await;
        }
    }

    /// Waits until there is one master, the proxy routes to it with an open gate and no operation
    /// under way, and the others follow. A node that the proxy keeps apart is attached by hand.
    pub async fn in_order(&mut self) {
        let began = Instant::now();
        let mut helped = began;
        loop {
            let Err(why) = self.is_in_order().await else {
                break;
            };
            self.revive().await;
            if began.elapsed() > IN_ORDER_WITHIN {
                let proxy = self.proxy.log_tail();
                let nodes: String = self.nodes.all.iter().map(Node::log_tail).collect();
                panic!("not in order after {IN_ORDER_WITHIN:?}: {why}\n{proxy}\n{nodes}");
            }
            if began.elapsed() > BY_HAND_AFTER && helped.elapsed() > Duration::from_secs(2) {
                helped = Instant::now();
                self.put_right().await;
            }
            pause().await;
        }
    }

    /// Kvrocks (commit 5fccd57c) crashes at times, as when it takes a full copy: its supervisor
    /// starts it again as it was.
    async fn revive(&mut self) {
        if self.engine == EngineKind::Redis {
            return;
        }
        for node in &mut self.nodes.all {
            if node.has_ended() {
                self.crashes += 1;
                eprintln!("  crashed by itself: {}", node.log_tail());
                node.restart(None).await;
            }
        }
    }

    async fn is_in_order(&self) -> Result<(), String> {
        let status = self.status().await.ok_or("the proxy does not answer")?;
        let routed = status["master"].as_str().ok_or("the proxy has no master")?;
        if status["gate"] != "open" || !status["operation"].is_null() {
            return Err(format!("{status}"));
        }
        let master = self.nodes.master().await.ok_or("not one master")?;
        if master.name != routed {
            return Err(format!("{} is master, routed to {routed}", master.name));
        }
        let astray = self.nodes.followers_of(routed).await;
        match astray.is_empty() {
            true => Ok(()),
            false => Err(astray.join("; ")),
        }
    }

    /// What an operator does with nodes that follow nobody of ours: the route says who leads.
    async fn put_right(&mut self) {
        let Some(leader) = self.routed().await else {
            return;
        };
        if self.nodes.all[self.nodes.at(&leader)].role().await != Some(Role::Master) {
            return;
        }
        for node in self.nodes.all.iter().filter(|node| node.name != leader) {
            let follows = match node.role().await {
                Some(Role::Replica { master, .. }) => master == leader,
                _ => false,
            };
            if !follows && node.follow(&leader).await {
                self.by_hand += 1;
                eprintln!("  by hand: {} follows {leader}", node.name);
            }
        }
    }

    /// No pause is left: the master itself answers a write long before the proxy's pause would end.
    pub async fn assert_unpaused(&self) {
        let master = self.nodes.master().await.expect("one master");
        let mut wire = master.wire().await.expect("a connection");
        wire = wire.with_deadline(UNPAUSED_WITHIN);
        let answer = wire.run("SET probe 1").await;
        assert!(answer.is_ok_and(|answer| answer.ok()), "a pause is left");
    }

    /// Ends the clients, looks at every key on every node, and gives the record.
    pub async fn finish(mut self) -> (Book, u64) {
        self.in_order().await;
        self.go_on().await;
        self.assert_unpaused().await;
        let World { clients, nodes, .. } = self;
        let mut book = clients.finish().await;
        let master = nodes.master().await.expect("one master").name.clone();
        let deadline = Instant::now() + IN_ORDER_WITHIN;
        while !nodes.followers_of(&master).await.is_empty() {
            assert!(Instant::now() < deadline, "replicas do not catch up");
            pause().await;
        }
        crate::proof::look_at_all(&mut book, &nodes, &master).await;
        (book, self.by_hand)
    }
}
