//! Certificates, keys and authorities: the keys of the file that name them, and what is in them.
//!
//! **Invariant:** the files are read, and fit each other, before there is a config. A certificate
//! that is replaced on disk counts from the next time that the config is read.

use std::fmt;
use std::fs::File;
use std::io::Read;
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{ClientConfig, RootCertStore, ServerConfig};

use super::read::{Found, Outside, Section};

/// The longest list of authorities that systems ship has a quarter of this.
const PEM_BYTES_MAX: u64 = 4 * 1024 * 1024;

/// How those who connect are answered in TLS.
#[derive(Clone)]
pub struct ServerTls {
    pub config: Arc<ServerConfig>,
}

/// How nodes are reached in TLS.
#[derive(Clone)]
pub struct UpstreamTls {
    pub config: Arc<ClientConfig>,
    /// The name that their certificates must have; `None`: each one's own host.
    pub server_name: Option<ServerName<'static>>,
}

/// Keys are in it.
impl fmt::Debug for ServerTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("ServerTls")
    }
}

/// Keys are in it.
impl fmt::Debug for UpstreamTls {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("UpstreamTls")
            .field("server_name", &self.server_name)
            .finish_non_exhaustive()
    }
}

/// Equal when they come from the same reading of the files.
impl PartialEq for ServerTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

/// Equal when they come from the same reading of the files.
impl PartialEq for UpstreamTls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config)
    }
}

/// Whether clients must show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClientCertificates {
    Required,
    Optional,
}

/// Reads `tls_cert_file` and what belongs to it in a shard.
pub fn read_server(section: &mut Section<'_, '_>, outside: Outside) -> Option<ServerTls> {
    let s = section;
    let identity = read_identity(s, "tls_cert_file", "tls_key_file", outside);
    let authorities = s.text("tls_client_ca_file", None);
    let wanted = s.choice(
        "tls_client_certificates",
        ("required", ClientCertificates::Required),
        &[("optional", ClientCertificates::Optional)],
    );
    if let (Some(found), false) = (&authorities, s.is_written("tls_cert_file")) {
        let message = "`tls_client_ca_file` has no `tls_cert_file` beside it: clients connect in \
                       plain TCP and show no certificate; add one or remove the key";
        s.report(found.span.clone(), message.to_owned());
        return None;
    }
    let identity = identity?;
    let builder = ServerConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(found) => {
            let roots = Arc::new(read_authorities(s, "tls_client_ca_file", &found)?);
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
            let verifier = match wanted {
                ClientCertificates::Required => verifier,
                ClientCertificates::Optional => verifier.allow_unauthenticated(),
            };
            match verifier.build() {
                Ok(verifier) => builder.with_client_cert_verifier(verifier),
                Err(error) => {
                    s.report(found.span, format!("`tls_client_ca_file`: {error}"));
                    return None;
                }
            }
        }
    };
    let Identity { chain, key, place } = identity;
    match builder.with_single_cert(chain, key) {
        Ok(config) => Some(ServerTls {
            config: Arc::new(config),
        }),
        Err(error) => {
            s.report(place, misfit("tls_cert_file", "tls_key_file", &error));
            None
        }
    }
}

/// The keys that only count with `upstream_tls = true`.
const UPSTREAM_KEYS: [&str; 4] = [
    "upstream_tls_ca_file",
    "upstream_tls_cert_file",
    "upstream_tls_key_file",
    "upstream_tls_server_name",
];

