//! The config file: TOML text in, a checked [`Config`] or every problem of the file out.
//!
//! Owns what the options are called, their defaults, their ranges, and how problems with them are
//! told. `config.toml` at the root of the repository is the manual; a test compares it with the
//! keys that are read here.
//!
//! **Invariant:** a [`Config`] that exists is valid. Nothing behind this module checks a range, an
//! address or a name again, and nothing else reads the file.
//!
//! **Invariant:** a password is never printed, neither by `Debug` nor in the excerpt of a faulty
//! line.
//!
//! Trade-off: the keys are read from toml's spanned tree by hand ([`read`]) instead of through
//! serde structs with `deny_unknown_fields`. Serde stops at the first fault, and an operator who
//! repairs a file wants them all at once; read this way, name, default and range of a key stand in
//! one line of [`check`].

mod address;
mod admin;
mod check;
mod locate;
mod read;
mod renew;
mod secret;
mod sentinel;
mod shards;
mod tls;

use std::path::{Path, PathBuf};
use std::time::Duration;

pub use address::{Address, AddressFault};
pub use check::{Key, keys};
pub use locate::Problem;
pub use secret::Secret;
pub use sentinel::SentinelConfig;
pub use tls::{ServerTls, UpstreamTls};

/// A config file larger than this is not read: it is not a config file.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// Everything that the file says, with defaults filled in.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    pub proxy: ProxyConfig,
    pub admin: AdminConfig,
    pub switchover: SwitchoverConfig,
    pub commands: CommandsConfig,
    pub shards: Vec<ShardConfig>,
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: impl AsRef<Path>) -> Result<Self, ConfigErrors> {
        Self::load_for(path.as_ref(), Purpose::Serve)
    }

    /// Reads and checks a file. What stands outside of it is fetched only if it serves the purpose.
    pub fn load_for(path: &Path, purpose: Purpose) -> Result<Self, ConfigErrors> {
        let unreadable = |source| ConfigErrors::Unreadable {
            path: path.to_path_buf(),
            source,
        };
        let length = std::fs::metadata(path).map_err(unreadable)?.len();
        if length > FILE_BYTES_MAX {
            return Err(ConfigErrors::TooLarge {
                path: path.to_path_buf(),
                bytes: length,
            });
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Self::parse_for(&text, &path.display().to_string(), purpose)
    }

    /// Checks the text of a file; `file_name` is only used to tell where problems are.
    pub fn parse(text: &str, file_name: &str) -> Result<Self, ConfigErrors> {
        Self::parse_for(text, file_name, Purpose::Serve)
    }

    fn parse_for(text: &str, file_name: &str, purpose: Purpose) -> Result<Self, ConfigErrors> {
        check::check(text, purpose).map_err(|problems| ConfigErrors::Invalid {
            file_name: file_name.to_owned(),
            problems,
        })
    }

    /// The shard of that name.
    pub fn shard(&self, name: &str) -> Option<&ShardConfig> {
        self.shards.iter().find(|shard| shard.name == name)
    }
}

/// What a config is read for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// To serve, or to look at the nodes: everything that the file names is read.
    Serve,
    /// To ask the running proxy. Who may do that may lack the files and the environment of the
    /// proxy itself: of what stands there only the admin token is read, and not even that if
    /// the operator has brought one.
    Operate { token_brought: bool },
}

/// `[proxy]`: the process and its data path. The meaning of each key is told in `config.toml`.
#[derive(Clone, Debug, PartialEq)]
pub struct ProxyConfig {
    /// As configured; 0 stands for a choice made by [`ProxyConfig::worker_count`].
    pub workers: usize,
    pub clients_max: usize,
    pub inline_bytes_max: usize,
    pub bulk_bytes_max: u64,
    pub elements_max: u64,
    pub pipeline_max: usize,
    pub session_buffer_bytes_max: usize,
    pub upload_buffer_bytes_max: usize,
    pub output_buffer_bytes_max: usize,
    /// Lanes per worker, node and identity; 0 stands for a choice by engine.
    pub lanes: usize,
    pub pinned_idle_max: usize,
    pub busy_poll: Duration,
    pub connect_timeout: Duration,
    pub tls_handshake_timeout: Duration,
    pub hold_budget: Duration,
    pub reads_without_master: MasterlessReads,
    pub shutdown_timeout: Duration,
    pub state_dir: PathBuf,
    pub log_format: LogFormat,
    pub log_level: LogLevel,
}

