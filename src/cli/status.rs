//! `pointsman status`: every shard of the running proxy as last observed.

use std::process::ExitCode;

use clap::Args;
use serde::{Deserialize, Serialize};

use super::output::{self, Table};
use super::{Operator, ShardArg, UsageError};
use crate::switchover::view::ShardStatus;

#[derive(Args, Debug)]
pub struct StatusArgs {
    /// Only this shard
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
}

#[derive(Serialize, Deserialize)]
struct Shards {
    shards: Vec<ShardStatus>,
}

/// Succeeds when the proxy answered, whatever it said.
pub async fn run(args: &StatusArgs, operator: &Operator) -> anyhow::Result<ExitCode> {
    let Operator {
        config,
        admin,
        json,
    } = operator;
    let mut answer: Shards = admin.get("/v1/shards").await?.json()?;
    if let Some(name) = &args.shard {
        if !answer.shards.iter().any(|shard| shard.name == *name) {
            // Either the config has no such shard, or the proxy runs with an older config.
            let known = ShardArg {
                shard: args.shard.clone(),
            };
            known.choose(config)?;
            let names: Vec<_> = answer.shards.into_iter().map(|shard| shard.name).collect();
            let names = names.join(", ");
            return Err(UsageError::NoSuchShard {
                name: name.clone(),
                names,
            }
            .into());
        }
        answer.shards.retain(|shard| shard.name == *name);
    }
    if *json {
        output::json(&answer)?;
    } else {
        for shard in &answer.shards {
            print(shard)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn print(shard: &ShardStatus) -> anyhow::Result<()> {
    let engine = match (&shard.engine, &shard.version) {
        (Some(engine), Some(version)) => format!("{engine} {version}"),
        (Some(engine), None) => engine.clone(),
        (None, _) => "engine not seen yet".to_owned(),
    };
    output::line(format!(
        "{}, clients connect to {}: {engine}, epoch {}, gate {}, {} sessions",
        shard.name, shard.listen, shard.epoch, shard.gate, shard.sessions
    ))?;
    if let Some(id) = &shard.operation {
        output::line(format!("  operation {id} is running"))?;
    }
    if shard.master.is_none() {
        output::line("  no master: writes are held")?;
    }
    let mut table = Table::new(["node", "role", "link", "offset", "behind", "seen", ""]);
    for node in &shard.nodes {
        table.row([
            node.node.clone(),
            node.role.as_str().to_owned(),
            output::or_dash(node.link.clone()),
            output::or_dash(node.offset),
            output::or_dash(node.lag_bytes),
            node.seen_ms_ago
                .map_or_else(|| "never".to_owned(), |ms| format!("{ms} ms ago")),
            node.error.clone().unwrap_or_default(),
        ]);
    }
    output::block(&table.to_string())?;
    Ok(())
}
