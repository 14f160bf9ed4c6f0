//! Snapshots for the tests of judgements.

use tokio::time::Instant;

use crate::topology::facts::{Link, NodeFacts, Role};
use crate::topology::identity::Identity;
use crate::topology::node::NodeName;
use crate::topology::watch::{Observed, Snapshot};

/// What a node says: role, offset, history and the history before.
pub type Says<'a> = (Option<Role>, u64, &'a str, &'a str);

pub fn snapshot(nodes: &[(&str, Says<'_>)], now: Instant) -> Snapshot {
    let observed = |(name, (role, offset, history, before)): &(&str, Says<'_>)| {
        let name: NodeName = (*name).into();
        let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let facts = role.clone().map(|role| NodeFacts {
            offset: Some(*offset),
            history: text(history),
            history_before: text(before),
            ..NodeFacts::example(name.clone(), role)
        });
        Observed {
            identity: Identity::unresolved(name),
            seen_at: facts.is_some().then_some(now),
            facts,
            error: None,
        }
    };
    Snapshot {
        nodes: nodes.iter().map(observed).collect(),
    }
}

pub fn follows(host: &str, link: Link) -> Option<Role> {
    Some(Role::Replica {
        host: host.to_owned(),
        port: 1,
        link,
    })
}

pub const MASTER: Option<Role> = Some(Role::Master);
pub const SILENT: Says<'static> = (None, 0, "", "");
