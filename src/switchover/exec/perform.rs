//! Effect by effect: what the plan orders, put under way.

use std::task::{Context, Poll, Waker};

use super::*;

impl<G: Gates, R: Routes> Exec<G, R> {
    pub(super) async fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::Preflight => self.begin_preflight(),
            Effect::Record(record) => self.record(record),
            Effect::Warm => self.warm(),
            Effect::Hold => self.begin_hold(),
            Effect::Release => self.release(),
            Effect::HoldPeers => self.hold_peers(),
            Effect::RoutePeers => self.route_peers(),
            Effect::ReleasePeers => self.release_peers(),
            Effect::Publish(master) => self.publish(master),
            Effect::Repoint => self.repoint(),
            Effect::Arm(timer) => self.arm(timer),
            Effect::Disarm(timer) => {
                if let Some(at) = self.timers.get_mut(index(timer)) {
                    *at = None;
                }
            }
            Effect::Alarm(alarm) => self.alarm(alarm),
            Effect::TooLate => {}
            Effect::Report(verdict) => {
                self.report(verdict).await;
                // What goes on behind it claims for each effect.
                self.claim = Claim::default();
            }
            effect => self.ask(effect),
        }
    }

    /// Effects on one of the two nodes.
    fn ask(&mut self, effect: Effect) {
        let Some(desk) = self.desk.clone() else {
            debug_assert!(false, "{effect:?} before preflight");
            return;
        };
        let node = match effect {
            Effect::ReadTarget | Effect::Promote | Effect::Settle(Node::Target) => Node::Target,
            _ => Node::Old,
        };
        let pause = self.site.switchover().pause_timeout;
        let within = self.site.switchover().demote_timeout;
        let claims = self.claims();
        let bench = self.bench(node);
        debug_assert!(
            bench.under_way.is_none(),
            "{effect:?} while another is under way"
        );
        let (at_hand, answered_at) = (bench.at_hand.take(), bench.answered_at);
        bench.under_way = match effect {
            Effect::Pause => Some(Box::pin(desk.pause(at_hand, pause))),
            Effect::Fence => Some(Box::pin(desk.fence(at_hand))),
            Effect::ReadOld { unpause, apart } => {
                let not_before = answered_at.filter(|_| apart);
                Some(Box::pin(desk.read_old(at_hand, unpause, not_before)))
            }
            Effect::ReadTarget => Some(Box::pin(desk.read_target(at_hand))),
            Effect::Restore {
                settle,
                unfence,
                unpause,
            } => {
                let restoring = desk.clone().restore(at_hand, settle, unfence, unpause);
                Some(Box::pin(desk.claimed(claims, node, node, restoring)))
            }
            Effect::Promote => {
                let promoter = desk.clone();
                let promoting = async move {
                    match promoter.old_was_down {
                        true => promoter.promote_alone(at_hand).await,
                        false => promoter.promote(at_hand).await,
                    }
                };
                Some(Box::pin(desk.claimed(claims, node, node, promoting)))
            }
            Effect::Settle(node) => {
                let settling = desk.clone().settle(node, at_hand);
                Some(Box::pin(desk.claimed(claims, node, node, settling)))
            }
            Effect::Demote {
                attach,
                settle,
                unpause,
            } => {
                let order = Demotion {
                    attach,
                    settle,
                    unpause,
                    within,
                };
                let demoting = desk.clone().demote(at_hand, order);
                Some(Box::pin(desk.claimed(claims, Node::Target, node, demoting)))
            }
            _ => None,
        };
    }

    fn claims(&self) -> Claims {
        match self.claim.nodes() {
            0 => Claims::Each,
            _ => Claims::Held,
        }
    }

    pub(super) fn question(&self) -> Question {
        Question {
            nodes: self.site.nodes.clone(),
            credentials: self.site.credentials.clone(),
            name: connection_name(&self.id),
            from: self.from.clone(),
            to: self.to.clone(),
            max_lag: self.site.switchover().max_lag,
            within: self.site.connect_timeout,
            sentinels: self.site.sentinels.clone(),
        }
    }

    fn begin_preflight(&mut self) {
        let question = self.question();
        let fence_address = self.site.switchover().fence_address.clone();
        let operation = self.id.clone();
        let preparing = self.side.spawn(async move {
            // What is looked at after the claim is not changed by another proxy any more.
            let mut nodes = vec![&question.from, &question.to];
            nodes.dedup();
            nodes.retain(|node| question.nodes.contains(node));
            let within = question.within;
            let claim = Claim::of(&nodes, &question.credentials, &operation, within).await;
            let claim = match claim {
                Ok(claim) => claim,
                Err(failing) => return Side::Preflight(Err(vec![failing])),
            };
            let mut passed = match preflight(&question).await {
                Ok(passed) => passed,
                Err(failings) => return Side::Preflight(Err(failings)),
            };
            if claim.nodes() != nodes.len() {
                let failing = "a node could not be claimed against other proxies: it was too slow, or \
                               does not answer CLIENT LIST; try again";
                return Side::Preflight(Err(vec![failing.to_owned()]));
            }
            passed.claim = claim;
            match passed.with_sink(fence_address.as_deref()).await {
                Ok(passed) => Side::Preflight(Ok(Box::new(passed))),
                Err(failing) => Side::Preflight(Err(vec![failing])),
            }
        });
        self.preparing = Some(preparing);
    }

    /// Takes over what preflight dialled.
    pub(super) fn passed(&mut self, passed: Passed) -> Event {
        self.desk = Some(Desk {
            credentials: self.site.credentials.clone(),
            operation: self.id.clone(),
            name: connection_name(&self.id),
            orders: passed.orders,
            sink: passed.sink_address,
            old: passed.old.identity,
            target: passed.target.identity,
            old_life: None,
            target_holds: passed.target_offset,
            old_was_down: false,
            rewrites_config: self.site.switchover().config_rewrite,
            read_within: self.read_within(),
            undo_within: UNDO_WITHIN,
            promote_within: PROMOTE_WITHIN,
        });
        self.sink = passed.sink;
        self.claim = passed.claim;
        self.old.at_hand = Some(passed.old.connection);
        self.target.at_hand = Some(passed.target.connection);
        self.others = passed.others.into_iter().map(Other::from).collect();
        self.replica_read_only = passed.replica_read_only;
        self.full_syncs = passed.full_syncs;
        self.telling = Telling::of(passed.sentinel_terms);
        self.old_life = Some(passed.old_life);
        self.facts = Some(passed.facts);
        Event::PreflightPassed(passed.facts)
    }

    /// A node that says nothing for as long as writes may be held is lost.
    fn read_within(&self) -> Duration {
        self.site
            .switchover()
            .pause_timeout
            .min(self.site.connect_timeout)
    }

    /// What preflight would have found is in the journal; connections are made when needed.
    pub(super) async fn prepare_recovery(&mut self, begin: &Begin) {
        let within = self.site.connect_timeout;
        let identity = |name: &str| Identity::look_up(name.into(), within);
        let engine = match begin.engine.as_str() {
            "kvrocks" => Engine::Kvrocks,
            "valkey" => Engine::Valkey,
            _ => Engine::Redis,
        };
        let abilities = Abilities {
            role_command: if begin.role_command == "REPLICAOF" {
                "REPLICAOF"
            } else {
                "SLAVEOF"
            },
            pause: begin.facts.knows_pause,
            feeds_behind_fence: begin.facts.dialect.feeds_behind_fence(),
        };
        let mut sink = SinkAddress {
            host: begin.sink_host.clone(),
            port: begin.sink_port,
        };
        // The old listener's port, if it is free: with a closed one the node's next role change
        // takes a second.
        let old = identity(&begin.from).await;
        self.sink = match sink.host.parse() {
            Ok(ip) if engine == Engine::Kvrocks => Sink::open(ip, sink.port, old.ip()).await.ok(),
            _ => None,
        };
        match &self.sink {
            Some(open) => sink.port = open.address().port(),
            // A closed port costs the node a second, and is a fence all the same.
            None => sink.port = sink.port.max(1),
        }
        self.site.routes.suit(engine);
        self.desk = Some(Desk {
            credentials: self.site.credentials.clone(),
            operation: begin.operation.clone(),
            name: connection_name(&begin.operation),
            orders: Orders { engine, abilities },
            sink,
            old,
            target: identity(&begin.to).await,
            old_life: begin
                .old_life
                .clone()
                .map(|life| (life, begin.started_at_ms)),
            target_holds: begin.target_offset,
            old_was_down: begin.facts.old_is_down,
            rewrites_config: self.site.switchover().config_rewrite,
            read_within: self.read_within(),
            undo_within: UNDO_WITHIN,
            promote_within: PROMOTE_WITHIN,
        });
        self.facts = Some(begin.facts);
        self.old_life = begin.old_life.clone();
        self.telling = Telling::of(begin.sentinel_terms.clone());
        // One that the config does not name any more is nobody's to repoint.
        let nodes = &self.site.nodes;
        let others = begin.others.iter();
        for other in others.filter(|other| nodes.iter().any(|node| node.as_ref() == **other)) {
            self.others.push(Other {
                identity: identity(other).await,
                connection: None,
            });
        }
    }

    fn record(&mut self, record: Record) {
        let begin = match record {
            Record::Begin => self.begin_record(),
            Record::End(_) => None,
        };
        let (site, id) = (self.site.clone(), self.id.clone());
        self.side.spawn_blocking(move || {
            let mut journal = match site.journal.lock() {
                Ok(journal) => journal,
                Err(poisoned) => poisoned.into_inner(),
            };
            let result = match (record, begin) {
                (Record::Begin, Some(begin)) => journal.begin(&begin),
                (Record::Begin, None) => return Side::Recorded(record, Err("no facts".into())),
                (Record::End(outcome), _) => journal.end(&id, outcome),
            };
            Side::Recorded(record, result.map_err(|error| error.to_string()))
        });
    }

    fn begin_record(&self) -> Option<Begin> {
        let desk = self.desk.as_ref()?;
        Some(Begin {
            operation: self.id.clone(),
            shard: self.site.shard.clone(),
            from: self.from.to_string(),
            to: self.to.to_string(),
            others: self
                .others
                .iter()
                .map(|other| other.identity.name.to_string())
                .collect(),
            engine: desk.orders.engine.to_string(),
            role_command: desk.orders.abilities.role_command.to_owned(),
            sink_host: desk.sink.host.clone(),
            sink_port: desk.sink.port,
            replica_read_only: self.replica_read_only.clone(),
            facts: self.facts?,
            terms: Terms {
                force_on_timeout: self.site.switchover().force_on_timeout,
                silent_proxies: silence(&self.site.switchover()),
            },
            started_at_ms: self.measured.started_at_ms(),
            old_life: self.old_life.clone(),
            target_offset: desk.target_holds,
            sentinel_terms: self.telling.terms().to_vec(),
        })
    }

    fn warm(&mut self) {
        let (site, from, to) = (self.site.clone(), self.from.clone(), self.to.clone());
        let operation = self.id.clone();
        let preparing = self.side.spawn(async move {
            let (lanes, others) = tokio::join!(
                site.gates.prepare(&to, site.connect_timeout),
                others::ready(&site, &operation, &from),
            );
            match lanes.and(others) {
                Ok(census) => Side::Warmed(Ok(others::count(&site, &from, census).await)),
                Err(words) => Side::Warmed(Err(words)),
            }
        });
        self.preparing = Some(preparing);
    }

    fn begin_hold(&mut self) {
        self.holds += 1;
        let (site, hold) = (self.site.clone(), self.holds);
        self.measured.holding();
        let (holding, held) = oneshot::channel();
        let task = self.spawn_begun(async move {
            // Dropped with the task, whether it ends or is taken back.
            let _holding = holding;
            // The plan's own timer ends the wait; this deadline only backs it up.
            let deadline = site.switchover().pause_timeout + site.switchover().drain_timeout;
            Side::Drained(hold, site.gates.hold(deadline).await)
        });
        self.hold = Some(Hold {
            number: hold,
            task,
            held,
        });
    }

    /// Takes the first step at once, which sends what there is to send: behind it, in the same
    /// instant, comes what takes longer and can wait.
    fn spawn_begun(&mut self, task: impl Future<Output = Side> + Send + 'static) -> AbortHandle {
        let mut task = Box::pin(task);
        // Nobody is to be woken: as a task of its own it is polled anew.
        let mut context = Context::from_waker(Waker::noop());
        match task.as_mut().poll(&mut context) {
            Poll::Ready(side) => self.side.spawn(std::future::ready(side)),
            Poll::Pending => self.side.spawn(task),
        }
    }

    fn release(&mut self) {
        let hold = self.hold.take();
        if let Some(hold) = &hold {
            hold.task.abort();
        }
        self.open_gate(hold.map(|hold| hold.held));
    }

    /// Opens the gate to the master that the route names, or leaves it shut when it names none.
    /// No order to hold may arrive behind it: one under way is seen to have ended first.
    fn open_gate(&mut self, held: Option<oneshot::Receiver<()>>) {
        let to = match self.master {
            Master::Nobody => Opening::Shut,
            Master::Old | Master::Target => Opening::Open,
        };
        self.gate = to;
        let site = self.site.clone();
        self.spawn_begun(async move {
            if let Some(held) = held {
                // An error is what it waits for: nothing is ever sent.
                let _ = held.await;
            }
            Side::Released(site.gates.release(to).await)
        });
    }

    fn publish(&mut self, master: Master) {
        let name = match master {
            Master::Old => Some(self.from.clone()),
            Master::Target => Some(self.to.clone()),
            Master::Nobody => None,
        };
        self.master = master;
        let replicas = self.site.replicas_of(name.as_deref());
        self.site.routes.publish(name.as_deref(), &replicas);
        // Nobody holds any more, and yet the gate is not as the route: after a hold that ended with
        // no master, and at a start.
        if self.hold.is_none() && (self.gate == Opening::Shut) != (master == Master::Nobody) {
            self.open_gate(None);
        }
    }

    fn repoint(&mut self) {
        let Some(desk) = self.desk.clone() else {
            return;
        };
        let others = std::mem::take(&mut self.others);
        let (site, telling) = (self.site.clone(), self.telling.clone());
        let within = self.site.switchover().demote_timeout;
        let claims = self.claims();
        self.side.spawn(async move {
            let _claim = match desk.claim(claims, Node::Target).await {
                Ok(claim) => claim,
                Err(barred) => {
                    return Side::Repointed(Box::new(Followers {
                        others,
                        telling,
                        failed: vec![barred],
                    }));
                }
            };
            let (repointed, told) = tokio::join!(
                desk.clone().repoint(others, within),
                desk.tell(site.sentinels.as_deref(), telling, site.connect_timeout),
            );
            let ((others, mut failed), (telling, unheard)) = (repointed, told);
            failed.extend(unheard);
            Side::Repointed(Box::new(Followers {
                others,
                telling,
                failed,
            }))
        });
    }

    fn arm(&mut self, timer: Timer) {
        let settings = self.site.switchover();
        let length = match timer {
            Timer::Drain => settings.drain_timeout,
            Timer::Sync => self.sync_timeout,
            Timer::Hold => settings.pause_timeout,
            Timer::Demote => settings.demote_timeout,
            Timer::Retry => {
                let length = self.retry_after;
                self.retry_after = (length * 2).min(RETRY_MAX);
                length
            }
        };
        if let Some(at) = self.timers.get_mut(index(timer)) {
            *at = Some(Instant::now() + length);
        }
    }

    /// Repeated at each retry by the plan; a run of equal ones is said once.
    fn alarm(&mut self, alarm: Alarm) {
        if self.measured.is_news(alarm) {
            let (shard, operation) = (&self.site.shard, &self.id);
            tracing::warn!(%shard, %operation, alarm = ?alarm, "switchover needs a look");
        }
    }
}

/// What every connection of an operation calls itself.
pub fn connection_name(operation: &str) -> String {
    format!("pointsman-{operation}")
}
