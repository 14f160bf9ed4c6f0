//! The operations that can be looked up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Operation;
use crate::switchover::exec::measure::Going;

/// Over all shards.
const OPERATIONS_MAX: usize = 100;

#[derive(Default)]
pub(super) struct History {
    operations: Mutex<VecDeque<Arc<Operation>>>,
}

impl History {
    fn lock(&self) -> MutexGuard<'_, VecDeque<Arc<Operation>>> {
        self.operations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub fn remember(&self, operation: Arc<Operation>) {
        let mut operations = self.lock();
        operations.push_back(operation);
        while operations.len() > OPERATIONS_MAX {
            // One that has not ended must be found by those who want to know, or stop it.
            let over = |one: &Arc<Operation>| one.progress.going() == Going::Over;
            let ended = operations.iter().position(over);
            operations.remove(ended.unwrap_or_default());
        }
    }

    pub fn find(&self, id: &str) -> Option<Arc<Operation>> {
        self.lock()
            .iter()
            .rev()
            .find(|operation| operation.id == id)
            .cloned()
    }
}
