//! Artifacts as agents get them, and revoked certificates of hosts.

use chrono::Utc;
use nixfleet_harness::wait_for;
use serde_json::json;

use super::super::gateways::gateway_process::{Gateway, SOON, UNKNOWN_ROLLOUT};

#[tokio::test]
async fn artifacts_are_served_as_they_were_pushed() {
    let gateway = Gateway::start_without_release("artifacts", &[]).await;
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
async fn revoked_certificates_are_refused_by_their_date() {
    let list = "trust.revocations_file={dir}/revocations.json";
    let every = "trust.revocations_seconds=1";
    let gateway = Gateway::start("revoked", &[list, every]).await;
    let agent = gateway.agent("web-1");
    assert_eq!(agent.get(UNKNOWN_ROLLOUT).await.status, 404);
    let document = json!({
        "schemaVersion": 1,
        "revocations": [{ "hostname": "web-1", "notBefore": Utc::now() }],
        "meta": { "schemaVersion": 1, "signedAt": Utc::now(), "ciCommit": null },
    });
    let (bytes, signature) = gateway.sign(&document);
    std::fs::write(gateway.dir.join("revocations.json.sig"), signature).unwrap();
    std::fs::write(gateway.dir.join("revocations.json"), bytes).unwrap();
    let revoked = wait_for("the list is in force", SOON, async || {
        let answer = agent.get(UNKNOWN_ROLLOUT).await;
        Ok((answer.status == 401).then_some(answer))
    });
    let refusal = revoked.await.unwrap().refusal();
    assert_eq!(refusal, (401, "client-certificate-revoked".to_owned()));
    assert_eq!(
        gateway.agent("lab-1").get(UNKNOWN_ROLLOUT).await.status,
        404
    );
}
