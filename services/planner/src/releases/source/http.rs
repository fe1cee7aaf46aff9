//! A release directory on an HTTP server.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::Context as _;
use nixfleet_trust::{ReleaseBundle, Signed, release_bundle};
use reqwest::header::{ETAG, HeaderValue, IF_NONE_MATCH};
use reqwest::{Client, Response, StatusCode};

use super::error::SourceError;
use super::unverified_manifests::{bundle_of, rollouts_of};
use crate::config::SourceConfig;

/// An HTTP source with conditional requests.
pub struct Http {
    client: Client,
    base: String,
    bearer_token_file: Option<PathBuf>,
    max_bytes: usize,
    /// Entity tag of the fleet in the last complete release.
    etag: Option<HeaderValue>,
}

/// Response for a path.
enum Found {
    Artifact(Vec<u8>, Option<HeaderValue>),
    Unchanged,
    Nothing,
}

impl Http {
    /// Creates a client for a base URL.
    ///
    /// # Errors
    /// When the certificate authority cannot be read.
    pub fn new(url: &str, config: &SourceConfig) -> anyhow::Result<Self> {
        let mut builder = Client::builder()
            .timeout(config.timeout())
            .connect_timeout(config.timeout());
        if let Some(path) = &config.ca_file {
            let pem = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
            let authorities = reqwest::Certificate::from_pem_bundle(&pem)
                .with_context(|| format!("parsing {}", path.display()))?;
            for authority in authorities {
                builder = builder.add_root_certificate(authority);
            }
        }
        Ok(Self {
            client: builder.build().context("building the HTTP client")?,
            base: url.trim_end_matches('/').to_owned(),
            bearer_token_file: config.bearer_token_file.clone(),
            max_bytes: config.artifact_max_bytes,
            etag: None,
        })
    }

    /// Makes the next fetch unconditional.
    pub fn reset(&mut self) {
        self.etag = None;
    }

    /// Fetches the release, or `None` when the fleet has not changed.
    pub async fn fetch(&mut self) -> Result<Option<ReleaseBundle>, SourceError> {
        let token = self.token().await?;
        let token = token.as_deref();
        let etag = self.etag.take();
        let (bytes, next) = match self
            .get(release_bundle::FLEET_FILE, token, etag.as_ref())
            .await?
        {
            Found::Artifact(bytes, next) => (bytes, next),
            Found::Unchanged => {
                self.etag = etag;
                return Ok(None);
            }
            Found::Nothing => return Err(SourceError::Nothing),
        };
        let fleet = Signed {
            signature: self.signature(release_bundle::FLEET_FILE, token).await?,
            bytes,
        };
        let mut rollouts = BTreeMap::new();
        for (channel, rollout_id) in rollouts_of(&fleet.bytes) {
            let artifact = release_bundle::rollout_file(&rollout_id);
            if let Found::Artifact(bytes, _) = self.get(&artifact, token, None).await? {
                let signature = self.signature(&artifact, token).await?;
                rollouts.insert(channel, Signed { bytes, signature });
            }
        }
        self.etag = next;
        Ok(Some(bundle_of(fleet, rollouts)))
    }

    async fn token(&self) -> Result<Option<String>, SourceError> {
        let Some(path) = &self.bearer_token_file else {
            return Ok(None);
        };
        let text = tokio::fs::read_to_string(path).await;
        let text = text.map_err(|error| SourceError::unavailable("the bearer token", error))?;
        Ok(Some(text.trim().to_owned()))
    }

    /// Fetches a signature; a missing one is empty, which no key accepts.
    async fn signature(&self, artifact: &str, token: Option<&str>) -> Result<Vec<u8>, SourceError> {
        let path = release_bundle::signature_file(artifact);
        Ok(match self.get(&path, token, None).await? {
            Found::Artifact(bytes, _) => bytes,
            Found::Unchanged | Found::Nothing => Vec::new(),
        })
    }

    async fn get(
        &self,
        artifact: &str,
        token: Option<&str>,
        etag: Option<&HeaderValue>,
    ) -> Result<Found, SourceError> {
        let mut request = self.client.get(format!("{}/{artifact}", self.base));
        if let Some(token) = token {
            request = request.bearer_auth(token);
        }
        if let Some(etag) = etag {
            request = request.header(IF_NONE_MATCH, etag);
        }
        let fail = |error: reqwest::Error| SourceError::unavailable(artifact, error.without_url());
        let response = request.send().await.map_err(fail)?;
        match response.status() {
            StatusCode::NOT_MODIFIED => return Ok(Found::Unchanged),
            StatusCode::NOT_FOUND | StatusCode::GONE => return Ok(Found::Nothing),
            status if !status.is_success() => {
                let error = anyhow::anyhow!("the server answered {status}");
                return Err(SourceError::unavailable(artifact, error));
            }
            _ => {}
        }
        let etag = response.headers().get(ETAG).cloned();
        Ok(Found::Artifact(self.body(artifact, response).await?, etag))
    }

    async fn body(&self, artifact: &str, mut response: Response) -> Result<Vec<u8>, SourceError> {
        let fail = |error: reqwest::Error| SourceError::unavailable(artifact, error.without_url());
        let mut bytes = Vec::new();
        while let Some(chunk) = response.chunk().await.map_err(fail)? {
            if bytes.len() + chunk.len() > self.max_bytes {
                return Err(SourceError::TooLarge {
                    artifact: artifact.to_owned(),
                    max: self.max_bytes,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}
