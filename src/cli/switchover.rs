//! `pointsman switchover`: orders a switchover and shows its phases as they end.
//!
//! Returns when the operation is over. Interrupting this command does not interrupt the operation,
//! which belongs to the proxy; the message says how to abort it.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use serde::Deserialize;
use serde_json::json;

use super::client::AdminClient;
use super::{Operator, ShardArg, output};
use crate::config::Address;
use crate::switchover::report::{Outcome, Phase, Proxies, Report};
use crate::switchover::view::OperationView;

/// How often a running operation is asked for its phases: short beside what a person notices.
const ASK_AGAIN: Duration = Duration::from_millis(20);

#[derive(Args, Debug)]
pub struct SwitchoverArgs {
    /// The node that becomes master, as the config spells it
    #[arg(long, value_name = "HOST:PORT", value_parser = node)]
    to: String,

    #[command(flatten)]
    shard: ShardArg,

    /// Only look whether it would work; touches nothing
    #[arg(long)]
    dry_run: bool,
}

#[derive(Deserialize)]
struct Started {
    id: String,
}

/// Succeeds when the target is master, or could become it in a dry run.
pub async fn run(args: &SwitchoverArgs, operator: &Operator) -> anyhow::Result<ExitCode> {
    let Operator {
        config,
        admin,
        json,
    } = operator;
    let shard = args.shard.choose(config)?;
    let path = format!("/v1/shards/{}/switchover?wait=false", shard.name);
    let order = json!({ "to": args.to, "dry_run": args.dry_run });
    let started: Started = admin.post(&path, &order).await?.json()?;
    if !*json {
        let what = if args.dry_run {
            "dry run"
        } else {
            "switchover"
        };
        output::line(format!(
            "{what} {} of {} to {}",
            started.id, shard.name, args.to
        ))?;
    }
    let report = tokio::select! {
        report = follow(admin, &started.id, !*json) => report?,
        _ = tokio::signal::ctrl_c() => anyhow::bail!(
            "operation {id} goes on in the proxy: abort it with `pointsman abort {id}`",
            id = started.id
        ),
    };
    if *json {
        output::json(&report)?;
    } else {
        print(&report)?;
    }
    Ok(if report.outcome.is_switched() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Asks until the operation is over. No deadline of its own: every step of an operation has one.
pub async fn follow(admin: &AdminClient, id: &str, shown: bool) -> anyhow::Result<Report> {
    let lost = || {
        format!("how operation {id} ends is not known here: look at `pointsman status` and the log")
    };
    let mut printed = 0;
    loop {
        let answer = admin
            .get(&format!("/v1/operations/{id}"))
            .await
            .with_context(lost)?;
        let view: OperationView = answer.json().with_context(lost)?;
        if shown {
            for phase in view.phases.iter().skip(printed) {
                print_phase(phase)?;
            }
            printed = printed.max(view.phases.len());
        }
        if let Some(report) = view.report {
            if shown {
                for phase in report.phases.iter().skip(printed) {
                    print_phase(phase)?;
                }
            }
            return Ok(report);
        }
        tokio::time::sleep(ASK_AGAIN).await;
    }
}

fn print_phase(phase: &Phase) -> anyhow::Result<()> {
    output::line(format!("  {:<10} {:>10.3} ms", phase.name, phase.ms))?;
    Ok(())
}

/// The end of an operation, for people.
pub fn print(report: &Report) -> anyhow::Result<()> {
    let (from, to) = (output::or_none(&report.from), &report.to);
    output::line(match (report.outcome, report.dry_run) {
        (Outcome::Switched, true) => format!("it would work: {from} -> {to}; nothing was touched"),
        (Outcome::Switched, false) => format!("switched: {from} -> {to}"),
        (Outcome::SwitchedWithLeak, _) => format!("switched with a leak: {from} -> {to}"),
        (Outcome::RolledBack, _) => format!("rolled back: {from} is master as before"),
        (Outcome::Refused, _) => "refused, nothing was touched:".to_owned(),
        (Outcome::Unknown, _) => format!("unknown which node is master: look at {from} and {to}"),
    })?;
    for reason in &report.reasons {
        output::line(format!("  - {reason}"))?;
    }
    if report.hold_ms > 0.0 {
        output::line(format!(
            "  writes were held for {:.3} ms, no write waited longer than {:.3} ms, {} waited",
            report.hold_ms, report.longest_hold_ms, report.writes_held
        ))?;
    }
    if report.writes_not_carried > 0 {
        output::line(format!(
            "  NOT CARRIED to the new master: {} (in units of the offset)",
            report.writes_not_carried
        ))?;
    }
    for replica in &report.replicas {
        output::line(format!(
            "  {} follows: {} resync",
            replica.node, replica.resync
        ))?;
    }
    if let Some(proxies) = &report.proxies {
        for line in proxies_lines(proxies, report.outcome.is_switched()) {
            output::line(format!("  {line}"))?;
        }
    }
    for sentinel in &report.sentinels_untold {
        output::line(format!(
            "  Sentinel {sentinel} does NOT KNOW the new master yet"
        ))?;
    }
    output::line(format!("  {:.3} ms in all", report.total_ms))?;
    Ok(())
}

/// What the other proxies did; nothing when there is none.
fn proxies_lines(proxies: &Proxies, switched: bool) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some(fault) = &proxies.fault {
        lines.push(format!("other proxies were NOT TOLD: {fault}"));
    }
    let (others, held, routed) = (proxies.others, proxies.held.len(), proxies.routed.len());
    if others > 0 {
        lines.push(match switched {
            true => format!("other proxies: {others}, of which {held} held and {routed} followed"),
            false => format!("other proxies: {others}, of which {held} held"),
        });
    }
    let named = proxies.silent.len() as u64;
    if proxies.silent_in_hold() > named {
        let silent = proxies.silent_in_hold() - named;
        lines.push(format!("{silent} other proxies were SILENT"));
    }
    lines.extend(proxies.silent.iter().map(|one| format!("{one} was SILENT")));
    let late = proxies.late.iter();
    lines.extend(late.map(|one| format!("{one} was LATE to follow")));
    if proxies.strangers > 0 {
        let strangers = proxies.strangers;
        lines.push(format!(
            "{strangers} that are no proxies listen to their channel: keep them off it (ACL)"
        ));
    }
    lines
}

/// Whether a text can be a node; whether it is one of this shard, the proxy says.
fn node(text: &str) -> Result<String, String> {
    match Address::parse(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(fault) => Err(fault.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::switchover::report::OtherProxy;

    fn proxy(id: &str) -> OtherProxy {
        OtherProxy {
            id: id.to_owned(),
            addr: format!("{id}:1"),
        }
    }

    #[test]
    fn who_is_silent_or_late_is_named_and_the_rest_counted() {
        let alone = Proxies::default();
        assert!(proxies_lines(&alone, true).is_empty());
        let some = Proxies {
            others: 4,
            held: vec!["b".to_owned(), "c".to_owned()],
            routed: vec!["b".to_owned()],
            silent: vec![proxy("a")],
            late: vec![proxy("c")],
            strangers: 2,
            fault: None,
        };
        let told = proxies_lines(&some, true);
        assert_eq!(
            told,
            [
                "other proxies: 4, of which 2 held and 1 followed",
                "1 other proxies were SILENT",
                "proxy a at a:1 was SILENT",
                "proxy c at c:1 was LATE to follow",
                "2 that are no proxies listen to their channel: keep them off it (ACL)",
            ]
        );
    }
}
