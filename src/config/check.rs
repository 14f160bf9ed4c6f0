//! Every key of the file with its default and range, and the rules across keys.
//!
//! **Invariant:** [`check`] looks at the whole file before it answers, so that one run tells
//! everything that is wrong. Only a file that is not TOML at all ends early, because what is
//! missing in it cannot be told from what could not be read.

use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use toml::de::DeTable;

use super::address::{self, Address};
use super::admin::{self, AdminRead};
use super::locate::{self, Excerpt, Problem};
use super::read::{self, Findings, Outside, Section};
use super::shards::{self, ShardRead};
use super::{
    AdminConfig, CommandAnswer, CommandsConfig, Config, LogFormat, LogLevel, MasterlessReads,
    ProxyConfig, Purpose, SilentProxies, SwitchoverConfig,
};

const MIB: u64 = 1024 * 1024;
/// No wait of any kind may be configured to be longer than an hour.
const WAIT_MS: RangeInclusive<u64> = 1..=3_600_000;
const SECTIONS: [&str; 5] = ["proxy", "admin", "switchover", "commands", "shard"];

/// One key that the file may have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// As the file spells it: `[proxy]` or `[[shard]]`.
    pub section: &'static str,
    pub name: &'static str,
    /// As the file would spell it; `None` when the key is required, or off unless written.
    pub default: Option<String>,
}

/// Every key that is read, for the test that compares them with the manual.
pub fn keys() -> Vec<Key> {
    let table = DeTable::default();
    let mut findings = Findings::new("");
    read_proxy(Section::new(&mut findings, "[proxy]", Some(&table), 0..0));
    let section = Section::new(&mut findings, "[admin]", Some(&table), 0..0);
    admin::read_admin(section, Outside::Skip);
    read_switchover(Section::new(
        &mut findings,
        "[switchover]",
        Some(&table),
        0..0,
    ));
    read_commands(Section::new(
        &mut findings,
        "[commands]",
        Some(&table),
        0..0,
    ));
    shards::read_shard(&mut findings, &table, 0..0, Outside::Skip);
    findings.finish().1
}

/// Reads the whole file.
pub fn check(text: &str, purpose: Purpose) -> Result<Config, Vec<Problem>> {
    let (outside, token_outside) = match purpose {
        Purpose::Serve => (Outside::Read, Outside::Read),
        Purpose::Operate {
            token_brought: false,
        } => (Outside::Skip, Outside::Read),
        Purpose::Operate {
            token_brought: true,
        } => (Outside::Skip, Outside::Skip),
    };
    let (root, syntax_errors) = DeTable::parse_recoverable(text);
    if !syntax_errors.is_empty() {
        let problem = |error: &toml::de::Error| {
            let message = format!("this is not TOML: {}", error.message().replace('\n', ", "));
            locate::problem(text, error.span().unwrap_or(0..0), message, Excerpt::Line)
        };
        return Err(syntax_errors.iter().map(problem).collect());
    }
    let root = root.get_ref();
    let mut findings = Findings::new(text);
    read::report_unknown(
        &mut findings,
        "at the top of the file",
        Some(root),
        &SECTIONS,
    );

    let proxy = read_proxy(section(&mut findings, root, "proxy", "[proxy]"));
    let section_of_admin = section(&mut findings, root, "admin", "[admin]");
    let AdminRead {
        listen,
        token,
        allow_remote_without_token,
    } = admin::read_admin(section_of_admin, token_outside);
    if !root.contains_key("admin") {
        let advice = "there is no [admin] section: add it with listen = \"127.0.0.1:9400\"";
        findings.report_absent(advice.to_owned());
    }
    let switchover = read_switchover(section(&mut findings, root, "switchover", "[switchover]"));
    let commands = read_commands(section(&mut findings, root, "commands", "[commands]"));
    let shards = shards::read_shards(&mut findings, root, outside);
    shards::check_across(&mut findings, listen.as_ref(), &shards);

    let clean = findings.is_clean();
    match listen {
        Some(listen) if clean => Ok(Config {
            proxy,
            admin: AdminConfig {
                listen: listen.text,
                token,
                allow_remote_without_token,
            },
            switchover,
            commands,
            shards: shards.into_iter().map(ShardRead::into_config).collect(),
        }),
        _ => Err(findings.finish().0),
    }
}

