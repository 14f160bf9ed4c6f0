//! The end of an operation, or of its first part: what is reported, logged and counted.
//!
//! **Invariant:** reasons are given exactly when the target did not become master, in the plan's
//! words first and in the servers' own behind them.

use super::*;

impl<G: Gates, R: Routes> Exec<G, R> {
    pub(super) async fn dry_run(&mut self) {
        let failings = preflight(&self.question()).await.err().unwrap_or_default();
        self.measured.phase("preflight");
        let outcome = if failings.is_empty() {
            Outcome::Switched
        } else {
            Outcome::Refused
        };
        let mut report = self.measured.report(outcome, failings);
        report.dry_run = true;
        self.hand_out(report);
    }

    pub(super) async fn report(&mut self, verdict: Verdict) {
        // Whoever waits for the hold's figures waits for the release, which is over in no time.
        while !self.measured.is_released() {
            let Some(side) = self.side.join_next().await else {
                break;
            };
            // Another answer that comes first is the plan's all the same.
            if let Ok(side) = side
                && let Some(event) = self.side_event(side)
            {
                self.step(event);
            }
        }
        let outcome = verdict.outcome;
        let proxies = self.proxies(outcome);
        if verdict.reasons.contains(&Reason::ProxySilent) {
            let silent = proxies.iter().flat_map(|proxies| &proxies.silent);
            let silent: Vec<_> = silent.map(|one| format!("{one} did not hold")).collect();
            self.note(silent);
        }
        let mut reasons: Vec<String> = verdict.reasons.iter().map(ToString::to_string).collect();
        if !outcome.is_switched() && !reasons.is_empty() {
            reasons.append(&mut self.words);
        }
        // Whoever takes over is not kept waiting for links.
        let over = plan::is_over(&self.state) && !plan::is_left(&self.state);
        let replicas = match outcome.is_switched() {
            true => self.resyncs(verdict.old, over).await,
            false => Vec::new(),
        };
        let mut report = self.measured.report(outcome, reasons);
        report.writes_not_carried = verdict.not_carried;
        report.proxies = proxies;
        report.replicas = replicas;
        if outcome.is_switched() {
            let untold = self.telling.untold().iter().map(ToString::to_string);
            report.sentinels_untold = untold.collect();
        }
        self.hand_out(report);
    }

    /// How the followers came to follow. In the middle of things nobody is waited for.
    async fn resyncs(&mut self, old: OldNow, over: bool) -> Vec<ReplicaResync> {
        let Some(desk) = self.desk.clone() else {
            return Vec::new();
        };
        if !over {
            let names = self.others.iter().map(|other| other.identity.name.clone());
            let all = std::iter::once(self.from.clone()).chain(names);
            let pending = |node: NodeName| ReplicaResync {
                node: node.to_string(),
                resync: Resync::Pending,
            };
            return all.map(pending).collect();
        }
        let within = LINKS_WITHIN.min(self.site.switchover().demote_timeout);
        let others = std::mem::take(&mut self.others);
        let mut followers: Vec<_> = others
            .into_iter()
            .map(|other| (other.identity, other.connection))
            .collect();
        let attached = old == OldNow::Attached;
        if attached {
            followers.insert(0, (desk.old.clone(), self.old.at_hand.take()));
        }
        let seen = await_links(followers, &self.to, within).await;
        let full_after = match desk.connect(self.target.at_hand.take(), &self.to).await {
            Ok(mut target) => sync_counters(&mut target, desk.read_within)
                .await
                .map(|counters| counters.full),
            Err(error) => Err(error),
        };
        let attachments: Vec<_> = seen.iter().map(|(_, attachment)| *attachment).collect();
        // A recovery has no count from before; then every full one since the start is suspected.
        let judged = judge_resyncs(
            self.full_syncs,
            full_after.unwrap_or(u64::MAX),
            &attachments,
        );
        let names = seen.into_iter().map(|(node, _)| node);
        let mut replicas: Vec<_> = names
            .zip(judged)
            .map(|(node, resync)| ReplicaResync { node, resync })
            .collect();
        if !attached {
            let node = self.from.to_string();
            replicas.insert(
                0,
                ReplicaResync {
                    node,
                    resync: Resync::Failed,
                },
            );
        }
        replicas
    }

    fn hand_out(&mut self, mut report: crate::switchover::report::Report) {
        report.id = self.id.clone();
        report.shard = self.site.shard.clone();
        report.from = self.from.to_string();
        report.to = self.to.to_string();
        let (shard, operation, outcome) = (&report.shard, &report.id, report.outcome);
        let (from, to) = (&report.from, &report.to);
        tracing::info!(
            %shard, %operation, %outcome, %from, %to,
            hold_ms = report.hold_ms, total_ms = report.total_ms, writes_held = report.writes_held,
            reasons = report.reasons.join("; "), unattended = self.unattended,
            "switchover ended"
        );
        self.count(&report);
        let going = match plan::is_over(&self.state) || report.dry_run {
            true => Going::Over,
            false => Going::Background,
        };
        self.progress.reported(report, going);
    }

    /// An operation is counted once, with its first report; resynchronisations with the last.
    fn count(&self, report: &crate::switchover::report::Report) {
        if report.dry_run {
            return;
        }
        let metrics = &self.site.metrics;
        let full = report
            .replicas
            .iter()
            .filter(|one| one.resync == Resync::Full)
            .count();
        metrics.full_resyncs.increment(full as u64);
        if self.progress.is_reported() {
            return;
        }
        metrics.ended(report.outcome.as_str());
        metrics.writes_held.increment(report.writes_held);
        metrics
            .writes_not_carried
            .increment(report.writes_not_carried);
        if let Some(proxies) = &report.proxies {
            let silent = proxies.silent.iter().map(|one| (one, "did not hold"));
            let late = proxies.late.iter().map(|one| (one, "was late to follow"));
            for (one, what) in silent.chain(late) {
                tracing::warn!(shard = report.shard, operation = report.id, "{one} {what}");
            }
            metrics.proxies_silent("hold", proxies.silent_in_hold());
            if report.outcome.is_switched() {
                metrics.proxies_silent("route", proxies.silent_in_route());
            }
        }
        if report.hold_ms > 0.0 {
            metrics.hold_seconds.record(report.hold_ms / 1e3);
        }
        for phase in &report.phases {
            metrics.phase(&phase.name, Duration::from_secs_f64(phase.ms / 1e3));
        }
    }
}
