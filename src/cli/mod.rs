//! The command line, one file per subcommand.
//!
//! Owns arguments, exit codes and what is printed. `status`, `switchover` and `abort` are clients
//! of the admin API of a running proxy; `check` looks at the nodes itself; `serve` is the proxy.
//!
//! **Invariant:** results go to standard output, everything else to standard error. With `--json`
//! standard output holds exactly one JSON value.

mod abort;
mod check;
mod client;
pub mod demo;
mod output;
mod serve;
mod status;
mod switchover;

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, Parser, Subcommand};

use self::client::AdminClient;
use crate::config::{Config, ConfigErrors, Purpose, Secret, ShardConfig};

/// Exit code for bad usage or config; clap uses the same.
const BAD_USAGE: u8 = 2;
/// An operator's own admin token; it goes before the one in the config.
const TOKEN_ENV: &str = "POINTSMAN_ADMIN_TOKEN";

/// A Redis-protocol proxy that changes the master behind its clients while they keep writing.
#[derive(Parser, Debug)]
#[command(name = "pointsman", version, about, max_term_width = 100)]
#[command(after_help = "Exit codes: 0 done, 1 failed, 2 bad usage or config.")]
pub struct Cli {
    #[command(subcommand)]
    command: Command,

    /// The config file, which is also the manual of every option
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        default_value = "config.toml"
    )]
    config: PathBuf,

    /// Print one JSON value instead of text
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Subcommand, Debug)]
enum Command {
    /// Run the proxy until SIGTERM or SIGINT
    Serve,
    /// Check the config and look at every node; changes nothing
    Check,
    /// Show every shard of the running proxy
    Status(status::StatusArgs),
    /// Move the master; returns when that is over
    Switchover(switchover::SwitchoverArgs),
    /// Undo a running switchover; returns when it is over
    Abort(abort::AbortArgs),
    /// Show a switchover under load on servers that it starts itself
    Demo(demo::DemoArgs),
}

/// Which shard a command is about.
#[derive(Args, Debug)]
struct ShardArg {
    /// The shard; may be left out when the config has only one
    #[arg(long, value_name = "NAME")]
    shard: Option<String>,
}

impl ShardArg {
    fn choose<'c>(&self, config: &'c Config) -> Result<&'c ShardConfig, UsageError> {
        let names = || {
            let names: Vec<_> = config
                .shards
                .iter()
                .map(|shard| shard.name.as_str())
                .collect();
            names.join(", ")
        };
        match (&self.shard, config.shards.as_slice()) {
            (Some(name), _) => config.shard(name).ok_or_else(|| UsageError::NoSuchShard {
                name: name.clone(),
                names: names(),
            }),
            (None, [only]) => Ok(only),
            (None, _) => Err(UsageError::WhichShard { names: names() }),
        }
    }
}

/// Runs the command that was typed.
pub async fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    let Cli {
        command,
        config,
        json,
    } = cli;
    let operator = || Operator::load(&config, json);
    match command {
        Command::Serve => serve::run(Config::load(&config)?, config).await,
        Command::Check => check::run(&Config::load(&config)?, json).await,
        Command::Status(args) => status::run(&args, &operator()?).await,
        Command::Switchover(args) => switchover::run(&args, &operator()?).await,
        Command::Abort(args) => abort::run(&args, &operator()?).await,
        Command::Demo(args) => demo::run(args).await,
    }
}

/// What a command needs to talk to the running proxy.
struct Operator {
    config: Config,
    admin: AdminClient,
    json: bool,
}

impl Operator {
    fn load(path: &Path, json: bool) -> anyhow::Result<Self> {
        let brought = std::env::var(TOKEN_ENV)
            .ok()
            .filter(|text| !text.is_empty());
        let brought = brought.map(Secret::new);
        let purpose = Purpose::Operate {
            token_brought: brought.is_some(),
        };
        let config = Config::load_for(path, purpose)?;
        let token = brought.as_ref().or(config.admin.token.as_ref());
        let admin = AdminClient::new(&config.admin.listen, path, token)?;
        Ok(Operator {
            config,
            admin,
            json,
        })
    }
}

/// 2 for what the operator has to write differently, 1 for everything else.
pub fn exit_code(error: &anyhow::Error) -> ExitCode {
    if error.is::<ConfigErrors>() || error.is::<UsageError>() {
        ExitCode::from(BAD_USAGE)
    } else {
        ExitCode::FAILURE
    }
}

/// What was typed does not fit the config. Nothing was sent to anybody.
#[derive(Debug, thiserror::Error)]
enum UsageError {
    /// The config has several shards and none was named.
    #[error("the config has several shards: name one of them with --shard: {names}")]
    WhichShard { names: String },
    /// The config has no shard of that name.
    #[error("the config has no shard {name}: there is {names}")]
    NoSuchShard { name: String, names: String },
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn no_two_arguments_are_in_each_others_way() {
        Cli::command().debug_assert();
    }
}