fn read_proxy(mut section: Section<'_, '_>) -> ProxyConfig {
    let s = &mut section;
    let proxy = ProxyConfig {
        workers: size(s, "workers", 0, 0..=256),
        clients_max: size(s, "clients_max", 10_000, 1..=1_000_000),
        inline_bytes_max: size(s, "inline_bytes_max", 65_536, 64..=16 * MIB),
        bulk_bytes_max: s.number("bulk_bytes_max", 512 * MIB, 1024..=1024 * 1024 * MIB),
        elements_max: s.number("elements_max", MIB, 1..=i32::MAX as u64),
        pipeline_max: size(s, "pipeline_max", 10_000, 1..=1_000_000),
        session_buffer_bytes_max: size(s, "session_buffer_bytes_max", MIB, 16_384..=4096 * MIB),
        upload_buffer_bytes_max: size(
            s,
            "upload_buffer_bytes_max",
            600 * MIB,
            0..=1024 * 1024 * MIB,
        ),
        output_buffer_bytes_max: size(
            s,
            "output_buffer_bytes_max",
            600 * MIB,
            65_536..=1024 * 1024 * MIB,
        ),
        lanes: size(s, "lanes", 0, 0..=1024),
        pinned_idle_max: size(s, "pinned_idle_max", 128, 0..=10_000),
        busy_poll: Duration::from_micros(s.number("busy_poll_us", 100, 0..=1000)),
        connect_timeout: wait(s, "connect_timeout_ms", 1000, WAIT_MS),
        tls_handshake_timeout: wait(s, "tls_handshake_timeout_ms", 10_000, WAIT_MS),
        hold_budget: wait(s, "hold_budget_ms", 5000, 0..=3_600_000),
        reads_without_master: s.choice(
            "reads_without_master",
            ("hold", MasterlessReads::Hold),
            &[
                ("error", MasterlessReads::Error),
                ("replica", MasterlessReads::Replica),
            ],
        ),
        shutdown_timeout: wait(s, "shutdown_timeout_ms", 10_000, 0..=3_600_000),
        state_dir: s
            .text("state_dir", Some("."))
            .map_or_else(|| PathBuf::from("."), |found| PathBuf::from(found.value)),
        log_format: s.choice(
            "log_format",
            ("text", LogFormat::Text),
            &[("json", LogFormat::Json)],
        ),
        log_level: s.choice(
            "log_level",
            ("info", LogLevel::Info),
            &[
                ("error", LogLevel::Error),
                ("warn", LogLevel::Warn),
                ("debug", LogLevel::Debug),
                ("trace", LogLevel::Trace),
            ],
        ),
    };
    section.finish();
    proxy
}

fn read_switchover(mut section: Section<'_, '_>) -> SwitchoverConfig {
    let s = &mut section;
    let switchover = SwitchoverConfig {
        sync_timeout: wait(s, "sync_timeout_ms", 100, WAIT_MS),
        pause_timeout: wait(s, "pause_timeout_ms", 500, WAIT_MS),
        force_on_timeout: s.flag("force_on_timeout", false),
        silent_proxies: s.choice(
            "silent_proxies",
            ("abort", SilentProxies::Abort),
            &[("report", SilentProxies::Report)],
        ),
        drain_timeout: wait(s, "drain_timeout_ms", 100, WAIT_MS),
        follow_timeout: wait(s, "follow_timeout_ms", 300, WAIT_MS),
        max_lag: s.number("max_lag", MIB, 0..=1024 * 1024 * MIB),
        demote_timeout: wait(s, "demote_timeout_ms", 5000, WAIT_MS),
        config_rewrite: s.flag("config_rewrite", false),
        fence_address: s.text("fence_address", None).and_then(|found| {
            let fault = match Address::parse(&found.value) {
                Ok(_) => None,
                Err(fault) => address::parse_host(&found.value).err().map(|_| fault),
            };
            match fault {
                None => Some(found.value),
                Some(fault) => {
                    let given = read::excerpt_of(&found.value);
                    s.report(
                        found.span,
                        format!("`fence_address` is \"{given}\": {fault}"),
                    );
                    None
                }
            }
        }),
    };
    section.finish();
    switchover
}

fn read_commands(mut section: Section<'_, '_>) -> CommandsConfig {
    let s = &mut section;
    let refuse = ("refuse", CommandAnswer::Refuse);
    let pass = ("pass", CommandAnswer::Pass);
    let switchover = ("switchover", CommandAnswer::Switchover);
    let commands = CommandsConfig {
        replicaof: s.choice("replicaof", refuse, &[pass]),
        failover: s.choice("failover", refuse, &[pass, switchover]),
        shutdown: s.choice("shutdown", refuse, &[pass]),
        client_pause: s.choice("client_pause", pass, &[refuse]),
        replication: s.choice("replication", refuse, &[pass]),
        cluster: s.choice("cluster", refuse, &[pass]),
        script_debug: s.choice("script_debug", refuse, &[pass]),
    };
    section.finish();
    commands
}

/// A top-level table as a section to read; one of the wrong type is reported and read as absent.
fn section<'a, 't>(
    findings: &'a mut Findings<'t>,
    root: &'a DeTable<'a>,
    key: &str,
    header: &'static str,
) -> Section<'a, 't> {
    let Some(value) = root.get(key) else {
        return Section::new(findings, header, None, 0..0);
    };
    let table = value.get_ref().as_table();
    if table.is_none() {
        let is = read::type_name(value.get_ref());
        findings.report(
            value.span(),
            format!("`{key}` is {is}: write a section {header}"),
        );
    }
    Section::new(findings, header, table, value.span())
}

fn size(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default: u64,
    range: RangeInclusive<u64>,
) -> usize {
    usize::try_from(section.number(key, default, range)).unwrap_or(usize::MAX)
}

fn wait(
    section: &mut Section<'_, '_>,
    key: &'static str,
    default_ms: u64,
    range: RangeInclusive<u64>,
) -> Duration {
    Duration::from_millis(section.number(key, default_ms, range))
}
