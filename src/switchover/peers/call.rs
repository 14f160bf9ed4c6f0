//! What the driver of an operation asks of the others, and who has answered.

use std::collections::BTreeSet;
use std::time::Duration;

use super::channel::{Peers, Say};
use super::message::{Saying, Step};
use crate::resp::reply::{RoleReply, Value};
use crate::topology::node::words;

/// How long the driver waits until the others read from the new master, with every write held. They
/// are two round trips away from it, and move their subscribers meanwhile: a late write is better than
/// a lost message, as in every release.
pub const ROUTE_WITHIN: Duration = Duration::from_millis(300);
/// Acknowledgements that are counted.
const PEERS_MAX: usize = 256;

/// The others in one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    operation: String,
    stage: Stage,
    /// How many others listen on the old master.
    pub others: usize,
    /// Those that hold, and have nothing under way.
    pub held: BTreeSet<String>,
    /// Those that read from the new master.
    pub routed: BTreeSet<String>,
    /// Why they could not be counted or told.
    pub fault: Option<String>,
}

/// Whether an operation still asks for something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    /// Nobody was told anything yet.
    Counting,
    Told,
    #[default]
    Over,
}

impl Peers {
    pub(super) fn acknowledged(&self, operation: &str, proxy: &str, step: Step) {
        self.roll.send_if_modified(|roll| {
            if roll.operation != operation || roll.stage == Stage::Over {
                return false;
            }
            let acked = match step {
                Step::Hold => &mut roll.held,
                Step::Route => &mut roll.routed,
            };
            acked.len() < PEERS_MAX && acked.insert(proxy.to_owned())
        });
    }

    /// An operation of ours begins: who answers it is counted from now on.
    pub fn open(&self, operation: &str) {
        self.roll.send_replace(Roll {
            operation: operation.to_owned(),
            stage: Stage::Counting,
            ..Roll::default()
        });
    }

    /// Who has answered in an operation of ours; `None` when nobody was asked.
    pub fn roll_of(&self, operation: &str) -> Option<Roll> {
        let roll = self.roll.borrow();
        (roll.operation == operation).then(|| roll.clone())
    }

    fn fault(&self, why: String) {
        self.roll.send_modify(|roll| roll.fault = Some(why));
    }

    /// Has the others hold. Returns how many there are when all of them do; waits without a deadline.
    pub async fn hold(
        &self,
        operation: &str,
        old: &str,
        target: &str,
        length: Duration,
    ) -> Result<usize, String> {
        let counted = self.count_and_hold(operation, old, target, length).await;
        if let Err(why) = &counted {
            self.fault(why.clone());
        }
        let others = counted?;
        let mut roll = self.roll.subscribe();
        // The sender lives as long as `self`.
        let _ = roll.wait_for(|roll| roll.held.len() >= others).await;
        Ok(others)
    }

    async fn count_and_hold(
        &self,
        operation: &str,
        old: &str,
        target: &str,
        length: Duration,
    ) -> Result<usize, String> {
        let silent = || format!("{old} did not say how many proxies listen there");
        let at = self.place_of(old).ok_or_else(silent)?;
        let count = words(&["PUBSUB", "NUMSUB", &self.channel]);
        let alone = self.ask(at, vec![count.clone()]).await.ok_or_else(silent)?;
        if listening(alone.first())? <= 1 {
            return Ok(0);
        }
        let target = target.to_owned();
        let hold = self.publication(operation, Saying::Hold { length, target });
        let (answer, answered) = tokio::sync::oneshot::channel();
        let say = Say {
            commands: vec![hold, count],
            answer: Some(answer),
        };
        // Under the lock: nothing is said of an operation behind its release.
        let said = self.roll.send_if_modified(|roll| {
            let open = roll.operation == operation && roll.stage == Stage::Counting;
            if open {
                roll.stage = Stage::Told;
                self.say(at, say);
            }
            open
        });
        if !said {
            return Err("the operation has ended".to_owned());
        }
        let answers = answered.await.map_err(|_| silent())?;
        if let Some(refused) = answers.first().and_then(Value::error) {
            return Err(format!("{old} refused PUBLISH: {refused}"));
        }
        let others = listening(answers.get(1))?.saturating_sub(1);
        self.roll.send_modify(|roll| roll.others = others);
        Ok(others)
    }

    /// Tells the others who is master. Returns when all that hold read there, or time is over.
    pub async fn route(&self, operation: &str, old: &str, target: &str) {
        for node in [old, target] {
            // Heard from whichever lives: the old master may be gone.
            if let Some(at) = self.place_of(node) {
                let target = target.to_owned();
                self.publish(at, operation, Saying::Route { target });
            }
        }
        let mut roll = self.roll.subscribe();
        let all = roll.wait_for(|roll| roll.held.is_subset(&roll.routed));
        // Whoever is late is named in the report.
        let _ = tokio::time::timeout(ROUTE_WITHIN, all).await;
    }

    /// Tells the driver of an operation, by way of this node.
    pub fn acknowledge(&self, at: usize, operation: &str, step: Step) {
        self.publish(at, operation, Saying::Ack(step));
    }

    /// What a node says that it is; `None` when it does not answer.
    pub async fn role_of(&self, node: &str) -> Option<RoleReply> {
        let at = self.place_of(node)?;
        let answers = self.ask(at, vec![words(&["ROLE"])]).await?;
        RoleReply::of(answers.first()?)
    }

    /// The others let their writes go on.
    pub fn release(&self, operation: &str, old: &str, target: &str) {
        self.roll.send_if_modified(|roll| {
            let told = std::mem::replace(&mut roll.stage, Stage::Over) == Stage::Told;
            let nodes = [old, target].into_iter().filter(|_| told);
            for at in nodes.filter_map(|node| self.place_of(node)) {
                self.publish(at, operation, Saying::Release);
            }
            false
        });
    }
}

/// How many listen, by the answer to `PUBSUB NUMSUB` of one channel.
fn listening(answer: Option<&Value>) -> Result<usize, String> {
    let told = |value: &Value| match value.items()? {
        [_, count] => usize::try_from(count.number()?).ok(),
        _ => None,
    };
    answer.and_then(told).ok_or_else(|| {
        let words = answer.and_then(Value::error).unwrap_or("no number");
        format!("how many proxies listen is not known: {words}")
    })
}
