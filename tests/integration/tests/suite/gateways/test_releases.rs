//! Releases, rollouts and lies for a gateway under test.

use std::time::Duration;

use chrono::Utc;
use nixfleet_harness::{shared_nats, wait_for};
use nixfleet_proto::outcome::{Accepted, OutcomeSubject};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{
    Decision, Effect, Outcome, OutputFrame, Position, RolloutId, RolloutState, Timestamp,
};
use nixfleet_trust::sign::SigningKey;
use nixfleet_trust::{Algorithm, BuiltRelease, ReleaseStamp, TrustFile, verify_release};

use super::gateway_process::{Gateway, PARTITIONS, SOON, fleet};

impl Gateway {
    /// Signs a release of [`fleet`] at `signed_at`.
    pub fn release(&self, commit: &str, signed_at: Timestamp) -> BuiltRelease {
        let stamp = ReleaseStamp {
            signed_at,
            commit: Some(commit.to_owned()),
        };
        let source = fleet().to_string();
        nixfleet_trust::build_release(source.as_bytes(), &stamp, &self.key).unwrap()
    }

    /// Announces a fresh release as the planner does and waits until the gateway knows it.
    pub async fn publish(&self, commit: &str) -> BuiltRelease {
        let built = self.release(commit, Utc::now());
        let seq = self.announce(&built).await;
        self.wait_for_release(seq, &built).await;
        built
    }

    /// Announces a release, whatever its age; gives the sequence of the announcement.
    pub async fn announce(&self, built: &BuiltRelease) -> u64 {
        let trust = std::fs::read(self.dir.join("trust.json")).unwrap();
        self.announce_to(built, &TrustFile::parse(&trust).unwrap())
            .await
    }

    /// Announces a release that is signed with a key that the gateway does not trust.
    pub async fn announce_unverifiable(&self, commit: &str) {
        let key = SigningKey::from_secret(Algorithm::Ed25519, &[8; 32]).unwrap();
        let stamp = ReleaseStamp {
            signed_at: Utc::now(),
            commit: Some(commit.to_owned()),
        };
        let source = fleet().to_string();
        let built = nixfleet_trust::build_release(source.as_bytes(), &stamp, &key).unwrap();
        self.announce_to(&built, &TrustFile::of(key.public())).await;
    }

    /// Announces a release without storing its artifacts.
    pub async fn announce_without_objects(&self, built: &BuiltRelease) {
        let trust = std::fs::read(self.dir.join("trust.json")).unwrap();
        let trust = TrustFile::parse(&trust).unwrap();
        let verified = verify_release(&built.bundle, &trust, Utc::now(), Duration::MAX).unwrap();
        let manifests = self.bus.manifests();
        let expected = manifests.newest().await.unwrap().last_seq;
        let announced = manifests.announce(&verified.announcement(), expected).await;
        announced.unwrap();
    }

    /// Deletes the content of the stored fleet of a release; its record stays.
    pub async fn damage_fleet(&self, built: &BuiltRelease) {
        let hash = nixfleet_trust::canonical_hash(&built.bundle.fleet.bytes).unwrap();
        let nats = async_nats::connect(shared_nats().unwrap().url()).await;
        let context = async_nats::jetstream::new(nats.unwrap());
        let bucket = self.bus.names().manifest_bucket();
        let objects = context.get_object_store(&bucket).await.unwrap();
        let info = objects.info(hash.as_str()).await.unwrap();
        let stream = context.get_stream(format!("OBJ_{bucket}")).await.unwrap();
        let parts = format!("$O.{bucket}.C.{}", info.nuid);
        let purged = stream.purge().filter(parts).await.unwrap();
        assert!(purged.purged > 0);
    }

    async fn announce_to(&self, built: &BuiltRelease, trust: &TrustFile) -> u64 {
        let verified = verify_release(&built.bundle, trust, Utc::now(), Duration::MAX).unwrap();
        let manifests = self.bus.manifests();
        let fleet = built.bundle.fleet.bytes.clone();
        manifests
            .put(verified.fleet().hash(), fleet.into())
            .await
            .unwrap();
        for (channel, manifest) in verified.rollouts() {
            let bytes = built.bundle.rollouts[channel].bytes.clone();
            manifests.put(manifest.hash(), bytes.into()).await.unwrap();
        }
        let expected = manifests.newest().await.unwrap().last_seq;
        let announcement = verified.announcement();
        manifests.announce(&announcement, expected).await.unwrap()
    }

    /// Announces something that is no announcement.
    pub async fn announce_garbage(&self) {
        let nats = async_nats::connect(shared_nats().unwrap().url())
            .await
            .unwrap();
        let subject = self.bus.names().manifest_fleet();
        let context = async_nats::jetstream::new(nats);
        let published = context.publish(subject, "{\"v\":1,".into());
        published.await.unwrap().await.unwrap();
    }

    /// Changes the tables as their owner.
    pub async fn execute(&self, sql: &str) {
        let connected = tokio_postgres::connect(&self.database.url, tokio_postgres::NoTls);
        let (client, connection) = connected.await.unwrap();
        tokio::spawn(connection);
        client.batch_execute(sql).await.unwrap();
    }

    /// Appends an output frame that moves a rollout to a state, as its owner does. Its sequence is the next.
    pub async fn move_rollout(&self, rollout: &str, to: RolloutState) {
        let rollout_id: RolloutId = rollout.parse().unwrap();
        let partition = Partition::of(&rollout_id.channel(), PARTITIONS);
        let log = self.bus.output(partition);
        let last = log.last().await.unwrap().map_or(0, |last| last.seq);
        let effect = Effect::RecordRolloutTransition {
            rollout_id,
            from: RolloutState::Opening,
            to,
            at: Utc::now(),
        };
        log.publish(&queued(last + 1, vec![effect]), last)
            .await
            .unwrap();
    }

    /// Whether agents read this release here. Only one host asks: the rate of the other is for the tests.
    pub async fn serves(&self, built: &BuiltRelease) -> bool {
        let served = self.agent("lab-1").get("/v1/fleet.resolved").await;
        served.status == 200 && served.bytes == built.bundle.fleet.bytes
    }

    /// Waits until the gateway knows a release.
    pub async fn wait_for_release(&self, seq: u64, built: &BuiltRelease) {
        wait_for("the release is known", SOON, async || {
            let is_known = if self.is_console() {
                let status = self.operator().get("/v1/status").await.json();
                status["release"]["seq"] == seq
            } else {
                self.serves(built).await
            };
            Ok(is_known.then_some(()))
        })
        .await
        .unwrap();
    }
}

/// An output frame with these effects.
pub fn queued(gateway_seq: u64, effects: Vec<Effect>) -> OutputFrame {
    let accepted = Accepted {
        effects,
        ..Accepted::default()
    };
    OutputFrame {
        outcomes: vec![Outcome {
            position: Position {
                seq: gateway_seq,
                index: 0,
            },
            at: Utc::now(),
            subject: OutcomeSubject {
                entry: "QueueDispatch".into(),
                event: None,
                producer: None,
                rollout_id: None,
                hostname: None,
                actor: None,
            },
            traceparent: None,
            decision: Decision::Accepted(Box::new(accepted)),
        }],
        ..OutputFrame::new(1)
    }
}
