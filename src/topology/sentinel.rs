//! What the Sentinels of one shard say about its master, as last heard from each.
//!
//! Owns two connections to every Sentinel: one listens for `+switch-master`, the other asks for the
//! master's address whenever something was heard, somebody wants to know, or a second has gone by.
//! **Invariant:** it decides nothing: [`majority`] is a pure judgement over what they say, and
//! whether the node that they name is believed is decided elsewhere.

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::config::ShardConfig;
use crate::resp::reply::Value;
use crate::topology::node::{Connection, Credentials, NodeError, NodeName, Subscription};

/// How often each is asked when nothing is heard.
const ASK_EVERY: Duration = Duration::from_secs(1);
/// What was said longer ago counts as not said: three questions were missed.
const FRESH: Duration = Duration::from_secs(3);
/// Pauses between attempts at one that cannot be reached.
const RETRY_FIRST: Duration = Duration::from_millis(100);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// What the connections call themselves.
const NAME: &str = "pointsman-sentinel";

/// What one Sentinel said last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Says {
    /// Nothing: it has not been asked yet.
    Unasked,
    /// That it does not know the shard by this name.
    Nobody,
    Master {
        host: String,
        port: u16,
    },
    /// Nothing: it could not be asked, for this reason.
    Silent(String),
}

/// What one Sentinel said last, and when.
#[derive(Clone, Debug)]
pub struct Opinion {
    pub says: Says,
    /// Since when it has been saying so.
    pub since: Instant,
    /// When it said so last.
    pub heard_at: Instant,
}

/// The address that a majority names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Word {
    pub host: String,
    pub port: u16,
    /// Since when all of that majority have been naming it.
    pub since: Instant,
}

/// What all of them together say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hearsay {
    /// One of them has not been asked yet.
    Unasked,
    /// No majority names the same address.
    Nothing,
    Word(Word),
}

/// What more than half of all of them say: fewer cannot have elected it either, and one alone may
/// be behind the others.
pub fn majority(opinions: &[Opinion], now: Instant) -> Hearsay {
    if opinions.iter().any(|one| one.says == Says::Unasked) {
        return Hearsay::Unasked;
    }
    let answers: Vec<&Opinion> = opinions
        .iter()
        .filter(|one| !matches!(one.says, Says::Silent(_)))
        .filter(|one| now.saturating_duration_since(one.heard_at) <= FRESH)
        .collect();
    for one in &answers {
        let Says::Master { host, port } = &one.says else {
            continue;
        };
        let agreeing = answers.iter().filter(|other| other.says == one.says);
        let since = agreeing.clone().map(|other| other.since).max();
        if 2 * agreeing.count() > opinions.len()
            && let Some(since) = since
        {
            let (host, port) = (host.clone(), *port);
            return Hearsay::Word(Word { host, port, since });
        }
    }
    Hearsay::Nothing
}

/// The Sentinels of one shard.
#[derive(Debug)]
pub struct Sentinels {
    pub names: Vec<NodeName>,
    /// What they call the shard.
    pub master: String,
    pub credentials: Credentials,
    opinions: ArcSwap<Vec<Opinion>>,
    wanted: Vec<Notify>,
    /// Counts the times that one of them began to say something else.
    news: watch::Sender<u64>,
}

impl Sentinels {
    /// `None` when the config names none.
    pub fn of(shard: &ShardConfig) -> Option<Arc<Sentinels>> {
        let config = shard.sentinel.as_ref()?;
        let names: Vec<NodeName> = config.nodes.iter().map(|one| one.as_str().into()).collect();
        let now = Instant::now();
        let unasked = Opinion {
            says: Says::Unasked,
            since: now,
            heard_at: now,
        };
        Some(Arc::new(Sentinels {
            master: config.master.clone(),
            credentials: Credentials::of_sentinels(shard),
            opinions: ArcSwap::from_pointee(vec![unasked; names.len()]),
            wanted: names.iter().map(|_| Notify::new()).collect(),
            names,
            news: watch::Sender::new(0),
        }))
    }

    pub fn hearsay(&self, now: Instant) -> Hearsay {
        majority(&self.opinions.load(), now)
    }

    /// Tells when one of them begins to say something else.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Asks all of them soon.
    pub fn want(&self) {
        for one in &self.wanted {
            one.notify_one();
        }
    }

    /// Listens until it is cancelled. Every answer has a deadline of `within`.
    pub async fn run(self: Arc<Self>, within: Duration, stop: CancellationToken) {
        let mut listening = JoinSet::new();
        for (at, name) in self.names.iter().enumerate() {
            let (sentinels, name) = (self.clone(), name.clone());
            listening.spawn(async move { sentinels.attend(at, &name, within).await });
        }
        stop.cancelled().await;
    }

