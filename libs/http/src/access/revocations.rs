//! Client certificates that are refused although they verify.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use anyhow::Context as _;
use http::StatusCode;
use nixfleet_bus::{Bus, SignedFloor};
use nixfleet_proto::Timestamp;
use nixfleet_proto::fleet::{Revocations, RevokedClient};
use nixfleet_service::{CancellationToken, Readiness};
use nixfleet_trust::{Freshness, TrustFile, verify};

use super::identity::{Identity, Role};
use crate::clock::now;
use crate::config::TrustConfig;
use crate::problem::ApiError;

pub const PART: &str = "revocations";

/// Pause before the first list is read again: everyone waits for it.
const RETRY: Duration = Duration::from_secs(2);

/// The certificates that a gateway refuses.
#[derive(Debug, Default)]
pub struct RevocationList(RwLock<State>);

#[derive(Debug, Default)]
enum State {
    /// No list is configured.
    #[default]
    NotConfigured,
    /// Whoever is on the list may be anyone.
    Unread,
    InForce(Revoked),
}

/// Earliest start of validity that is accepted, by the name of each kind of client.
#[derive(Debug, Default)]
struct Revoked {
    hosts: BTreeMap<String, Timestamp>,
    people: BTreeMap<String, Timestamp>,
    pipelines: BTreeMap<String, Timestamp>,
}

impl Revoked {
    /// Entries of one client add up to the latest date.
    fn new(list: &Revocations) -> Self {
        let mut revoked = Self::default();
        for entry in &list.revocations {
            let (names, name) = match &entry.client {
                RevokedClient::Host(hostname) => (&mut revoked.hosts, hostname.as_str()),
                RevokedClient::Person(name) => (&mut revoked.people, name.as_str()),
                RevokedClient::Pipeline(name) => (&mut revoked.pipelines, name.as_str()),
            };
            let not_before = names.entry(name.to_owned()).or_insert(entry.not_before);
            *not_before = entry.not_before.max(*not_before);
        }
        revoked
    }

    fn not_before(&self, identity: &Identity) -> Option<Timestamp> {
        let names = match identity.role {
            Role::Agent => &self.hosts,
            Role::Viewer | Role::Operator | Role::Approver | Role::Admin => &self.people,
            Role::Ci => &self.pipelines,
        };
        names.get(&*identity.name).copied()
    }

    fn len(&self) -> usize {
        self.hosts.len() + self.people.len() + self.pipelines.len()
    }
}

