//! `pointsman abort`: undoes a running switchover and returns when that is over. One that has
//! switched and waits for a node in the background is told to leave what is left to do.

use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::client::AdminClient;
use super::{Operator, ShardArg, output, switchover};
use crate::config::Config;
use crate::switchover::report::Outcome;
use crate::switchover::view::ShardStatus;

#[derive(Args, Debug)]
pub struct AbortArgs {
    /// The operation; may be left out to mean the one that is running
    #[arg(value_name = "ID", value_parser = operation_id)]
    id: Option<String>,

    #[command(flatten)]
    shard: ShardArg,
}

/// Succeeds when the old master is master as before, or what is left is left.
pub async fn run(args: &AbortArgs, operator: &Operator) -> anyhow::Result<ExitCode> {
    let Operator {
        config,
        admin,
        json,
    } = operator;
    let id = match &args.id {
        Some(id) => id.clone(),
        None => running(&args.shard, config, admin).await?,
    };
    let answer: Value = admin
        .delete(&format!("/v1/operations/{id}"))
        .await?
        .json()?;
    let left = answer["state"] == "leaving";
    let report = switchover::follow(admin, &id, false).await?;
    if *json {
        output::json(&report)?;
    } else {
        switchover::print(&report)?;
        if left {
            output::line("what was left to do is left as it is")?;
        }
    }
    let undone = matches!(report.outcome, Outcome::RolledBack | Outcome::Refused);
    Ok(if undone || left {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

async fn running(shard: &ShardArg, config: &Config, admin: &AdminClient) -> anyhow::Result<String> {
    let name = &shard.choose(config)?.name;
    let status: ShardStatus = admin.get(&format!("/v1/shards/{name}")).await?.json()?;
    match status.operation {
        Some(id) => Ok(id),
        None => anyhow::bail!("no operation is running on shard {name}: there is nothing to abort"),
    }
}

/// An id becomes part of a path, so it may only consist of what ids consist of.
fn operation_id(text: &str) -> Result<String, String> {
    let valid = !text.is_empty()
        && text.len() <= 64
        && text
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    if valid {
        Ok(text.to_owned())
    } else {
        Err("this is no operation's id: copy it from `pointsman status`".to_owned())
    }
}
