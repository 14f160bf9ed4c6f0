//! What the driver of an operation asks of the others, and who has answered.

use std::collections::BTreeSet;
use std::time::Duration;

use bytes::Bytes;

use super::census::Census;
use super::channel::{Peers, Say};
use super::message::{Saying, Step};
use crate::resp::reply::{RoleReply, Value};
use crate::switchover::report::{OtherProxy, Outcome, Proxies};
use crate::topology::node::words;

/// Acknowledgements that are counted.
pub(super) const PEERS_MAX: usize = 256;

/// The others in one operation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roll {
    operation: String,
    stage: Stage,
    /// Who listened on the old master shortly before; `None` where it does not say.
    pub census: Option<Census>,
    /// How many others listen there.
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
    Untold,
    Told,
    #[default]
    Over,
}

impl Roll {
    /// Counted, and everybody by name: one that leaves meanwhile and one that comes are not the
    /// same.
    fn is_held(&self) -> bool {
        let mut named = self.census.iter().flat_map(|census| census.others.keys());
        self.held.len() >= self.others && named.all(|id| self.held.contains(id))
    }

    /// What is reported of an operation that ended so.
    pub fn told(self, outcome: Outcome) -> Proxies {
        let census = self.census.unwrap_or_default();
        // Who was not asked to hold is not silent.
        let named = census.others.into_iter().filter(|_| self.others > 0);
        let named = named.map(|(id, addr)| OtherProxy { id, addr });
        let (held, silent): (Vec<_>, Vec<_>) = named.partition(|one| self.held.contains(&one.id));
        // Nobody was told to follow before there was a new master.
        let late = |one: &OtherProxy| outcome.is_switched() && !self.routed.contains(&one.id);
        Proxies {
            others: self.others,
            silent,
            late: held.into_iter().filter(late).collect(),
            strangers: census.strangers,
            held: self.held.into_iter().collect(),
            routed: self.routed.into_iter().collect(),
            fault: self.fault,
        }
    }
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

