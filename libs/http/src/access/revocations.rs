//! Client certificates that are refused although they verify.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use nixfleet_proto::Timestamp;
use nixfleet_proto::fleet::Revocations;
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_trust::{Freshness, TrustFile, verify};

use super::identity::Identity;
use crate::clock::now;
use crate::config::TrustConfig;
use crate::problem::ApiError;

pub const PART: &str = "revocations";

/// Earliest start of validity that is accepted, by certificate name.
#[derive(Debug, Default)]
pub struct RevocationList {
    by_name: RwLock<BTreeMap<String, Timestamp>>,
}

impl RevocationList {
    /// Refuses (401) a certificate that was issued before the entry of its host or person.
    pub fn check(&self, identity: &Identity) -> Result<(), ApiError> {
        let by_name = self.by_name.read().unwrap_or_else(PoisonError::into_inner);
        match by_name.get(&*identity.name) {
            Some(not_before) if identity.not_before < *not_before => Err(ApiError::refused(
                StatusCode::UNAUTHORIZED,
                "client-certificate-revoked",
                format!(
                    "certificates of {} issued before {not_before} are revoked",
                    identity.name
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    /// Takes a new list. Entries of one name add up to the latest date.
    pub fn replace(&self, list: &Revocations) {
        let mut by_name = BTreeMap::<String, Timestamp>::new();
        for entry in &list.revocations {
            let not_before = by_name
                .entry(entry.hostname.as_str().to_owned())
                .or_insert(entry.not_before);
            *not_before = entry.not_before.max(*not_before);
        }
        metrics::gauge!("nixfleet_revoked_names").set(by_name.len() as f64);
        *self.by_name.write().unwrap_or_else(PoisonError::into_inner) = by_name;
    }
}

#[derive(Debug, Clone)]
pub struct Source {
    list: PathBuf,
    signature: PathBuf,
    trust_file: PathBuf,
}

impl Source {
    /// The configured source; `None` when nothing is to be revoked.
    pub fn new(config: &TrustConfig) -> Option<Self> {
        let list = config.revocations_file.clone()?;
        let signature = || {
            let mut name = list.clone().into_os_string();
            name.push(".sig");
            PathBuf::from(name)
        };
        Some(Self {
            signature: config
                .revocations_signature_file
                .clone()
                .unwrap_or_else(signature),
            trust_file: config.trust_file.clone(),
            list,
        })
    }

    /// Reads and verifies the list. It does not grow stale: an old list refuses what it refused,
    /// and taking it away would let everyone in.
    async fn load(&self) -> anyhow::Result<(Timestamp, Revocations)> {
        let read = async |path: &PathBuf| {
            let reading = || format!("reading {}", path.display());
            tokio::fs::read(path).await.with_context(reading)
        };
        let trust =
            TrustFile::parse(&read(&self.trust_file).await?).context("reading the trust file")?;
        let (bytes, signature) = (read(&self.list).await?, read(&self.signature).await?);
        let now = now();
        let freshness = Freshness {
            now,
            window: Duration::MAX,
        };
        let list = verify::<Revocations>(&bytes, &signature, &trust.release_keys(now), freshness)
            .with_context(|| format!("verifying {}", self.list.display()))?;
        Ok((list.signed_at(), list.into_payload()))
    }

    /// Keeps `revoked` current until stopped. An unusable or older list changes nothing; before the
    /// first usable one the process is not ready.
    pub async fn follow(
        self,
        revoked: &RevocationList,
        every: Duration,
        readiness: Readiness,
        stop: CancellationToken,
    ) {
        let mut newest: Option<Timestamp> = None;
        let mut tick = tokio::time::interval(every);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = tick.tick() => {}
            }
            match self.load().await {
                Ok((signed_at, _)) if newest.is_some_and(|newest| signed_at < newest) => {
                    tracing::warn!(%signed_at, "an older revocation list was ignored");
                }
                Ok((signed_at, list)) => {
                    revoked.replace(&list);
                    newest = Some(signed_at);
                    readiness.set_ready(PART, Ok(()));
                }
                Err(error) => {
                    tracing::warn!(error = format!("{error:#}"), "revocations not loaded");
                    if newest.is_none() {
                        readiness.set_ready(PART, Err(format!("{error:#}")));
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::identity::Role;
    use crate::access::identity_of;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    #[test]
    fn certificates_issued_before_the_entry_are_refused() {
        let list = serde_json::from_value(serde_json::json!({
            "schemaVersion": 1,
            "revocations": [
                { "hostname": "a", "notBefore": at(100) },
                { "hostname": "a", "notBefore": at(50) },
            ],
            "meta": { "schemaVersion": 1, "signedAt": at(0), "ciCommit": null },
        }));
        let revoked = RevocationList::default();
        revoked.replace(&list.unwrap());
        let check = |name: &str, not_before: i64| {
            let identity = Identity {
                name: name.into(),
                not_before: at(not_before),
                ..identity_of(Role::Agent)
            };
            revoked.check(&identity).is_ok()
        };
        assert!(!check("a", 99));
        assert!(check("a", 100));
        assert!(check("b", 1));
    }
}
