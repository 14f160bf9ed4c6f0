//! Tells the Sentinels of a shard whom they are to watch after a promotion of ours.
//!
//! Sentinel has no order to change its mind about who is master. It is made to forget the shard
//! (`SENTINEL REMOVE`) and to watch it anew at the target (`SENTINEL MONITOR`), with the settings
//! that it had before. A Sentinel that was not told puts the old roles back (measured: after 29 s).
//!
//! **Invariant:** all that can be reached forget before one watches anew: one that still remembers
//! the old master would win those back that have begun again at epoch 0.
//!
//! Trade-offs: one that comes back late may have won the others back before it is told, so they all
//! forget once more, together with it. Until then nothing is repeated: a Sentinel that forgets
//! every second never finds the replicas again (it asks every ten). And Sentinel tells nobody the
//! password that it uses on the nodes, so it is given ours.

use std::time::Duration;

use tokio::task::JoinSet;

use super::sentinels::{Terms, accepted, at_some};
use crate::topology::node::{Connection, Credentials, NodeError, NodeName};
use crate::topology::sentinel::{Says, Sentinels, ask};

/// What the Sentinels are to be told, and who has been.
#[derive(Clone, Debug, Default)]
pub struct Telling {
    terms: Vec<Terms>,
    untold: Vec<NodeName>,
}

/// What became of an order to forget the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Forgot {
    Now,
    /// Told half-way before.
    Earlier,
}

impl Telling {
    /// Nobody has been told yet.
    pub fn of(terms: Vec<Terms>) -> Telling {
        let untold = terms.iter().map(|one| one.sentinel.as_str().into());
        Telling {
            untold: untold.collect(),
            terms,
        }
    }

    pub fn terms(&self) -> &[Terms] {
        &self.terms
    }

    /// Those that do not know the target yet.
    pub fn untold(&self) -> &[NodeName] {
        &self.untold
    }

    /// Tells those that have not been told. `nodes`: who they are to be on the nodes. The answer
    /// says why some could not be.
    pub async fn attempt(
        &mut self,
        sentinels: &Sentinels,
        nodes: &Credentials,
        within: Duration,
    ) -> Vec<String> {
        let mut failed = Vec::new();
        let mut ready = forget(sentinels, &self.untold, &mut failed, within).await;
        if ready.iter().any(|(_, forgot)| *forgot == Forgot::Now) {
            let terms = self.terms.iter().map(|one| one.sentinel.as_str().into());
            let told: Vec<NodeName> = terms.filter(|one| !self.untold.contains(one)).collect();
            // One of them that is away now has been told, and does not matter.
            let mut away = Vec::new();
            ready.extend(forget(sentinels, &told, &mut away, within).await);
        }
        let mut running = JoinSet::new();
        for (connection, _) in ready {
            let name = connection.node().clone();
            // Forgotten, it knows nobody until it has been told.
            if !self.untold.contains(&name) {
                self.untold.push(name.clone());
            }
            let own = self.terms.iter().find(|own| own.sentinel == *name).cloned();
            let (master, nodes) = (sentinels.master.clone(), nodes.clone());
            running.spawn(async move {
                let told = match own {
                    Some(own) => monitor(connection, &master, &own, &nodes, within).await,
                    None => Ok(()),
                };
                (name, told)
            });
        }
        for (name, told) in running.join_all().await {
            match told {
                Ok(()) => self.untold.retain(|one| *one != name),
                Err(error) => failed.push(format!("Sentinel: {error}")),
            }
        }
        failed
    }
}

/// Has these forget the shard; the connections to those that have come back.
async fn forget(
    sentinels: &Sentinels,
    names: &[NodeName],
    failed: &mut Vec<String>,
    within: Duration,
) -> Vec<(Connection, Forgot)> {
    let act = move |mut connection: Connection, master: String| async move {
        let order = ["SENTINEL", "REMOVE", &master];
        let value = connection.call(&order, within).await?;
        match value.error() {
            Some(text) if text.contains("No such master") => Ok((connection, Forgot::Earlier)),
            _ => {
                accepted(&connection, &order, &value)?;
                Ok((connection, Forgot::Now))
            }
        }
    };
    let mut ready = Vec::new();
    for result in at_some(sentinels, names, act, within).await {
        match result {
            Ok(forgotten) => ready.push(forgotten),
            Err(error) => failed.push(format!("Sentinel: {error}")),
        }
    }
    ready
}

async fn monitor(
    mut connection: Connection,
    master: &str,
    own: &Terms,
    nodes: &Credentials,
    within: Duration,
) -> Result<(), NodeError> {
    let port = own.port.to_string();
    let monitor = ["SENTINEL", "MONITOR", master, &own.host, &port, &own.quorum];
    let mut set = vec!["SENTINEL", "SET", master];
    for (name, value) in &own.settings {
        set.extend([name.as_str(), value.as_str()]);
    }
    let (user, password) = nodes.login();
    if let Some(user) = &user {
        set.extend(["auth-user", user]);
    }
    if let Some(password) = &password {
        set.extend(["auth-pass", password.expose()]);
    }
    // In one write: it does not connect to the target before it has its password.
    let orders: [&[&str]; 2] = [&monitor, &set];
    let values = connection.call_words(&orders, within).await?;
    for (order, value) in orders.iter().zip(&values) {
        accepted(&connection, order, value)?;
    }
    let says = ask(&mut connection, master, within).await?;
    let told = Says::Master {
        host: own.host.clone(),
        port: own.port,
    };
    if says != told {
        return Err(NodeError::Refused {
            node: connection.node().clone(),
            command: "SENTINEL MONITOR".to_owned(),
            text: "it names another master all the same".to_owned(),
        });
    }
    Ok(())
}
