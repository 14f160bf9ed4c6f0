//! One node under all the names by which the others call it.
//!
//! The config says `db-1:6379`, a replica says `10.0.0.1:6379`: both are the same node.
//! **Invariant:** two names are the same only when they are equal, or when both lead to one address
//! and port.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::time::timeout;

use crate::topology::facts::{Role, join};
use crate::topology::node::{Connection, NodeName};

/// Addresses of one node that are remembered; a name with more is cut off here.
const ADDRESSES_MAX: usize = 16;

/// A node's name in the config, and what it is also called.
#[derive(Clone, Debug)]
pub struct Identity {
    pub name: NodeName,
    addresses: Vec<SocketAddr>,
    aliases: Vec<String>,
}

impl Identity {
    /// A node that is known by its name alone, because it could not be reached.
    pub fn unresolved(name: NodeName) -> Identity {
        Identity {
            name,
            addresses: Vec::new(),
            aliases: Vec::new(),
        }
    }

    /// A node that is not connected yet, by the addresses that its name leads to.
    pub async fn look_up(name: NodeName, within: Duration) -> Identity {
        let mut identity = Identity::unresolved(name.clone());
        if let Ok(Ok(found)) = timeout(within, tokio::net::lookup_host(name.as_ref())).await {
            identity.addresses = found.take(ADDRESSES_MAX).collect();
        }
        identity
    }

    pub fn of(connection: &Connection) -> Identity {
        let addresses = vec![connection.peer_addr()];
        Identity {
            name: connection.node().clone(),
            addresses,
            aliases: Vec::new(),
        }
    }

    pub fn ip(&self) -> Option<IpAddr> {
        self.addresses.first().map(SocketAddr::ip)
    }

    /// Whether `host:port`, as another node says it, means this one.
    pub fn is_called(&self, host: &str, port: u16) -> bool {
        let called = join(host, port);
        if called == *self.name || self.aliases.contains(&called) {
            return true;
        }
        let ip = host.parse::<IpAddr>().ok();
        ip.is_some_and(|ip| self.addresses.contains(&SocketAddr::new(ip, port)))
    }

    /// Whether this is the node that a replica with `role` follows.
    pub fn is_followed_by(&self, role: &Role) -> bool {
        matches!(role, Role::Replica { host, port, .. } if self.is_called(host, *port))
    }

    /// Looks a host name up that another node uses, and remembers it when it means this node.
    pub async fn learn(&mut self, host: &str, port: u16, within: Duration) {
        if self.is_called(host, port) || host.parse::<IpAddr>().is_ok() {
            return;
        }
        if let Ok(Ok(found)) = timeout(within, tokio::net::lookup_host((host, port))).await {
            let mut found = found.take(ADDRESSES_MAX);
            if found.any(|address| self.addresses.contains(&address)) {
                self.aliases.push(join(host, port));
                self.aliases.truncate(ADDRESSES_MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn identity(name: &str, address: &str) -> Identity {
        let addresses = vec![address.parse().unwrap()];
        Identity {
            name: name.into(),
            addresses,
            aliases: Vec::new(),
        }
    }

    #[test]
    fn a_node_is_known_by_its_name_and_by_its_address() {
        let node = identity("db-1:6379", "10.0.0.1:6379");
        assert!(node.is_called("db-1", 6379));
        assert!(node.is_called("10.0.0.1", 6379));
        assert!(!node.is_called("10.0.0.1", 6380));
        assert!(!node.is_called("db-2", 6379));
    }

    #[tokio::test]
    async fn a_host_name_that_leads_to_the_node_is_learned() {
        let mut node = identity("127.0.0.1:6379", "127.0.0.1:6379");
        node.learn("localhost", 6380, Duration::from_secs(5)).await;
        assert!(
            !node.is_called("localhost", 6380),
            "another port is another node"
        );
        node.learn("localhost", 6379, Duration::from_secs(5)).await;
        assert!(node.is_called("localhost", 6379));
    }
}
