//! Clients that write and read all the while, remember each acknowledged write and each error, and
//! find out at the end what was lost.

use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use pointsman::cli::demo::direct_writer::{self, DirectWriter};
use pointsman::cli::demo::load::{Load, Plan, Record};
use pointsman::cli::demo::marked::Series;
use pointsman::cli::demo::proof::{Proof, prove};

use super::{Proxy, Shard, wait_until};

/// Running clients: 20 through the proxy, one that goes past it.
pub struct Clients {
    load: Load,
    direct: DirectWriter,
    series: Series,
    direct_series: Series,
    pub origin: Instant,
}

/// What the clients saw, and what is left of it on the master.
#[derive(Debug)]
pub struct Checked {
    pub record: Record,
    pub direct: direct_writer::Record,
    pub proof: Proof,
}

impl Clients {
    /// Returns when writes of both kinds have been acknowledged.
    pub async fn start(shard: &Shard, proxy: &Proxy) -> Clients {
        let series = Series::new("check:w", 512);
        let direct_series = Series::new("check:d", 128);
        let origin = Instant::now();
        let plan = Plan {
            addr: proxy.addr.clone(),
            connections: 20,
            read_only: 5,
            writes_per_s: 1500,
            reads_per_s: 1000,
            series: series.clone(),
        };
        let load = Load::start(plan, origin)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"));
        let direct = DirectWriter::start(shard.addrs(), direct_series.clone(), 500);
        let clients = Clients {
            load,
            direct,
            series,
            direct_series,
            origin,
        };
        clients.go_on().await;
        clients
    }

    pub fn errors(&self) -> u64 {
        self.load.live().errors.load(Relaxed)
    }

    /// Returns when further writes of both kinds have been acknowledged.
    pub async fn go_on(&self) {
        let acked = || self.load.live().acked.load(Relaxed);
        let (before, direct_before) = (acked(), self.direct.acked());
        wait_until("further writes are acknowledged", async || {
            acked() > before + 200 && self.direct.acked() > direct_before + 20
        })
        .await;
    }

    /// Ends the clients and looks for every acknowledged write on the master.
    pub async fn finish(self, shard: &Shard) -> Checked {
        let record = self.load.stop().await.expect("the record of the load");
        let direct = self
            .direct
            .stop()
            .await
            .expect("the record of the direct writer");
        let master = shard.master().await.expect("exactly one master");
        let mut proof = prove(&master, &self.series, &record.acked)
            .await
            .expect("a proof");
        proof.add(
            prove(&master, &self.direct_series, &direct.acked)
                .await
                .expect("a proof"),
        );
        Checked {
            record,
            direct,
            proof,
        }
    }
}

impl Checked {
    /// No acknowledged write is lost, no client of the proxy saw an error or waits for a reply.
    pub fn assert_clean(&self) {
        assert_eq!(self.proof.lost(), 0, "lost: {:?}", self.proof.examples);
        assert_eq!(self.record.errors, 0, "{:?}", self.record.error_texts);
        assert_eq!(self.record.unanswered, 0, "requests without a reply");
        assert!(!self.record.acked.is_empty() && !self.direct.acked.is_empty());
    }

    /// The longest that a read on a connection without writes took, in milliseconds.
    pub fn slowest_read_ms(&self) -> f64 {
        slowest_ms(&self.record.reads_alone)
    }

    pub fn slowest_write_ms(&self) -> f64 {
        slowest_ms(&self.record.writes)
    }
}

fn slowest_ms(samples: &[pointsman::cli::demo::load::Sample]) -> f64 {
    let slowest = samples
        .iter()
        .map(|sample| sample.latency_us)
        .max()
        .unwrap_or(0);
    f64::from(slowest) / 1000.0
}