    /// One Sentinel, for ever.
    async fn attend(&self, at: usize, name: &NodeName, within: Duration) {
        let mut pause = RETRY_FIRST;
        loop {
            let mut answered = false;
            let Err(error) = self.listen(at, name, within, &mut answered).await;
            if answered {
                pause = RETRY_FIRST;
            }
            self.heard(at, Says::Silent(error.to_string()));
            sleep(pause).await;
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// Asks and listens until the connection is lost.
    async fn listen(
        &self,
        at: usize,
        name: &NodeName,
        within: Duration,
        answered: &mut bool,
    ) -> Result<std::convert::Infallible, NodeError> {
        let mut asker = Connection::open(name, &self.credentials, NAME, within).await?;
        let listener = Connection::open(name, &self.credentials, NAME, within).await?;
        let mut listener = Subscription::open(listener, "+switch-master", within).await?;
        let mut pinged = false;
        loop {
            let says = ask(&mut asker, &self.master, within).await?;
            self.heard(at, says);
            *answered = true;
            let wanted = async {
                match self.wanted.get(at) {
                    Some(wanted) => wanted.notified().await,
                    None => std::future::pending().await,
                }
            };
            // Cancel-safe: what has been read of a message stays read, and a permit that was not
            // taken stays.
            tokio::select! {
                // A pong, or the news that some master has changed.
                message = listener.next() => {
                    message?;
                    pinged = false;
                }
                () = wanted => {}
                () = sleep(ASK_EVERY) => {
                    if pinged {
                        return Err(listener.silent(ASK_EVERY));
                    }
                    listener.ping(within).await?;
                    pinged = true;
                }
            }
        }
    }

    fn heard(&self, at: usize, says: Says) {
        let now = Instant::now();
        let mut news = false;
        self.opinions.rcu(|opinions| {
            let mut opinions = opinions.as_ref().clone();
            if let Some(opinion) = opinions.get_mut(at) {
                news = opinion.says != says;
                if news {
                    opinion.since = now;
                    opinion.says = says.clone();
                }
                opinion.heard_at = now;
            }
            opinions
        });
        if news {
            if let Some(name) = self.names.get(at) {
                tracing::debug!(sentinel = %name, master = self.master, ?says, "a Sentinel speaks");
            }
            self.news.send_modify(|told| *told += 1);
        }
    }
}

/// What one Sentinel says now.
pub async fn ask(
    connection: &mut Connection,
    master: &str,
    within: Duration,
) -> Result<Says, NodeError> {
    let question = ["SENTINEL", "GET-MASTER-ADDR-BY-NAME", master];
    let value = connection.call(&question, within).await?;
    if let Some(text) = value.error() {
        return Err(NodeError::Refused {
            node: connection.node().clone(),
            command: "SENTINEL GET-MASTER-ADDR-BY-NAME".to_owned(),
            text: text.to_owned(),
        });
    }
    Ok(said(&value).unwrap_or(Says::Nobody))
}

fn said(value: &Value) -> Option<Says> {
    let [host, port] = value.items()? else {
        return None;
    };
    Some(Says::Master {
        host: host.text()?.to_owned(),
        port: port.text()?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn master(port: u16) -> Says {
        let host = "10.0.0.1".to_owned();
        Says::Master { host, port }
    }

    /// The port that is named by all who said so now, or longer ago.
    fn check(says: &[(Says, Duration)]) -> Option<u16> {
        let now = Instant::now() + Duration::from_secs(60);
        let opinion = |(says, ago): &(Says, Duration)| Opinion {
            says: says.clone(),
            since: now - *ago,
            heard_at: now - *ago,
        };
        let opinions: Vec<Opinion> = says.iter().map(opinion).collect();
        match majority(&opinions, now) {
            Hearsay::Word(word) => Some(word.port),
            Hearsay::Nothing | Hearsay::Unasked => None,
        }
    }

    const NOW: Duration = Duration::ZERO;

    fn silent() -> Says {
        Says::Silent("gone".to_owned())
    }

    #[test]
    fn more_than_half_of_those_that_answer_make_a_word() {
        assert_eq!(check(&[(master(1), NOW)]), Some(1));
        assert_eq!(check(&[(master(1), NOW), (master(2), NOW)]), None);
        let two = [(master(1), NOW), (master(2), NOW), (master(2), NOW)];
        assert_eq!(check(&two), Some(2));
        let silent_one = [(master(1), NOW), (silent(), NOW), (silent(), NOW)];
        assert_eq!(check(&silent_one), None);
        let silent_of_three = [(master(1), NOW), (silent(), NOW), (master(1), NOW)];
        assert_eq!(check(&silent_of_three), Some(1));
    }

    #[test]
    fn one_that_knows_no_such_master_has_answered() {
        assert_eq!(check(&[(master(1), NOW), (Says::Nobody, NOW)]), None);
        assert_eq!(check(&[(Says::Nobody, NOW), (Says::Nobody, NOW)]), None);
    }

    #[test]
    fn what_was_said_long_ago_counts_as_not_said() {
        let old = FRESH + Duration::from_millis(1);
        assert_eq!(check(&[(master(1), old)]), None);
        let two = [(master(1), NOW), (master(2), old), (master(2), old)];
        assert_eq!(check(&two), None);
    }

    #[test]
    fn nothing_is_judged_before_all_have_been_asked() {
        assert_eq!(check(&[(master(1), NOW), (Says::Unasked, NOW)]), None);
    }
}
