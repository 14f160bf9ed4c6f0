//! Authorities and certificates, made while the tests run.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

/// An authority, and where its certificates are written to.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    dir: PathBuf,
    name: String,
}

/// The files of one certificate.
pub struct Issued {
    pub cert: PathBuf,
    pub key: PathBuf,
}

/// How long a certificate counts.
#[derive(Clone, Copy, PartialEq)]
pub enum Life {
    Good,
    Expired,
}

impl Authority {
    pub fn new(dir: &Path, name: &str) -> Authority {
        let mut params = CertificateParams::default();
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().expect("a key");
        let issuer = CertifiedIssuer::self_signed(params, key).expect("a certificate");
        std::fs::write(dir.join(format!("{name}.crt")), issuer.pem()).expect("it is written");
        Authority {
            issuer,
            dir: dir.to_path_buf(),
            name: name.to_owned(),
        }
    }

    /// The authority's own certificate.
    pub fn file(&self) -> PathBuf {
        self.dir.join(format!("{}.crt", self.name))
    }

    /// A certificate for this machine, by name and by address.
    pub fn issue(&self, file: &str, life: Life) -> Issued {
        self.issue_for(file, &["localhost", "127.0.0.1"], life)
    }

    pub fn issue_for(&self, file: &str, names: &[&str], life: Life) -> Issued {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("names");
        params
            .distinguished_name
            .push(rcgen::DnType::CommonName, file);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        if life == Life::Expired {
            params.not_before = date_time_ymd(2020, 1, 1);
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        let key = KeyPair::generate().expect("a key");
        let issued = params.signed_by(&key, &self.issuer).expect("a certificate");
        let files = Issued {
            cert: self.dir.join(format!("{file}.crt")),
            key: self.dir.join(format!("{file}.key")),
        };
        std::fs::write(&files.cert, issued.pem()).expect("it is written");
        std::fs::write(&files.key, key.serialize_pem()).expect("it is written");
        files
    }
}
