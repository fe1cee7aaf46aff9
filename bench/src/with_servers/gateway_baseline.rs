//! The baseline of the gateway: a server with the same HTTP stack, TLS and client certificates that replies
//! without any work.

use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result};
use axum::Router;
use axum::routing::post;
use axum_server::tls_rustls::RustlsConfig;
use bytes::Bytes;
use http::StatusCode;
use nixfleet_harness::pki::Pair;
use nixfleet_harness::process::{Process, ProcessSpec};
use nixfleet_harness::{ports, wait_for};
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::load_generator::PATH;
use super::partition_logs::TIMEOUT;

/// Arguments of the server: port, certificate, key, and the authority of the clients.
pub type Arguments = [String];

/// Reads whole bodies and replies 204.
pub async fn serve(arguments: &Arguments) -> Result<()> {
    let [port, certificate, key, authority] = arguments else {
        anyhow::bail!("wanted: port, certificate, key, authority");
    };
    nixfleet_harness::operator::install_tls();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(authority)?)?;
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()?;
    let chain = vec![CertificateDer::from_pem_file(certificate)?];
    let mut tls = rustls::ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, PrivateKeyDer::from_pem_file(key)?)?;
    tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let router = Router::new().route(PATH, post(async |_body: Bytes| StatusCode::NO_CONTENT));
    let address = ports::local(port.parse().context("reading the port")?);
    axum_server::bind_rustls(address, RustlsConfig::from_config(Arc::new(tls)))
        .serve(router.into_make_service())
        .await
        .context("serving")
}

/// Starts the server as a child process with the certificates of a gateway.
pub async fn start(dir: &Path, server: &Pair, authority: &Pair) -> Result<(Process, u16)> {
    let port = ports::free()?;
    let program = std::env::current_exe().context("finding the running program")?;
    let mut spec = ProcessSpec::new("204", program, dir.join("204.log"));
    let path = |path: &Path| path.display().to_string();
    spec.args = vec![
        "--serve-empty-replies".to_owned(),
        [
            port.to_string(),
            path(&server.cert),
            path(&server.key),
            path(&authority.cert),
        ]
        .join(","),
    ];
    let mut process = Process::start(spec)?;
    wait_for("the empty-reply server", TIMEOUT, async || {
        process.check_alive()?;
        Ok(tokio::net::TcpStream::connect(ports::local(port))
            .await
            .ok()
            .map(drop))
    })
    .await?;
    Ok((process, port))
}
