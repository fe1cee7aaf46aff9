//! A certificate authority for a test, and a listener that reads client names.

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use axum::Extension;
use axum_server::accept::Accept;
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use futures::future::BoxFuture;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::net::TcpStream;
use tower::Layer;

/// Signs the server and the agents of a test.
pub struct Authority {
    pub certificate_pem: String,
    key_pem: String,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "test");
        Self {
            certificate_pem: params.self_signed(&key).unwrap().pem(),
            key_pem: key.serialize_pem(),
        }
    }

    /// Writes certificate and key and returns their paths.
    pub fn write(&self, directory: &Path) -> (PathBuf, PathBuf) {
        let paths = (directory.join("ca.crt"), directory.join("ca.key"));
        std::fs::write(&paths.0, &self.certificate_pem).unwrap();
        std::fs::write(&paths.1, &self.key_pem).unwrap();
        paths
    }

    pub fn server_config(&self) -> RustlsConfig {
        let key = KeyPair::from_pem(&self.key_pem).unwrap();
        let issuer = Issuer::from_ca_cert_pem(&self.certificate_pem, key).unwrap();
        let server_key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        let certificate = params.signed_by(&server_key, &issuer).unwrap();
        let mut roots = RootCertStore::empty();
        let ca = CertificateDer::from_pem_slice(self.certificate_pem.as_bytes()).unwrap();
        roots.add(ca).unwrap();
        let clients = WebPkiClientVerifier::builder(Arc::new(roots))
            .build()
            .unwrap();
        let key = PrivateKeyDer::from_pem_slice(server_key.serialize_pem().as_bytes()).unwrap();
        let mut config = ServerConfig::builder()
            .with_client_cert_verifier(clients)
            .with_single_cert(vec![certificate.der().clone()], key)
            .unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        RustlsConfig::from_config(Arc::new(config))
    }
}

/// Common name of the client's certificate.
#[derive(Clone)]
pub struct PeerName(pub String);

/// Puts the client's name into each request.
#[derive(Clone)]
pub struct WithPeerName(RustlsAcceptor);

impl WithPeerName {
    pub fn new(config: RustlsConfig) -> Self {
        Self(RustlsAcceptor::new(config))
    }
}

impl<S: Send + 'static> Accept<TcpStream, S> for WithPeerName {
    type Stream = <RustlsAcceptor as Accept<TcpStream, S>>::Stream;
    type Service = <Extension<PeerName> as Layer<S>>::Service;
    type Future = BoxFuture<'static, io::Result<(Self::Stream, Self::Service)>>;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let acceptor = self.0.clone();
        Box::pin(async move {
            let _: SocketAddr = stream.peer_addr()?;
            let (stream, service) = acceptor.accept(stream, service).await?;
            let leaf = stream.get_ref().1.peer_certificates().unwrap()[0].clone();
            let (_, leaf) = x509_parser::parse_x509_certificate(&leaf).unwrap();
            let name = leaf.subject().iter_common_name().next().unwrap();
            let name = name.as_str().unwrap().to_owned();
            Ok((stream, Extension(PeerName(name)).layer(service)))
        })
    }
}
