//! Pushed releases: what is believed, what is refused, and that the bytes come out as they went in.

use chrono::{TimeDelta, Utc};
use nixfleet_trust::{BuiltRelease, ReleaseUpload};
use serde_json::{Value, json};

use super::gateway::Gateway;

fn upload(release: &BuiltRelease) -> Value {
    json!(ReleaseUpload::from(&release.bundle))
}

#[tokio::test]
async fn artifacts_are_served_as_they_were_pushed() {
    let gateway = Gateway::start("artifacts", &[]).await;
    let agent = gateway.agent("web-1");
    let not_ready = (503, "not-ready".to_owned());
    assert_eq!(agent.get("/v1/fleet.resolved").await.refusal(), not_ready);
    let release = gateway.publish("4f1c").await;
    let fleet = &release.bundle.fleet;
    assert_eq!(agent.get("/v1/fleet.resolved").await.bytes, fleet.bytes);
    assert_eq!(
        agent.get("/v1/fleet.resolved/sig").await.bytes,
        fleet.signature
    );
    for (channel, rollout_id) in &release.rollouts {
        let manifest = &release.bundle.rollouts[channel];
        let path = format!("/v1/rollouts/{rollout_id}");
        let answer = agent.get(&path).await;
        assert_eq!(answer.headers["content-type"], "application/json");
        assert_eq!(answer.bytes, manifest.bytes);
        assert_eq!(
            agent.get(&format!("{path}/sig")).await.bytes,
            manifest.signature
        );
    }
    let unknown = (404, "unknown-rollout".to_owned());
    assert_eq!(
        agent.get("/v1/rollouts/stable@0000").await.refusal(),
        unknown
    );
    assert_eq!(agent.get("/v1/rollouts/nonsense").await.refusal(), unknown);
    // The manifest of the release before stays available.
    gateway.publish("5e2d").await;
    let older = agent.get("/v1/rollouts/stable@4f1c").await;
    assert_eq!(older.bytes, release.bundle.rollouts["stable"].bytes);
    assert_eq!(gateway.ready().await.unwrap()["ready"], true);
}

#[tokio::test]
async fn pushing_again_changes_nothing_and_renewing_is_told() {
    let gateway = Gateway::start("again", &[]).await;
    let release = gateway.publish("4f1c").await;
    let before = gateway.bus.manifests().current().await.unwrap().unwrap().0;
    let pipeline = gateway.client("pipeline", Some("nixfleet-ci"));
    let again = pipeline.put("/v1/manifests", &upload(&release)).await;
    assert_eq!(again.status, 200);
    let unchanged = gateway.bus.manifests().current().await.unwrap().unwrap().0;
    assert_eq!(before, unchanged);
    let renewed = gateway.release("4f1c", Utc::now() + TimeDelta::seconds(2));
    let answer = pipeline.put("/v1/manifests", &upload(&renewed)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.json()["renewed"], true);
}

#[tokio::test]
async fn releases_that_are_not_to_be_believed_are_refused_with_their_fault() {
    let gateway = Gateway::start("unbelievable", &["trust.freshness_minutes=60"]).await;
    let operator = gateway.operator();
    let now = Utc::now();
    let good = gateway.release("4f1c", now);
    let with = |change: &dyn Fn(&mut BuiltRelease)| {
        let mut release = good.clone();
        change(&mut release);
        upload(&release)
    };
    let cases = [
        ("BadSignature", with(&|r| r.bundle.fleet.signature.clear())),
        (
            "BadSignature",
            with(&|r| r.bundle.fleet.signature = vec![1; 64]),
        ),
        (
            "BadSignature",
            with(&|r| {
                let stable = r.bundle.rollouts.get_mut("stable").unwrap();
                stable.signature = vec![1; 64];
            }),
        ),
        ("Parse", with(&|r| r.bundle.fleet.bytes.truncate(100))),
        (
            "ManifestMissing",
            with(&|r| {
                r.bundle.rollouts.remove("stable");
            }),
        ),
        (
            "Stale",
            upload(&gateway.release("4f1c", now - TimeDelta::hours(2))),
        ),
        (
            "FutureDated",
            upload(&gateway.release("4f1c", now + TimeDelta::hours(2))),
        ),
    ];
    for (fault, body) in cases {
        let answer = operator.put("/v1/manifests", &body).await;
        assert_eq!(
            answer.refusal(),
            (422, "release-refused".to_owned()),
            "{fault}"
        );
        assert_eq!(answer.json()["faults"][0]["code"], fault);
        let name = format!("nixfleet_manifest_refusals_total{{fault=\"{fault}\"}}");
        assert!(gateway.metric(&name).await >= 1.0, "{fault}");
    }
    assert_eq!(gateway.hostile("release-refused").await, 7.0);
    assert!(
        gateway.bus.manifests().current().await.unwrap().is_none(),
        "nothing was announced"
    );
    let broken = operator.put("/v1/manifests", &json!({ "fleet": 7 })).await;
    assert_eq!(broken.refusal(), (400, "invalid-field".to_owned()));
}

#[tokio::test]
async fn a_release_does_not_go_back_in_time_nor_give_a_commit_another_meaning() {
    let gateway = Gateway::start("back", &[]).await;
    let operator = gateway.operator();
    gateway.publish("4f1c").await;
    let older = gateway.release("5e2d", Utc::now() - TimeDelta::minutes(5));
    let answer = operator.put("/v1/manifests", &upload(&older)).await;
    assert_eq!(answer.refusal(), (422, "release-refused".to_owned()));
    assert_eq!(answer.json()["faults"][0]["code"], "older");
}

#[tokio::test]
async fn revoked_certificates_are_refused_by_their_date() {
    let list = "trust.revocations_file={dir}/revocations.json";
    let every = "trust.revocations_seconds=1";
    let gateway = Gateway::start("revoked", &[list, every]).await;
    let agent = gateway.agent("web-1");
    assert_eq!(agent.get("/v1/whoami").await.status, 200);
    let document = json!({
        "schemaVersion": 1,
        "revocations": [{ "hostname": "web-1", "notBefore": Utc::now() }],
        "meta": { "schemaVersion": 1, "signedAt": Utc::now(), "ciCommit": null },
    });
    let (bytes, signature) = gateway.sign(&document);
    std::fs::write(gateway.dir.join("revocations.json.sig"), signature).unwrap();
    std::fs::write(gateway.dir.join("revocations.json"), bytes).unwrap();
    let revoked =
        nixfleet_harness::wait_for("the list is in force", super::gateway::SOON, async || {
            let answer = agent.get("/v1/whoami").await;
            Ok((answer.status == 401).then_some(answer))
        });
    let refusal = revoked.await.unwrap().refusal();
    assert_eq!(refusal, (401, "client-certificate-revoked".to_owned()));
    assert_eq!(gateway.agent("lab-1").get("/v1/whoami").await.status, 200);
}
