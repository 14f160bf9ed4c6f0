//! `pointsman check`: is the config right, and are the nodes what it says?
//!
//! **Invariant:** only looks; nothing is changed on any node. It needs no running proxy.

use std::process::ExitCode;

use serde_json::json;

use super::output::{self, Table};
use crate::config::Config;
use crate::switchover::preflight::{self, NodeCheck};

/// Fails when any node has a problem, so that a deployment can stop there.
pub async fn run(config: &Config, json: bool) -> anyhow::Result<ExitCode> {
    let mut problems = 0;
    let mut shards = Vec::new();
    for shard in &config.shards {
        let nodes = preflight::check_shard(shard, &config.proxy, &config.switchover).await;
        problems += nodes.iter().map(|node| node.problems.len()).sum::<usize>();
        if json {
            let nodes: Vec<_> = nodes.iter().map(as_json).collect();
            shards.push(json!({ "name": shard.name, "nodes": nodes }));
        } else {
            print(&shard.name, &shard.listen, &nodes)?;
        }
    }
    if json {
        output::json(&json!({ "ok": problems == 0, "shards": shards }))?;
    } else {
        output::line(match problems {
            0 => "config and nodes are ready".to_owned(),
            1 => "1 problem".to_owned(),
            count => format!("{count} problems"),
        })?;
    }
    Ok(if problems == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

fn as_json(node: &NodeCheck) -> serde_json::Value {
    json!({
        "node": node.node,
        "role": node.role,
        "engine": node.engine,
        "version": node.version,
        "offset": node.offset,
        "problems": node.problems,
    })
}

fn print(name: &str, listen: &str, nodes: &[NodeCheck]) -> anyhow::Result<()> {
    output::line(format!("{name}, clients connect to {listen}"))?;
    let mut table = Table::new(["node", "role", "engine", "offset"]);
    for node in nodes {
        let engine = [node.engine.as_deref(), node.version.as_deref()];
        let engine: Vec<_> = engine.into_iter().flatten().collect();
        table.row([
            node.node.clone(),
            node.role.clone(),
            output::or_dash((!engine.is_empty()).then(|| engine.join(" "))),
            output::or_dash(node.offset),
        ]);
    }
    output::block(&table.to_string())?;
    for node in nodes {
        for problem in &node.problems {
            // Some of them begin with the node themselves, as they also stand in reports.
            let named = problem.starts_with(&node.node);
            let name = if named {
                String::new()
            } else {
                format!("{}: ", node.node)
            };
            output::line(format!("  {name}{problem}"))?;
        }
    }
    Ok(())
}