/// Reads `upstream_tls` and what belongs to it in a shard.
pub fn read_upstream(section: &mut Section<'_, '_>, outside: Outside) -> Option<UpstreamTls> {
    let s = section;
    let wanted = s.flag("upstream_tls", false);
    let authorities = s.text("upstream_tls_ca_file", None);
    let server_name = s.text("upstream_tls_server_name", None);
    let (cert, key) = ("upstream_tls_cert_file", "upstream_tls_key_file");
    let identity = read_identity(s, cert, key, outside);
    if !wanted {
        let idle = UPSTREAM_KEYS.into_iter().find(|key| s.is_written(key));
        if let Some(idle) = idle {
            let message = format!("`{idle}` does nothing without upstream_tls = true: add that");
            s.report_at(idle, message);
        }
        return None;
    }
    if outside == Outside::Skip {
        return None;
    }
    let server_name = match server_name {
        None => None,
        Some(found) => match ServerName::try_from(found.value) {
            Ok(name) => Some(name),
            Err(_) => {
                let message = "`upstream_tls_server_name` is neither a host name nor an address";
                s.report(found.span, message.to_owned());
                return None;
            }
        },
    };
    let roots = match authorities {
        Some(found) => read_authorities(s, "upstream_tls_ca_file", &found)?,
        None => system_authorities(s)?,
    };
    let builder = ClientConfig::builder_with_provider(provider());
    let builder = builder.with_safe_default_protocol_versions().ok()?;
    let builder = builder.with_root_certificates(roots);
    let config = match identity {
        None => builder.with_no_client_auth(),
        Some(Identity { chain, key, place }) => match builder.with_client_auth_cert(chain, key) {
            Ok(config) => config,
            Err(error) => {
                s.report(place, misfit(cert, UPSTREAM_KEYS[2], &error));
                return None;
            }
        },
    };
    Some(UpstreamTls {
        config: Arc::new(config),
        server_name,
    })
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn misfit(cert: &str, key: &str, error: &rustls::Error) -> String {
    format!("`{cert}` and `{key}` cannot be used together: {error}")
}

/// A certificate with those that vouch for it, and its key.
struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    place: std::ops::Range<usize>,
}

fn read_identity(
    section: &mut Section<'_, '_>,
    cert_key: &'static str,
    key_key: &'static str,
    outside: Outside,
) -> Option<Identity> {
    let (cert, key) = (section.text(cert_key, None), section.text(key_key, None));
    let (cert, key) = match (cert, key) {
        (Some(cert), Some(key)) => (cert, key),
        (Some(alone), None) if !section.is_written(key_key) => {
            let message = format!("`{cert_key}` has no `{key_key}` beside it: add one");
            section.report(alone.span, message);
            return None;
        }
        (None, Some(alone)) if !section.is_written(cert_key) => {
            let message = format!("`{key_key}` has no `{cert_key}` beside it: add one");
            section.report(alone.span, message);
            return None;
        }
        _ => return None,
    };
    if outside == Outside::Skip {
        return None;
    }
    let chain = read_certificates(section, cert_key, &cert);
    let bytes = read_file(section, key_key, &key)?;
    let Ok(private) = PrivateKeyDer::from_pem_slice(&bytes) else {
        let message =
            format!("the file that `{key_key}` names has no private key in it: write it as PEM");
        section.report(key.span, message);
        return None;
    };
    Some(Identity {
        chain: chain?,
        key: private,
        place: cert.span,
    })
}

fn read_authorities(
    section: &mut Section<'_, '_>,
    key: &str,
    found: &Found<String>,
) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in read_certificates(section, key, found)? {
        if let Err(error) = roots.add(certificate) {
            let message = format!("the file that `{key}` names has an unusable one: {error}");
            section.report(found.span.clone(), message);
            return None;
        }
    }
    Some(roots)
}

fn system_authorities(section: &mut Section<'_, '_>) -> Option<RootCertStore> {
    let mut roots = RootCertStore::empty();
    // Some systems ship one or two that are unusable; the others count.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let message = "the system has no list of authorities that could vouch for the nodes: name \
                       one in upstream_tls_ca_file";
        section.report_at("upstream_tls", message.to_owned());
        return None;
    }
    Some(roots)
}

fn read_certificates(
    section: &mut Section<'_, '_>,
    key: &str,
    found: &Found<String>,
) -> Option<Vec<CertificateDer<'static>>> {
    let bytes = read_file(section, key, found)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    match read {
        Ok(certificates) if !certificates.is_empty() => Some(certificates),
        _ => {
            let message =
                format!("the file that `{key}` names has no certificate in it: write it as PEM");
            section.report(found.span.clone(), message);
            None
        }
    }
}

fn read_file(section: &mut Section<'_, '_>, key: &str, found: &Found<String>) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let read = File::open(&found.value)
        .and_then(|file| file.take(PEM_BYTES_MAX + 1).read_to_end(&mut bytes));
    let fault = match read {
        Err(error) => format!("the file that `{key}` names cannot be read: {error}"),
        Ok(count) if count as u64 > PEM_BYTES_MAX => {
            format!("the file that `{key}` names has more than {PEM_BYTES_MAX} bytes")
        }
        Ok(_) => return Some(bytes),
    };
    section.report(found.span.clone(), fault);
    None
}
