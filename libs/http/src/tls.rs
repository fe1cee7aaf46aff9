//! TLS with client certificates: the files of the listener.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use axum_server::tls_rustls::RustlsConfig;
use nixfleet_service::Faults;
use rustls::ServerConfig;
use rustls::server::{ServerSessionMemoryCache, WebPkiClientVerifier};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::{Deserialize, Serialize};

/// Sessions kept for resumption: a fleet that reconnects after a restart of the network need not
/// repeat full handshakes. About 1 KiB each.
const RESUMABLE_SESSIONS: usize = 32 * 1024;

/// Certificate files of the listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct TlsConfig {
    /// Certificate chain of the server, PEM, leaf first.
    pub cert_file: PathBuf,
    /// Private key of the server, PEM; readable by its owner only.
    pub key_file: PathBuf,
    /// Authorities whose client certificates are accepted, PEM.
    pub client_ca_file: PathBuf,
    /// Longest handshake: a peer that does not finish one holds a connection of the bound.
    pub handshake_timeout_seconds: u64,
    /// How often the files are looked at for a renewed certificate.
    pub reload_seconds: u64,
}

impl TlsConfig {
    /// The defaults of the gateway whose clients the authority of this name signs: `hosts` or `people`.
    pub fn for_clients(authority: &str) -> Self {
        let file = |name: &str| format!("/etc/nixfleet/tls/{authority}/{name}").into();
        Self {
            cert_file: file("server.crt"),
            key_file: file("server.key"),
            client_ca_file: file("ca.crt"),
            handshake_timeout_seconds: 10,
            reload_seconds: 60,
        }
    }

    /// Adds everything that is wrong with the values.
    pub fn validate(&self, faults: &mut Faults) {
        for (seconds, key) in [
            (
                self.handshake_timeout_seconds,
                "tls.handshake_timeout_seconds",
            ),
            (self.reload_seconds, "tls.reload_seconds"),
        ] {
            faults.require_positive(key, seconds);
        }
    }
}

/// Reads the files and builds what the listener needs.
///
/// A missing client certificate is let through to be answered with a 401 that says so; a certificate
/// that does not verify ends the handshake.
///
/// # Errors
/// Names the file that is missing, unreadable, open to others, or does not hold what it should.
pub fn load(config: &TlsConfig) -> anyhow::Result<Arc<ServerConfig>> {
    check_private(&config.key_file)?;
    let chain = read_certificates(&config.cert_file)?;
    let key = PrivateKeyDer::from_pem_file(&config.key_file)
        .with_context(|| format!("reading the key {}", config.key_file.display()))?;
    let mut roots = rustls::RootCertStore::empty();
    for authority in read_certificates(&config.client_ca_file)? {
        roots
            .add(authority)
            .with_context(|| format!("using {}", config.client_ca_file.display()))?;
    }
    let verifier = WebPkiClientVerifier::builder(Arc::new(roots))
        .allow_unauthenticated()
        .build()
        .context("building the client certificate check")?;
    let mut server = ServerConfig::builder()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .with_context(|| format!("using {}", config.cert_file.display()))?;
    server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    server.session_storage = ServerSessionMemoryCache::new(RESUMABLE_SESSIONS);
    Ok(Arc::new(server))
}

fn read_certificates(path: &Path) -> anyhow::Result<Vec<CertificateDer<'static>>> {
    let reading = || format!("reading certificates from {}", path.display());
    let certificates = CertificateDer::pem_file_iter(path)
        .with_context(reading)?
        .collect::<Result<Vec<_>, _>>()
        .with_context(reading)?;
    anyhow::ensure!(
        !certificates.is_empty(),
        "{} holds no certificate",
        path.display()
    );
    Ok(certificates)
}

/// A private key that others may read is no secret any more.
///
/// # Errors
/// When group may do more than read the file, others have any permission on it, or it cannot be read.
pub fn check_private(path: &Path) -> anyhow::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata =
        std::fs::metadata(path).with_context(|| format!("reading the key {}", path.display()))?;
    let mode = metadata.permissions().mode() & 0o777;
    // Group read is how key files are handed to service accounts; nothing beyond it is needed.
    anyhow::ensure!(
        mode & 0o037 == 0,
        "the key {} has mode {mode:03o}; group may read it at most, others nothing",
        path.display()
    );
    Ok(())
}

/// Swaps a renewed certificate in, until cancelled; open connections keep the old one.
pub async fn reload(
    config: TlsConfig,
    current: RustlsConfig,
    stop: nixfleet_service::CancellationToken,
) {
    let mut tick = tokio::time::interval(Duration::from_secs(config.reload_seconds));
    let mut loaded = modified(&config);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let found = modified(&config);
        if found == loaded {
            continue;
        }
        match load(&config) {
            Ok(server) => {
                current.reload_from_config(server);
                loaded = found;
                tracing::info!("TLS files reloaded");
            }
            // Files may be half written; the next look decides.
            Err(error) => tracing::warn!(error = format!("{error:#}"), "TLS files not reloaded"),
        }
    }
}

fn modified(config: &TlsConfig) -> [Option<std::time::SystemTime>; 3] {
    [&config.cert_file, &config.key_file, &config.client_ca_file].map(|path| {
        std::fs::metadata(path)
            .and_then(|file| file.modified())
            .ok()
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_key_that_others_may_read_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("key.pem");
        std::fs::write(&path, "key").unwrap();
        let check = |mode: u32| {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
            check_private(&path).is_ok()
        };
        assert!(check(0o600));
        assert!(check(0o400));
        assert!(check(0o640));
        for mode in [0o644, 0o660, 0o604, 0o601, 0o777] {
            assert!(!check(mode), "{mode:o}");
        }
        assert!(check_private(&dir.path().join("absent")).is_err());
    }
}
