//! Which differences between two configs a running proxy can take over.
//!
//! **Invariant:** what is not named here as changeable is fixed: a key that is added later cannot
//! be taken for changeable by accident.

use super::{AdminConfig, CommandsConfig, Config, ProxyConfig, SentinelConfig, ShardConfig};

impl Config {
    /// What `new` says otherwise that only a start can bring about, as the file names it; empty
    /// when all of `new` can be taken over.
    pub fn fixed_differences(&self, new: &Config) -> Vec<String> {
        let mut fixed = Vec::new();
        proxy(&self.proxy, &new.proxy, &mut fixed);
        let AdminConfig {
            listen,
            token: _,
            allow_remote_without_token: _,
        } = &self.admin;
        if *listen != new.admin.listen {
            fixed.push("[admin] listen".to_owned());
        }
        commands(&self.commands, &new.commands, &mut fixed);
        let names = |config: &Config| -> Vec<String> {
            config
                .shards
                .iter()
                .map(|shard| shard.name.clone())
                .collect()
        };
        if names(self) != names(new) {
            fixed.push("which [[shard]] there are, their names and their order".to_owned());
            return fixed;
        }
        for (old, new) in self.shards.iter().zip(&new.shards) {
            shard(old, new, &mut fixed);
        }
        fixed
    }
}

fn proxy(old: &ProxyConfig, new: &ProxyConfig, fixed: &mut Vec<String>) {
    // Taken apart so that a new key has to be put on one of the two sides.
    let ProxyConfig {
        workers,
        clients_max: _,
        inline_bytes_max,
        bulk_bytes_max,
        elements_max,
        pipeline_max,
        session_buffer_bytes_max,
        upload_buffer_bytes_max,
        output_buffer_bytes_max,
        lanes,
        pinned_idle_max,
        busy_poll,
        connect_timeout,
        tls_handshake_timeout: _,
        hold_budget,
        reads_without_master,
        shutdown_timeout,
        state_dir,
        log_format,
        log_level,
    } = old;
    let same = [
        ("workers", *workers == new.workers),
        (
            "inline_bytes_max",
            *inline_bytes_max == new.inline_bytes_max,
        ),
        ("bulk_bytes_max", *bulk_bytes_max == new.bulk_bytes_max),
        ("elements_max", *elements_max == new.elements_max),
        ("pipeline_max", *pipeline_max == new.pipeline_max),
        (
            "session_buffer_bytes_max",
            *session_buffer_bytes_max == new.session_buffer_bytes_max,
        ),
        (
            "upload_buffer_bytes_max",
            *upload_buffer_bytes_max == new.upload_buffer_bytes_max,
        ),
        (
            "output_buffer_bytes_max",
            *output_buffer_bytes_max == new.output_buffer_bytes_max,
        ),
        ("lanes", *lanes == new.lanes),
        ("pinned_idle_max", *pinned_idle_max == new.pinned_idle_max),
        ("busy_poll_us", *busy_poll == new.busy_poll),
        (
            "connect_timeout_ms",
            *connect_timeout == new.connect_timeout,
        ),
        ("hold_budget_ms", *hold_budget == new.hold_budget),
        (
            "reads_without_master",
            *reads_without_master == new.reads_without_master,
        ),
        (
            "shutdown_timeout_ms",
            *shutdown_timeout == new.shutdown_timeout,
        ),
        ("state_dir", *state_dir == new.state_dir),
        ("log_format", *log_format == new.log_format),
        ("log_level", *log_level == new.log_level),
    ];
    let changed = same.into_iter().filter(|(_, same)| !same);
    fixed.extend(changed.map(|(key, _)| format!("[proxy] {key}")));
}

fn commands(old: &CommandsConfig, new: &CommandsConfig, fixed: &mut Vec<String>) {
    if old != new {
        fixed.push("[commands]".to_owned());
    }
}

fn shard(old: &ShardConfig, new: &ShardConfig, fixed: &mut Vec<String>) {
    let ShardConfig {
        name,
        listen,
        nodes,
        username: _,
        password: _,
        tls: _,
        upstream_tls: _,
        sentinel,
        promote_after,
    } = old;
    let watched = |sentinel: &Option<SentinelConfig>| {
        let sentinel = sentinel.as_ref()?;
        Some((sentinel.nodes.clone(), sentinel.master.clone()))
    };
    for (key, same) in [
        (
            "sentinels and sentinel_master",
            watched(sentinel) == watched(&new.sentinel),
        ),
        ("listen", *listen == new.listen),
        ("nodes", *nodes == new.nodes),
        (
            "promote_on_failure and down_after_ms",
            *promote_after == new.promote_after,
        ),
    ] {
        if !same {
            fixed.push(format!("{key} of shard {name}"));
        }
    }
}
