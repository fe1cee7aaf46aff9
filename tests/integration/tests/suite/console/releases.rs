//! Pushed releases: accepted, renewed and refused ones, and that agents get the bytes that were pushed.

use chrono::{TimeDelta, Utc};
use nixfleet_trust::{BuiltRelease, ReleaseUpload};
use serde_json::{Value, json};

use super::super::gateways::gateway_process::Gateway;

fn upload(release: &BuiltRelease) -> Value {
    json!(ReleaseUpload::from(&release.bundle))
}

#[tokio::test]
async fn pushing_again_changes_nothing_and_renewing_is_told() {
    let gateway = Gateway::start_console("again", &[]).await;
    let release = gateway.publish("4f1c").await;
    let before = gateway.bus.manifests().current().await.unwrap().unwrap().0;
    let pipeline = gateway.person("pipeline", "ci");
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
    let gateway = Gateway::start_console("unbelievable", &["releases.freshness_minutes=60"]).await;
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
    let gateway = Gateway::start_console("back", &[]).await;
    let operator = gateway.operator();
    gateway.publish("4f1c").await;
    let older = gateway.release("5e2d", Utc::now() - TimeDelta::minutes(5));
    let answer = operator.put("/v1/manifests", &upload(&older)).await;
    assert_eq!(answer.refusal(), (422, "release-refused".to_owned()));
    assert_eq!(answer.json()["faults"][0]["code"], "older");
}

#[tokio::test]
async fn a_pushed_release_reaches_agents_byte_for_byte() {
    let console = Gateway::start_console("pushed", &[]).await;
    let ingest = console.other(&[]).await;
    let release = console.release("4f1c", Utc::now());
    let pipeline = console.person("pipeline", "ci");
    let answer = pipeline.put("/v1/manifests", &upload(&release)).await;
    assert_eq!(answer.status, 200);
    ingest.wait_for_release(1, &release).await;
    let path = format!("/v1/rollouts/{}", release.rollouts["stable"]);
    let served = ingest.agent("web-1").get(&path).await;
    assert_eq!(served.bytes, release.bundle.rollouts["stable"].bytes);
}

#[tokio::test]
async fn a_certificate_with_a_channel_limit_moves_no_other_channel() {
    let gateway = Gateway::start_console("limitedpush", &[]).await;
    gateway.publish("4f1c").await;
    let pipeline = gateway.person_of("ci", &["stable"]);
    let next = gateway.release("5e2d", Utc::now() + TimeDelta::seconds(2));
    let answer = pipeline.put("/v1/manifests", &upload(&next)).await;
    assert_eq!(answer.refusal(), (403, "channel-not-allowed".to_owned()));
    let renewed = gateway.release("4f1c", Utc::now() + TimeDelta::seconds(2));
    let answer = pipeline.put("/v1/manifests", &upload(&renewed)).await;
    assert_eq!(answer.status, 200, "no rollout is opened or ended");
}
