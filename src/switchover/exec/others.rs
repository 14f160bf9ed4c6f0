//! The other proxies of the shard, as the driver of an operation deals with them.

use super::*;
use crate::switchover::report::Proxies;

/// Who else there was shortly before the hold.
#[derive(Debug, Default)]
pub(super) struct Bystanders {
    census: Option<Census>,
    /// Nobody is to be told.
    alone: bool,
}

/// Before the hold: who are the others, and can they be told at all? Where their silence is only
/// reported, so is this.
pub(super) async fn ready<G, R>(
    site: &Site<G, R>,
    operation: &str,
    old: &NodeName,
) -> Result<Option<Census>, String> {
    let Some(peers) = &site.peers else {
        return Ok(None);
    };
    if let Err(why) = peers.ready(old, site.connect_timeout).await {
        return match silence(&site.switchover()) {
            Silence::Abort => Err(why),
            Silence::Report => Ok(None),
        };
    }
    let (credentials, within) = (&site.credentials, site.connect_timeout);
    let census = peers.census(old, credentials, within).await;
    let strangers = census.as_ref().map_or(0, |census| census.strangers);
    if strangers > 0 {
        tracing::warn!(shard = %site.shard, operation, node = %old, strangers,
            channel = peers.channel(), "connections that are no proxies listen to the channel of the \
            proxies: keep them off it (ACL SETUSER <user> resetchannels &<what it needs>)");
    }
    Ok(census)
}

/// The last look before the hold: it needs no round trip within where there is nobody.
pub(super) async fn count<G, R>(
    site: &Site<G, R>,
    old: &NodeName,
    census: Option<Census>,
) -> Bystanders {
    let alone = match &site.peers {
        Some(peers) => peers.is_alone(old, census.as_ref()).await,
        None => true,
    };
    Bystanders { census, alone }
}

impl<G: Gates, R: Routes> Exec<G, R> {
    pub(super) fn hold_peers(&mut self) {
        let Bystanders { census, alone } = std::mem::take(&mut self.bystanders);
        if let Some(peers) = &self.site.peers {
            peers.open(&self.id, census);
        }
        let peers = self.site.peers.clone().filter(|_| !alone);
        let Some(peers) = peers else {
            self.side.spawn(async { Side::Peers(Event::NoPeers) });
            return;
        };
        let (operation, old, target) = (self.id.clone(), self.from.clone(), self.to.clone());
        let length = self.site.switchover().pause_timeout;
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
                    let within = site.switchover().follow_timeout;
                    peers.route(&operation, &old, &target, within).await;
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
    pub(super) fn proxies(&self, outcome: Outcome) -> Option<Proxies> {
        let roll = self.site.peers.as_ref()?.roll_of(&self.id)?;
        Some(roll.told(outcome))
    }
}
