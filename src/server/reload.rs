//! Takes over a changed config while clients are served.
//!
//! Certificates, keys, passwords, the admin token, `[switchover]`, `clients_max` and the deadline
//! of handshakes count for what happens from then on: new connections, the next switchover.
//! Connections that are there stay as they are.
//!
//! **Invariant:** all of the new config counts, or nothing of it. A file with a fault, a difference
//! that needs a start, or a running operation leave the old one in place as a whole, and the log
//! says why.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::admin::Guard;
use crate::config::{Config, ConfigErrors, ShardConfig};
use crate::switchover::view::Control;
use crate::transport::Acceptor;

/// What a reload changes of one shard beside its acceptor.
type Renew = Box<dyn Fn(&ShardConfig, &Config) + Send + Sync>;

/// One shard as far as it can be changed.
pub struct ShardParts {
    pub acceptor: Acceptor,
    pub renew: Renew,
}

/// Everything that can be changed.
pub struct Reload {
    pub path: PathBuf,
    pub current: Config,
    pub guard: Arc<Guard>,
    pub clients_max: Arc<AtomicUsize>,
    /// In the order of the config.
    pub shards: Vec<ShardParts>,
    pub control: Arc<dyn Control>,
}

/// Why nothing was changed.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    /// The file cannot be read, or is wrong, or names something that is.
    #[error(transparent)]
    Faulty(#[from] ConfigErrors),
    /// Something differs that is built into what runs.
    #[error("only a new start changes {}: put back what was there, or start anew", .0.join(", "))]
    Fixed(Vec<String>),
    /// Passwords and time-outs must not change under an operation.
    #[error("operation {id} is running on shard {shard}: reload again later")]
    Busy { shard: String, id: String },
    /// Reading the file ended in a panic.
    #[error("the config could not be read: see the line above")]
    Broken,
}

impl Reload {
    /// Reads the file again and takes it over if that is possible.
    pub async fn run(&mut self) {
        match self.attempt().await {
            Ok(()) => tracing::info!(
                config = %self.path.display(),
                "config reloaded: it counts for new connections and the next switchover"
            ),
            Err(refusal) => tracing::error!(
                config = %self.path.display(),
                "config not reloaded, the old one stays: {refusal}"
            ),
        }
    }

    async fn attempt(&mut self) -> Result<(), Refusal> {
        let path = self.path.clone();
        // Files are read on another thread: this one has the control path.
        let loaded = tokio::task::spawn_blocking(move || Config::load(path)).await;
        let new = loaded.map_err(|_| Refusal::Broken)??;
        let fixed = self.current.fixed_differences(&new);
        if !fixed.is_empty() {
            return Err(Refusal::Fixed(fixed));
        }
        for shard in self.control.names() {
            let status = self.control.status(&shard);
            if let Some(id) = status.and_then(|status| status.operation) {
                return Err(Refusal::Busy { shard, id });
            }
        }
        self.take_over(new);
        Ok(())
    }

    fn take_over(&mut self, new: Config) {
        self.guard.set(new.admin.token.clone());
        let clients_max = new.proxy.clients_max;
        self.clients_max.store(clients_max, Ordering::Relaxed);
        let handshake = new.proxy.tls_handshake_timeout;
        for (parts, shard) in self.shards.iter().zip(&new.shards) {
            parts.acceptor.set(shard.tls.clone(), handshake);
            (parts.renew)(shard, &new);
        }
        self.current = new;
    }
}