impl RevocationList {
    /// Says that a list is configured: until it is read, everyone is refused.
    pub fn expect(&self) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = State::Unread;
    }

    fn is_in_force(&self) -> bool {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        matches!(*state, State::InForce(_))
    }

    /// Refuses (401) a certificate that was issued before the entry of its client, and everyone (503) before the
    /// list is read.
    pub fn check(&self, identity: &Identity) -> Result<(), ApiError> {
        let state = self.0.read().unwrap_or_else(PoisonError::into_inner);
        let revoked = match &*state {
            State::NotConfigured => return Ok(()),
            State::Unread => {
                let message = "the list of revoked certificates is not read yet";
                return Err(ApiError::unavailable("not-ready", message, 5));
            }
            State::InForce(revoked) => revoked,
        };
        match revoked.not_before(identity) {
            Some(not_before) if identity.not_before < not_before => Err(ApiError::refused(
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

    /// Takes a new list.
    pub fn replace(&self, list: &Revocations) {
        let revoked = Revoked::new(list);
        metrics::gauge!("nixfleet_revoked_names").set(revoked.len() as f64);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = State::InForce(revoked);
    }
}

/// A verified list and where it stands among the others.
struct SignedList {
    floor: SignedFloor,
    list: Revocations,
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
    async fn load(&self) -> anyhow::Result<SignedList> {
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
        let floor = SignedFloor {
            signed_at: list.signed_at(),
            hash: list.hash().clone(),
        };
        Ok(SignedList {
            floor,
            list: list.into_payload(),
        })
    }

    /// Keeps `revoked` current until stopped. An unusable or older list changes nothing; before the
    /// first usable one the process is not ready. The bus keeps the newest list's time under `key`, so that no
    /// restart goes back to an older one.
    pub async fn follow(
        self,
        revoked: &RevocationList,
        (bus, key): (Bus, &str),
        (every, readiness): (Duration, Readiness),
        stop: CancellationToken,
    ) {
        let mut floor = Floor {
            bus,
            key: format!("{PART}.{key}"),
            newest: None,
            is_known: false,
            is_durable: false,
        };
        loop {
            match self.load_newer(&mut floor).await {
                Ok(list) => {
                    revoked.replace(&list);
                    readiness.set_ready(PART, Ok(()));
                    floor.keep().await;
                }
                Err(error) => {
                    let reason = format!("{error:#}");
                    tracing::warn!(error = reason, "revocations not loaded");
                    if !revoked.is_in_force() {
                        readiness.set_ready(PART, Err(reason));
                    }
                }
            }
            let pause = if revoked.is_in_force() {
                every
            } else {
                every.min(RETRY)
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    async fn load_newer(&self, floor: &mut Floor) -> anyhow::Result<Revocations> {
        let SignedList { floor: found, list } = self.load().await?;
        floor.take(found).await?;
        Ok(list)
    }
}

/// The newest list that this gateway obeyed, in this process or an earlier one.
struct Floor {
    bus: Bus,
    key: String,
    newest: Option<SignedFloor>,
    /// What earlier processes obeyed is known.
    is_known: bool,
    is_durable: bool,
}

impl Floor {
    /// Takes a list as the newest one.
    ///
    /// # Errors
    /// When a newer one was obeyed, or it is not known whether one was.
    async fn take(&mut self, found: SignedFloor) -> anyhow::Result<()> {
        if !self.is_known {
            self.newest = self.bus.signed_floor(&self.key).await?;
            self.is_known = true;
            self.is_durable = true;
        }
        if let Some(newest) = &self.newest {
            check_newer(newest, &found)?;
        }
        self.is_durable &= self.newest.as_ref() == Some(&found);
        self.newest = Some(found);
        Ok(())
    }

    /// Keeps the newest list's time for later processes; a failure is made up for at the next reading.
    async fn keep(&mut self) {
        let Some(newest) = self.newest.as_ref().filter(|_| !self.is_durable) else {
            return;
        };
        match self.bus.raise_signed_floor(&self.key, newest).await {
            Ok(()) => self.is_durable = true,
            Err(error) => tracing::warn!(%error, "a restart could go back to an older list"),
        }
    }
}

/// Refuses a list that is not the newest one and not newer.
fn check_newer(newest: &SignedFloor, found: &SignedFloor) -> anyhow::Result<()> {
    let (at, newest_at) = (found.signed_at, newest.signed_at);
    anyhow::ensure!(
        at >= newest_at,
        "this list was signed at {at}, and one signed at {newest_at} was in force: put the newer one back, or sign \
         this one again"
    );
    anyhow::ensure!(
        at > newest_at || found.hash == newest.hash,
        "another list that was signed at {at} too was in force: sign this one again"
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::access::identity::PEOPLE;
    use crate::access::identity_of;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_timestamp(seconds, 0).unwrap()
    }

    fn list(entries: serde_json::Value) -> Revocations {
        let list = serde_json::from_value(serde_json::json!({
            "schemaVersion": 1,
            "revocations": entries,
            "meta": { "schemaVersion": 1, "signedAt": at(0), "ciCommit": null },
        }));
        list.unwrap()
    }

    fn refusal(
        revoked: &RevocationList,
        (role, name): (Role, &str),
        not_before: i64,
    ) -> Option<&'static str> {
        let identity = Identity {
            name: name.into(),
            not_before: at(not_before),
            ..identity_of(role)
        };
        revoked.check(&identity).err().map(|error| error.code())
    }

    #[test]
    fn certificates_issued_before_the_entry_are_refused() {
        let revoked = RevocationList::default();
        revoked.replace(&list(serde_json::json!([
            { "hostname": "a", "notBefore": at(100) },
            { "hostname": "a", "notBefore": at(50) },
        ])));
        let code = Some("client-certificate-revoked");
        assert_eq!(refusal(&revoked, (Role::Agent, "a"), 99), code);
        assert_eq!(refusal(&revoked, (Role::Agent, "a"), 100), None);
        assert_eq!(refusal(&revoked, (Role::Agent, "b"), 1), None);
    }

    #[test]
    fn an_entry_hits_its_kind_of_client_alone() {
        let all = [
            ("hostname", &[Role::Agent][..]),
            (
                "person",
                &[Role::Viewer, Role::Operator, Role::Approver, Role::Admin],
            ),
            ("pipeline", &[Role::Ci]),
        ];
        for (kind, hit) in all {
            let revoked = RevocationList::default();
            revoked.replace(&list(
                serde_json::json!([{ kind: "a", "notBefore": at(100) }]),
            ));
            for role in PEOPLE.into_iter().chain([Role::Agent]) {
                let is_hit = refusal(&revoked, (role, "a"), 99).is_some();
                assert_eq!(is_hit, hit.contains(&role), "{kind} {role:?}");
            }
        }
    }

    #[test]
    fn everyone_is_refused_until_a_configured_list_is_read() {
        let revoked = RevocationList::default();
        assert_eq!(refusal(&revoked, (Role::Agent, "a"), 1), None);
        revoked.expect();
        assert_eq!(refusal(&revoked, (Role::Agent, "a"), 1), Some("not-ready"));
        revoked.replace(&list(serde_json::json!([])));
        assert_eq!(refusal(&revoked, (Role::Agent, "a"), 1), None);
    }

    #[test]
    fn only_the_newest_list_and_newer_ones_are_taken() {
        let floor = |seconds, hash: &str| SignedFloor {
            signed_at: at(seconds),
            hash: hash.into(),
        };
        let newest = floor(100, "a");
        let check = |found, taken| assert_eq!(check_newer(&newest, &found).is_ok(), taken);
        check(floor(100, "a"), true);
        check(floor(101, "b"), true);
        check(floor(100, "b"), false);
        check(floor(99, "a"), false);
    }
}
