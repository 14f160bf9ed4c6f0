//! What the gate costs a write, and what a hold costs a worker.

use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use pointsman::shard::gate::{Gate, GateState};
use tokio::sync::oneshot;

fn gate(criterion: &mut Criterion) {
    let gate = Gate::shut(Arc::default());
    gate.release(GateState::Open);

    criterion.bench_function("gate/one write admitted and ended", |bencher| {
        bencher.iter(|| {
            if gate.is_open() {
                gate.admit_writes(1);
            }
            gate.write_ended(1);
        });
    });

    criterion.bench_function(
        "gate/hold and release with 1000 sessions watching",
        |bencher| {
            let watches: Vec<_> = (0..1000).map(|_| gate.watch()).collect();
            bencher.iter(|| {
                let (drained, _answer) = oneshot::channel();
                gate.hold(drained);
                for watch in &watches {
                    watch.write_waits();
                }
                gate.release(GateState::Open)
            });
        },
    );
}

criterion_group!(benches, gate);
criterion_main!(benches);
