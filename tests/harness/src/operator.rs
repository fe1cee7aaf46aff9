//! An operator's HTTPS client.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nixfleet_trust::{BuiltRelease, ReleaseUpload};
use serde_json::Value;

use crate::pki::Pair;

/// Timeout of a request.
const TIMEOUT: Duration = Duration::from_secs(20);

/// A client with an operator's certificate.
#[derive(Debug, Clone)]
pub struct Operator {
    http: reqwest::Client,
    base: String,
}

impl Operator {
    /// A client of the gateway at `base`.
    ///
    /// # Errors
    /// When the certificates cannot be used.
    pub fn new(base: &str, authority: &Pair, identity: &Pair) -> Result<Self> {
        let http = client(authority, identity)?;
        Ok(Self {
            http,
            base: base.to_owned(),
        })
    }

    /// The body of a 200.
    ///
    /// # Errors
    /// On any other response, with its body.
    pub async fn get(&self, path: &str) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self.http.get(&url).send().await;
        read(&url, answer.with_context(|| format!("GET {url}"))?).await
    }

    /// Publishes a release as CI does.
    ///
    /// # Errors
    /// When it is refused, with the faults.
    pub async fn publish(&self, release: &BuiltRelease) -> Result<Value> {
        let url = format!("{}/v1/manifests", self.base);
        let upload = ReleaseUpload::from(&release.bundle);
        let answer = self.http.put(&url).json(&upload).send().await;
        read(&url, answer.with_context(|| format!("PUT {url}"))?).await
    }

    /// Sends a command.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self.http.post(&url).json(body).send().await;
        read(&url, answer.with_context(|| format!("POST {url}"))?).await
    }
}

impl Operator {
    /// Sends a command that removes something.
    ///
    /// # Errors
    /// When it is refused.
    pub async fn delete(&self, path: &str) -> Result<Value> {
        let url = format!("{}{path}", self.base);
        let answer = self.http.delete(&url).send().await;
        read(&url, answer.with_context(|| format!("DELETE {url}"))?).await
    }
}

async fn read(url: &str, answer: reqwest::Response) -> Result<Value> {
    let status = answer.status();
    let text = answer
        .text()
        .await
        .with_context(|| format!("reading {url}"))?;
    if !status.is_success() {
        bail!("{url} answered {status}: {text}");
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(&text).with_context(|| format!("{url} answered no JSON: {text}"))
}

/// An HTTPS client that trusts one authority and presents a certificate.
///
/// # Errors
/// When the certificates cannot be used.
pub fn client(authority: &Pair, identity: &Pair) -> Result<reqwest::Client> {
    install_tls();
    let root = reqwest::Certificate::from_pem(&std::fs::read(&authority.cert)?)?;
    let mut pem = std::fs::read(&identity.cert)?;
    pem.extend(std::fs::read(&identity.key)?);
    reqwest::Client::builder()
        .tls_certs_only([root])
        .identity(reqwest::Identity::from_pem(&pem)?)
        .timeout(TIMEOUT)
        .build()
        .context("building an HTTPS client")
}

/// Installs the TLS provider of the process unless there is one.
pub fn install_tls() {
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        // An error means that another thread has installed it.
        drop(rustls::crypto::ring::default_provider().install_default());
    }
}
