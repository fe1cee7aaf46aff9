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
        let agent = gateway.agent(match channel.as_str() {
            "stable" => "web-1",
            _ => "lab-1",
        });
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
    // Those of others, of hosts that it does not list, are unknown to it.
    let other = gateway.agent("lab-1").get("/v1/rollouts/stable@4f1c").await;
    assert_eq!(other.refusal(), unknown);
    let other = gateway
        .agent("lab-1")
        .get("/v1/rollouts/stable@4f1c/sig")
        .await;
    assert_eq!(other.refusal(), unknown);
    // A host that the release does not name has no part in it.
    let stranger = gateway.agent("web-9");
    for path in ["/v1/fleet.resolved", "/v1/fleet.resolved/sig"] {
        let refusal = stranger.get(path).await.refusal();
        assert_eq!(refusal, (404, "unknown-host".to_owned()), "{path}");
    }
    assert_eq!(
        stranger.get("/v1/rollouts/stable@4f1c").await.refusal(),
        unknown
    );
    // The manifest of the release before stays available.
    gateway.publish("5e2d").await;
    let older = agent.get("/v1/rollouts/stable@4f1c").await;
    assert_eq!(older.bytes, release.bundle.rollouts["stable"].bytes);
    let other = gateway.agent("lab-1").get("/v1/rollouts/stable@4f1c").await;
    assert_eq!(other.refusal(), unknown);
    assert_eq!(gateway.ready().await.unwrap()["ready"], true);
}

/// Starts `ingest` with a list of revocations to come, before which it serves nobody.
async fn start_with_list(name: &str, set: &[&str]) -> Gateway {
    let gateway = Gateway::start_without_release(name, set).await;
    gateway.announce(&gateway.release("4f1c", Utc::now())).await;
    gateway
}

#[tokio::test]
async fn revoked_certificates_are_refused_by_their_date() {
    let list = "trust.revocations_file={dir}/revocations.json";
    let every = "trust.revocations_seconds=1";
    let gateway = start_with_list("revoked", &[list, every]).await;
    let agent = gateway.agent("web-1");
    // Whoever is on a list that nobody has read may be anyone.
    let unread = (503, "not-ready".to_owned());
    assert_eq!(agent.get(UNKNOWN_ROLLOUT).await.refusal(), unread);
    gateway.revoke(
        json!([{ "hostname": "web-1", "notBefore": Utc::now() }]),
        Utc::now(),
    );
    let revoked = wait_for("the list is in force", SOON, async || {
        let answer = agent.get(UNKNOWN_ROLLOUT).await;
        Ok((answer.status == 401).then_some(answer))
    });
    let refusal = revoked.await.unwrap().refusal();
    assert_eq!(refusal, (401, "client-certificate-revoked".to_owned()));
    let other = gateway.agent("lab-1");
    wait_for("the other host is served", SOON, async || {
        let answer = other.get(UNKNOWN_ROLLOUT).await;
        Ok((answer.status == 404).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_restart_does_not_go_back_to_an_older_list() {
    let list = "trust.revocations_file={dir}/revocations.json";
    let every = "trust.revocations_seconds=1";
    for console in [false, true] {
        let mut gateway = match console {
            false => start_with_list("rollback", &[list, every]).await,
            true => Gateway::start_console("rollbackc", &[list, every]).await,
        };
        let (client, path, entry) = match console {
            false => (gateway.agent("web-1"), UNKNOWN_ROLLOUT, "hostname"),
            true => (gateway.operator(), "/v1/whoami", "person"),
        };
        let name = if console { "ada" } else { "web-1" };
        let (earlier, now) = (Utc::now() - chrono::TimeDelta::hours(1), Utc::now());
        gateway.revoke(json!([{ entry: name, "notBefore": now }]), now);
        let is_refused = async |status: u16| {
            let answer = client.get(path).await;
            Ok((answer.status == status).then_some(answer))
        };
        wait_for("the list is in force", SOON, async || is_refused(401).await)
            .await
            .unwrap();
        // The list of before, genuine, in which nobody is refused.
        gateway.revoke(json!([]), earlier);
        gateway.restart().await;
        let refusal = wait_for("the gateway answers", SOON, async || is_refused(503).await);
        let refusal = refusal.await.unwrap().refusal();
        assert_eq!(refusal, (503, "not-ready".to_owned()));
        let why = wait_for("the readiness says why", SOON, async || {
            let ready = gateway.ready().await?;
            let reason = ready["components"]["revocations"].to_string();
            Ok(reason.contains("put the newer one back").then_some(()))
        });
        why.await.unwrap();
        // A newer one is taken.
        gateway.revoke(json!([]), Utc::now());
        let open = if console { 200 } else { 404 };
        wait_for("the newer list is in force", SOON, async || {
            is_refused(open).await
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_revoked_person_is_no_revoked_host_of_the_same_name() {
    let list = "trust.revocations_file={dir}/revocations.json";
    let every = "trust.revocations_seconds=1";
    let gateway = start_with_list("samename", &[list, every]).await;
    let agent = gateway.agent("web-1");
    let entries = json!([
        { "person": "web-1", "notBefore": Utc::now() },
        { "pipeline": "web-1", "notBefore": Utc::now() },
    ]);
    gateway.revoke(entries, Utc::now());
    let let_in = wait_for("the list is in force", SOON, async || {
        let answer = agent.get(UNKNOWN_ROLLOUT).await;
        Ok((answer.status != 503).then_some(answer))
    });
    assert_eq!(let_in.await.unwrap().status, 404);
}