impl ProxyConfig {
    /// How many workers to start: as configured, or one per two cores up to four.
    ///
    /// Fewer workers put more clients on one lane, which batches better. With client, server and
    /// proxy on two cores, one worker cost 11.2 us (SET) and 9.2 us (GET) of CPU per unpipelined
    /// request at 50 connections and two cost 12.2 and 13.3 (`make bench`, benches/results).
    pub fn worker_count(&self) -> usize {
        if self.workers > 0 {
            return self.workers;
        }
        std::thread::available_parallelism().map_or(1, |cores| (cores.get() / 2).clamp(1, 4))
    }
}

/// `[admin]`: the HTTP interface of the operator.
#[derive(Clone, Debug, PartialEq)]
pub struct AdminConfig {
    pub listen: String,
    /// `None`: whoever reaches the address may use it.
    pub token: Option<Secret>,
    pub allow_remote_without_token: bool,
}

/// `[switchover]`: how long each step may take and what is done when it takes longer.
#[derive(Clone, Debug, PartialEq)]
pub struct SwitchoverConfig {
    pub sync_timeout: Duration,
    pub pause_timeout: Duration,
    pub force_on_timeout: bool,
    pub silent_proxies: SilentProxies,
    pub drain_timeout: Duration,
    /// How long other proxies may take to read from the new master.
    pub follow_timeout: Duration,
    /// In units of the engine's offset: bytes for Redis and Valkey, sequence numbers for Kvrocks.
    pub max_lag: u64,
    pub demote_timeout: Duration,
    pub config_rewrite: bool,
    /// `host` or `host:port` at which a fenced Kvrocks node reaches the proxy's sink.
    pub fence_address: Option<String>,
}

/// What the silence of another proxy of the shard means for a switchover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SilentProxies {
    Abort,
    Report,
}

/// `[commands]`: what becomes of commands that would pull the ground away under the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandsConfig {
    pub replicaof: CommandAnswer,
    pub failover: CommandAnswer,
    pub shutdown: CommandAnswer,
    pub client_pause: CommandAnswer,
    pub replication: CommandAnswer,
    pub cluster: CommandAnswer,
    pub script_debug: CommandAnswer,
}

/// What becomes of a group of commands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommandAnswer {
    Refuse,
    Pass,
    /// Of `FAILOVER` alone.
    Switchover,
}

/// One `[[shard]]`: a master and its replicas behind one listen address.
#[derive(Clone, Debug, PartialEq)]
pub struct ShardConfig {
    pub name: String,
    pub listen: String,
    pub nodes: Vec<String>,
    /// `None` when the nodes know only a password, or none at all.
    pub username: Option<String>,
    pub password: Option<Secret>,
    /// `None`: clients connect in plain TCP.
    pub tls: Option<ServerTls>,
    /// `None`: the nodes are reached in plain TCP.
    pub upstream_tls: Option<UpstreamTls>,
    /// `None`: no Sentinel watches the shard.
    pub sentinel: Option<SentinelConfig>,
    /// How long the master must have been out of reach before the proxy promotes a replica by
    /// itself; `None`: it never does.
    pub promote_after: Option<Duration>,
}

/// What becomes of reads while there is no master.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MasterlessReads {
    Hold,
    Error,
    Replica,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    Text,
    Json,
}

/// The least important log lines that are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogLevel {
    Error,
    Warn,
    Info,
    Debug,
    Trace,
}

impl LogLevel {
    /// The word in the file.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Error => "error",
            LogLevel::Warn => "warn",
            LogLevel::Info => "info",
            LogLevel::Debug => "debug",
            LogLevel::Trace => "trace",
        }
    }
}

/// Why there is no [`Config`]. The proxy does not start, and a running one is not touched.
#[derive(Debug, thiserror::Error)]
pub enum ConfigErrors {
    /// The file could not be read at all.
    #[error(
        "cannot read the config file {} (name another one with --config)",
        path.display()
    )]
    Unreadable {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is larger than any config file.
    #[error(
        "the config file {} has {bytes} bytes, more than the {FILE_BYTES_MAX} that are read: \
         name another one with --config",
        path.display()
    )]
    TooLarge { path: PathBuf, bytes: u64 },
    /// The file was read and is wrong in at least one place; all of them are listed.
    #[error("{}", locate::listing(file_name, problems))]
    Invalid {
        file_name: String,
        problems: Vec<Problem>,
    },
}

impl ConfigErrors {
    /// The problems in the order of the file; empty when the file could not be read.
    pub fn problems(&self) -> &[Problem] {
        match self {
            ConfigErrors::Invalid { problems, .. } => problems,
            ConfigErrors::Unreadable { .. } | ConfigErrors::TooLarge { .. } => &[],
        }
    }
}
