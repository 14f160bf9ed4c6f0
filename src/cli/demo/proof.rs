//! Looks for every acknowledged write on the master itself.
//!
//! **Invariant:** the proxy takes no part in it, and existence is not enough: the whole value is
//! compared with what the client sent.

use std::time::Duration;

use super::marked::Series;
use super::wire::{Flat, Wire, WireError};

/// Requests in one write; their replies (0.5 MB with values of 2 KB) are read before the next.
const BATCH: usize = 256;
const REPLY_DEADLINE: Duration = Duration::from_secs(30);
/// Numbers of lost writes that are kept for the report.
const KEPT_MAX: usize = 10;

#[derive(Clone, Debug, Default)]
pub struct Proof {
    pub looked_for: u64,
    /// Acknowledged, and not there.
    pub missing: u64,
    /// There, with another value than the acknowledged one.
    pub altered: u64,
    /// The first few of both.
    pub examples: Vec<String>,
}

impl Proof {
    pub fn lost(&self) -> u64 {
        self.missing + self.altered
    }

    pub fn add(&mut self, other: Proof) {
        self.looked_for += other.looked_for;
        self.missing += other.missing;
        self.altered += other.altered;
        self.examples.extend(other.examples);
    }
}

/// Reads each of `acked` back from `master`.
pub async fn prove(master: &str, series: &Series, acked: &[u64]) -> Result<Proof, WireError> {
    let mut wire = Wire::connect(master).await?.with_deadline(REPLY_DEADLINE);
    let mut proof = Proof::default();
    let mut request = Vec::new();
    for batch in acked.chunks(BATCH) {
        request.clear();
        for &number in batch {
            series.put_get(&mut request, number);
        }
        wire.send_raw(&request).await?;
        for &number in batch {
            let found = wire.flat(|reply| judge(series, number, &reply)).await?;
            proof.looked_for += 1;
            let what = match found {
                Found::Whole => continue,
                Found::Nothing => {
                    proof.missing += 1;
                    "missing"
                }
                Found::Other => {
                    proof.altered += 1;
                    "altered"
                }
            };
            if proof.examples.len() < KEPT_MAX {
                proof
                    .examples
                    .push(format!("{} {what}", series.key(number)));
            }
        }
    }
    Ok(proof)
}

enum Found {
    Whole,
    Nothing,
    Other,
}

fn judge(series: &Series, number: u64, reply: &Flat<'_>) -> Found {
    match reply {
        Flat::Bulk(value) if series.matches(number, value) => Found::Whole,
        Flat::Null => Found::Nothing,
        _ => Found::Other,
    }
}
