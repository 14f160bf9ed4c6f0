//! Real servers that speak nothing but TLS, the proxy in front of them, and clients of both.

use std::path::Path;
use std::process::Command;
use std::sync::Arc;

use pointsman::cli::demo::port::Port;
use pointsman::cli::demo::workspace::Started;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::pki::{Authority, Issued, Life};
use super::support::{Proxy, Settings, Wire, Workspace, field, patient, wait_until};

pub struct Site {
    pub nodes: Vec<String>,
    pub authority: Authority,
    pub server: Issued,
    pub client: Issued,
    servers: Vec<Started>,
    ports: Vec<Port>,
    pub workspace: Arc<Workspace>,
}

impl Site {
    /// A master and one replica that ask everybody for a certificate, themselves too.
    pub async fn start() -> Site {
        let workspace = Workspace::create("pointsman-tls").expect("a directory");
        let authority = Authority::new(workspace.dir(), "authority");
        let server = authority.issue("server", Life::Good);
        let client = authority.issue("client", Life::Good);
        let mut site = Site {
            nodes: Vec::new(),
            authority,
            server,
            client,
            servers: Vec::new(),
            ports: Vec::new(),
            workspace,
        };
        for _ in 0..2 {
            site.start_server(Port::reserve().expect("a port"));
        }
        wait_until("the replica follows in TLS", async || {
            let Ok(mut wire) = site.try_node(1).await else {
                return false;
            };
            let info = wire
                .run("INFO replication")
                .await
                .expect("an answer")
                .text();
            field(&info, "master_link_status") == Some("up")
        })
        .await;
        site
    }

    fn start_server(&mut self, port: Port) {
        let mut command = Command::new("redis-server");
        let tls_port = port.to_string();
        command.args([
            "--port",
            "0",
            "--tls-port",
            &tls_port,
            "--tls-replication",
            "yes",
        ]);
        command.args([
            "--save",
            "",
            "--appendonly",
            "no",
            "--repl-diskless-sync-delay",
            "0",
            // How much is written in 50 ms hangs on the machine; the default of 1 MB may be less.
            "--repl-backlog-size",
            "64mb",
        ]);
        command.arg("--tls-cert-file").arg(&self.server.cert);
        command.arg("--tls-key-file").arg(&self.server.key);
        command.arg("--tls-ca-cert-file").arg(self.authority.file());
        command.args(["--dbfilename", &format!("{port}.rdb")]);
        if let Some(master) = self.ports.first() {
            command.args(["--replicaof", &format!("127.0.0.1 {master}")]);
        }
        let started = self.workspace.start(&format!("redis-{port}"), &mut command);
        self.servers.push(started.expect("run `make setup` first"));
        self.nodes.push(port.addr());
        self.ports.push(port);
    }

    pub fn dir(&self) -> &Path {
        self.workspace.dir()
    }

    /// What both sides of the proxy need to speak TLS; clients show a certificate.
    pub fn shard_lines(&self) -> String {
        let Issued { cert, key } = &self.server;
        let (own, own_key, ca) = (&self.client.cert, &self.client.key, self.authority.file());
        format!(
            "tls_cert_file = {cert:?}\ntls_key_file = {key:?}\ntls_client_ca_file = {ca:?}\n\
             upstream_tls = true\nupstream_tls_ca_file = {ca:?}\n\
             upstream_tls_cert_file = {own:?}\nupstream_tls_key_file = {own_key:?}\n"
        )
    }

    pub fn settings(&self) -> Settings {
        let patient = patient();
        Settings {
            // Some values of 1 MB are on their way to the replica at any time.
            switchover: format!("{}\nmax_lag = 33554432", patient.switchover),
            shard: self.shard_lines(),
            ..patient
        }
    }

    pub async fn proxy(&self, settings: &Settings) -> Proxy {
        let binary = Path::new(env!("CARGO_BIN_EXE_pointsman"));
        let started = Proxy::start(binary, &self.workspace, &self.nodes, settings).await;
        started.unwrap_or_else(|error| panic!("{error:#}"))
    }

    /// A client, of the proxy or of a node.
    pub async fn try_connect(&self, addr: &str) -> std::io::Result<Wire> {
        connect(addr, &self.authority, Some(&self.client)).await
    }

    pub async fn connect(&self, addr: &str) -> Wire {
        self.try_connect(addr).await.expect("a connection in TLS")
    }

    pub async fn try_node(&self, node: usize) -> std::io::Result<Wire> {
        self.try_connect(&self.nodes[node]).await
    }
}

/// Connects in TLS, trusting one authority, with a certificate of its own or without.
pub async fn connect(
    addr: &str,
    trusted: &Authority,
    own: Option<&Issued>,
) -> std::io::Result<Wire> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(trusted.file()).expect("a certificate");
    roots.add(authority).expect("an authority");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider);
    let builder = builder
        .with_safe_default_protocol_versions()
        .expect("versions");
    let builder = builder.with_root_certificates(roots);
    let config = match own {
        None => builder.with_no_client_auth(),
        Some(own) => {
            let cert = CertificateDer::from_pem_file(&own.cert).expect("a certificate");
            let key = PrivateKeyDer::from_pem_file(&own.key).expect("a key");
            builder
                .with_client_auth_cert(vec![cert], key)
                .expect("they fit")
        }
    };
    let socket = TcpStream::connect(addr).await?;
    let local = socket.local_addr()?;
    let name = ServerName::try_from("localhost").expect("a name");
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, socket)
        .await?;
    Ok(Wire::over(stream, local))
}
