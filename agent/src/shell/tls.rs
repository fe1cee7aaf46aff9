//! TLS configuration of an agent: its own certificate, a shared certificate authority.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

/// A certificate chain with its private key, both PEM.
#[derive(Clone)]
pub struct Identity {
    /// The chain, leaf first.
    pub certificate_pem: Vec<u8>,
    /// The key of the leaf.
    pub key_pem: Vec<u8>,
}

/// Error of a TLS configuration.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The text is not PEM, or holds something else.
    #[error("the {what} is not valid PEM")]
    Pem {
        /// Name of the text.
        what: &'static str,
        /// The cause.
        #[source]
        source: rustls::pki_types::pem::Error,
    },
    /// rustls refuses the material.
    #[error("the {what} cannot be used")]
    Unusable {
        /// Name of the material.
        what: &'static str,
        /// The cause.
        #[source]
        source: rustls::Error,
    },
}

/// Reads the certificate authorities that sign server certificates.
///
/// # Errors
/// No PEM, or no certificate of an authority.
pub fn roots(ca_pem: &[u8]) -> Result<Arc<RootCertStore>, TlsError> {
    let mut store = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(ca_pem) {
        let certificate = certificate.map_err(|source| TlsError::Pem {
            what: "CA certificate",
            source,
        })?;
        store
            .add(certificate)
            .map_err(|source| TlsError::Unusable {
                what: "CA certificate",
                source,
            })?;
    }
    Ok(Arc::new(store))
}

/// A client configuration with HTTP/2 only, so that all requests of an agent share one connection.
///
/// # Errors
/// The identity is no PEM, or key and certificate do not belong together.
pub fn client_config(
    roots: Arc<RootCertStore>,
    identity: &Identity,
) -> Result<ClientConfig, TlsError> {
    let chain = CertificateDer::pem_slice_iter(&identity.certificate_pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|source| TlsError::Pem {
            what: "client certificate",
            source,
        })?;
    let key = PrivateKeyDer::from_pem_slice(&identity.key_pem).map_err(|source| TlsError::Pem {
        what: "client key",
        source,
    })?;
    let mut config = ClientConfig::builder()
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .map_err(|source| TlsError::Unusable {
            what: "client certificate",
            source,
        })?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(config)
}
