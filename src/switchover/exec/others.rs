//! The other proxies of the shard, as the driver of an operation deals with them.

use super::*;
use crate::switchover::report::Proxies;

/// Before the hold: can the others be told at all? Where their silence is only reported, so is this.
pub(super) async fn ready<G, R>(site: &Site<G, R>, old: &str) -> Result<(), String> {
    let Some(peers) = &site.peers else {
        return Ok(());
    };
    let ready = peers.ready(old, site.connect_timeout).await;
    match silence(&site.switchover()) {
        Silence::Abort => ready,
        Silence::Report => Ok(()),
    }
}

impl<G: Gates, R: Routes> Exec<G, R> {
    pub(super) fn hold_peers(&mut self) {
        let Some(peers) = self.site.peers.clone() else {
            self.side.spawn(async { Side::Peers(Event::NoPeers) });
            return;
        };
        let (operation, old, target) = (self.id.clone(), self.from.clone(), self.to.clone());
        let length = self.site.switchover().pause_timeout;
        peers.open(&operation);
        let asking = self.side.spawn(async move {
            let held = peers.hold(&operation, &old, &target, length).await;
            Side::Peers(match held {
                Ok(0) => Event::NoPeers,
                Ok(_) => Event::PeersHold,
                Err(_) => Event::PeersSilent,
            })
        });
        self.asking = Some(asking);
    }

    pub(super) fn route_peers(&mut self) {
        let (site, operation) = (self.site.clone(), self.id.clone());
        let (old, target) = (self.from.clone(), self.to.clone());
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
        self.side.spawn(async move {
            let told = async {
                if let Some(peers) = &site.peers {
                    peers.route(&operation, &old, &target).await;
                }
            };
            tokio::join!(told, site.gates.move_receivers());
            Side::Peers(Event::PeersRouted)
        });
    }

    pub(super) fn release_peers(&mut self) {
        if let Some(asking) = self.asking.take() {
            asking.abort();
        }
        if let Some(peers) = &self.site.peers {
            peers.release(&self.id, &self.from, &self.to);
        }
    }

    /// Who there was, and who did what was asked.
    pub(super) fn proxies(&self) -> Option<Proxies> {
        let roll = self.site.peers.as_ref()?.roll_of(&self.id)?;
        Some(Proxies {
            others: roll.others,
            held: roll.held.into_iter().collect(),
            routed: roll.routed.into_iter().collect(),
            fault: roll.fault,
        })
    }
}
