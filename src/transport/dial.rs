//! Connections to the nodes of one shard.
//!
//! **Invariant:** a connection made after [`Dialer::set`] is made as that says; one made before
//! stays as it is.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::pki_types::ServerName;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, TlsStream};

use super::Stream;
use crate::config::UpstreamTls;

/// A machine that has vanished closes nothing. After so long without a byte the kernel asks whether
/// it is still there, four times: a connection to nowhere on which nothing has been sent ends after
/// two minutes. Where something has, the kernel sends it again for about a quarter of an hour; if
/// another node is the master by then, nobody waits for that.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(60))
    .with_interval(Duration::from_secs(15))
    .with_retries(4);

/// How the nodes of a shard are reached: plain, or in TLS. Clones share what is set.
#[derive(Clone, Debug, Default)]
pub struct Dialer {
    tls: Arc<ArcSwapOption<UpstreamTls>>,
}

impl Dialer {
    pub fn new(tls: Option<UpstreamTls>) -> Self {
        let dialer = Self::default();
        dialer.set(tls);
        dialer
    }

    pub fn set(&self, tls: Option<UpstreamTls>) {
        self.tls.store(tls.map(Arc::new));
    }

    pub fn is_tls(&self) -> bool {
        self.tls.load().is_some()
    }

    /// Connects to `node` (`host:port`). The caller sets the deadline.
    pub async fn connect(&self, node: &str) -> io::Result<Stream> {
        let socket = TcpStream::connect(node).await?;
        socket.set_nodelay(true)?;
        SockRef::from(&socket).set_tcp_keepalive(&KEEPALIVE)?;
        let Some(tls) = self.tls.load_full() else {
            return Ok(Stream::Plain(socket));
        };
        let name = match &tls.server_name {
            Some(name) => name.clone(),
            None => name_of(node)?,
        };
        let shaken = TlsConnector::from(Arc::clone(&tls.config))
            .connect(name, socket)
            .await;
        let stream = shaken.map_err(|error| {
            io::Error::new(error.kind(), format!("no TLS with it: {}", told(&error)))
        })?;
        Ok(Stream::Tls(Box::new(TlsStream::Client(stream))))
    }
}

fn name_of(node: &str) -> io::Result<ServerName<'static>> {
    let host = node.rsplit_once(':').map_or(node, |(host, _)| host);
    let host = host.trim_start_matches('[').trim_end_matches(']');
    ServerName::try_from(host.to_owned()).map_err(|_| {
        io::Error::other(format!(
            "no certificate can be for the name {host}: set upstream_tls_server_name"
        ))
    })
}

/// What went wrong, and for what can be set right in the config also how.
fn told(error: &io::Error) -> String {
    use rustls::CertificateError as Certificate;
    use rustls::Error;
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    let advice = match cause {
        Some(Error::InvalidCertificate(Certificate::UnknownIssuer)) => {
            "; name the authority that signed its certificate in upstream_tls_ca_file"
        }
        Some(Error::InvalidCertificate(
            Certificate::NotValidForName | Certificate::NotValidForNameContext { .. },
        )) => "; name it as its certificate does, or set upstream_tls_server_name",
        Some(Error::InvalidCertificate(
            Certificate::Expired | Certificate::ExpiredContext { .. },
        )) => "; give the node a new one",
        Some(Error::InvalidMessage(_)) => "; is that its TLS port?",
        Some(Error::AlertReceived(_)) => {
            "; it may want a certificate: set upstream_tls_cert_file and upstream_tls_key_file"
        }
        _ if error.kind() == io::ErrorKind::UnexpectedEof => "; is that its TLS port?",
        _ => "",
    };
    format!("{error}{advice}")
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[tokio::test]
    async fn a_node_that_vanishes_is_found_out() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let node = listener.local_addr().unwrap().to_string();
        let stream = Dialer::default().connect(&node).await.unwrap();
        let Stream::Plain(socket) = stream else {
            panic!("no TLS was asked for");
        };
        let socket = SockRef::from(&socket);
        assert!(socket.keepalive().unwrap());
        assert_eq!(
            socket.tcp_keepalive_time().unwrap(),
            Duration::from_secs(60)
        );
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 4);
    }
}
