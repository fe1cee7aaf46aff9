//! Certificates of the agents: read from files, or issued by a development CA.

use std::path::{Path, PathBuf};

use nixfleet_proto::Hostname;
use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};

use nixfleet_agent::shell::tls::Identity;

/// Source of the agents' certificates.
pub enum Certificates {
    /// `<hostname>.crt` and `<hostname>.key` in a directory.
    Directory(PathBuf),
    /// Issued by this authority, kept in memory.
    Authority(Box<Issuer<'static, KeyPair>>),
}

#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The authority cannot issue.
    #[error("cannot issue a certificate for {name}")]
    Issue {
        name: String,
        #[source]
        source: rcgen::Error,
    },
}

impl Certificates {
    /// Reads a certificate authority with its key.
    ///
    /// # Errors
    /// A file cannot be read, or is no authority.
    pub fn authority(certificate: &Path, key: &Path) -> Result<Self, CertificateError> {
        let text = |path: &Path| {
            std::fs::read_to_string(path).map_err(|source| CertificateError::Read {
                path: path.to_owned(),
                source,
            })
        };
        let unusable = |source| CertificateError::Issue {
            name: "any host".to_owned(),
            source,
        };
        let key = KeyPair::from_pem(&text(key)?).map_err(unusable)?;
        let issuer = Issuer::from_ca_cert_pem(&text(certificate)?, key).map_err(unusable)?;
        Ok(Self::Authority(Box::new(issuer)))
    }

    /// The identity of one host.
    pub fn identity(&self, hostname: &Hostname) -> Result<Identity, CertificateError> {
        match self {
            Self::Directory(directory) => {
                let read = |suffix: &str| {
                    let path = directory.join(format!("{hostname}.{suffix}"));
                    std::fs::read(&path).map_err(|source| CertificateError::Read { path, source })
                };
                Ok(Identity {
                    certificate_pem: read("crt")?,
                    key_pem: read("key")?,
                })
            }
            Self::Authority(issuer) => {
                issue(issuer, hostname).map_err(|source| CertificateError::Issue {
                    name: hostname.to_string(),
                    source,
                })
            }
        }
    }
}

fn issue(issuer: &Issuer<'static, KeyPair>, hostname: &Hostname) -> Result<Identity, rcgen::Error> {
    let key = KeyPair::generate()?;
    let mut params = CertificateParams::new(vec![hostname.to_string()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, hostname.as_str());
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let certificate = params.signed_by(&key, issuer)?;
    Ok(Identity {
        certificate_pem: certificate.pem().into_bytes(),
        key_pem: key.serialize_pem().into_bytes(),
    })
}