    /// An operation of ours begins to hold: who answers it is counted from now on.
    pub fn open(&self, operation: &str, census: Option<Census>) {
        self.roll.send_replace(Roll {
            operation: operation.to_owned(),
            stage: Stage::Untold,
            census,
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

    /// Whether nobody else is there, right now, who would have to be told. Asked before the hold:
    /// whoever comes behind the answer learns of no hold, whenever it is asked.
    pub async fn is_alone(&self, old: &str, census: Option<&Census>) -> bool {
        let Some(at) = self.place_of(old) else {
            return false;
        };
        let answers = self.ask(at, vec![self.count()]).await;
        let listening = answers.and_then(|answers| listening(answers.first()).ok());
        listening.is_some_and(|listening| expected(census, listening) == 0)
    }

    /// Has the others hold. Returns how many there are when all of them do; waits without a
    /// deadline.
    pub async fn hold(
        &self,
        operation: &str,
        old: &str,
        target: &str,
        length: Duration,
    ) -> Result<usize, String> {
        let counted = self.hold_and_count(operation, old, target, length).await;
        if let Err(why) = &counted {
            self.fault(why.clone());
        }
        let others = counted?;
        let mut roll = self.roll.subscribe();
        // The sender lives as long as `self`.
        let _ = roll.wait_for(Roll::is_held).await;
        Ok(others)
    }

    async fn hold_and_count(
        &self,
        operation: &str,
        old: &str,
        target: &str,
        length: Duration,
    ) -> Result<usize, String> {
        let silent = || format!("{old} did not say how many proxies listen there");
        let at = self.place_of(old).ok_or_else(silent)?;
        let target = target.to_owned();
        let hold = self.publication(operation, Saying::Hold { length, target });
        let (answer, answered) = tokio::sync::oneshot::channel();
        let say = Say {
            commands: vec![hold, self.count()],
            answer: Some(answer),
        };
        // Under the lock: nothing is said of an operation behind its release.
        let said = self.roll.send_if_modified(|roll| {
            let open = roll.operation == operation && roll.stage == Stage::Untold;
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
        let listening = listening(answers.get(1))?;
        let others = expected(self.roll.borrow().census.as_ref(), listening);
        self.roll.send_modify(|roll| roll.others = others);
        Ok(others)
    }

    /// The question how many listen on a node.
    pub(super) fn count(&self) -> Vec<Bytes> {
        words(&["PUBSUB", "NUMSUB", &self.channel])
    }

    /// Tells the others who is master. Returns when all that hold read there, or time is over: they
    /// are two round trips away from it, and move their subscribers meanwhile. A late write is
    /// better than a lost message, as in every release.
    pub async fn route(&self, operation: &str, old: &str, target: &str, within: Duration) {
        for node in [old, target] {
            // Heard from whichever lives: the old master may be gone.
            if let Some(at) = self.place_of(node) {
                let target = target.to_owned();
                self.publish(at, operation, Saying::Route { target });
            }
        }
        let mut roll = self.roll.subscribe();
        // Nobody answers any more once it is over.
        let all = roll.wait_for(|roll| {
            let open = roll.operation == operation && roll.stage != Stage::Over;
            !open || roll.held.is_subset(&roll.routed)
        });
        // Whoever is late is named in the report.
        let _ = tokio::time::timeout(within, all).await;
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
            told
        });
    }
}

/// How many proxies are to be waited for when so many listen.
fn expected(census: Option<&Census>, listening: usize) -> usize {
    match census {
        Some(census) => census.expected(listening),
        None => listening.saturating_sub(1),
    }
}

/// How many listen, by the answer to `PUBSUB NUMSUB` of one channel.
pub(super) fn listening(answer: Option<&Value>) -> Result<usize, String> {
    let told = |value: &Value| match value.items()? {
        [_, count] => usize::try_from(count.number()?).ok(),
        _ => None,
    };
    answer.and_then(told).ok_or_else(|| {
        let words = answer.and_then(Value::error).unwrap_or("no number");
        format!("how many proxies listen is not known: {words}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Three others, of which these have answered.
    fn roll(held: &[&str], routed: &[&str]) -> Roll {
        let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect();
        let others = ["a", "b", "c"].map(|id| (id.to_owned(), format!("{id}:1")));
        let census = Census {
            others: others.into(),
            ..Census::default()
        };
        Roll {
            census: Some(census),
            others: 3,
            held: ids(held),
            routed: ids(routed),
            ..Roll::default()
        }
    }

    #[test]
    fn everybody_who_was_named_is_waited_for_whoever_else_answers() {
        assert!(!roll(&["a", "b"], &[]).is_held());
        assert!(!roll(&["a", "b", "d"], &[]).is_held());
        assert!(roll(&["a", "b", "c"], &[]).is_held());
        let joined = Roll {
            others: 4,
            ..roll(&["a", "b", "c"], &[])
        };
        assert!(!joined.is_held());
    }

    #[test]
    fn who_did_not_hold_is_silent_and_who_did_not_follow_is_late() {
        let ids = |some: &[OtherProxy]| some.iter().map(|one| one.id.clone()).collect::<Vec<_>>();
        let told = roll(&["a", "b"], &["a"]).told(Outcome::Switched);
        assert_eq!(
            (ids(&told.silent), ids(&told.late)),
            (vec!["c".to_owned()], vec!["b".to_owned()])
        );
        let undone = roll(&["a", "b"], &[]).told(Outcome::RolledBack);
        assert_eq!(
            (ids(&undone.silent), ids(&undone.late)),
            (vec!["c".to_owned()], vec![])
        );
        let unasked = Roll {
            others: 0,
            ..roll(&[], &[])
        };
        assert_eq!(unasked.told(Outcome::RolledBack).silent, []);
    }
}
