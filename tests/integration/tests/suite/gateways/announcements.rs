//! Announcements that lie: an earlier release again, one that cannot be read, and those whose objects are missing,
//! damaged or of another key.

use chrono::{TimeDelta, Utc};
use nixfleet_bus::DeadLetterRecord;
use nixfleet_harness::wait_for;
use nixfleet_trust::{BuiltRelease, ReleaseUpload};
use serde_json::json;

use super::gateway_process::{Gateway, SOON};

async fn wait_refusal(gateway: &Gateway, fault: &str) {
    wait_refusals(gateway, fault, 1.0).await;
}

async fn wait_refusals(gateway: &Gateway, fault: &str, count: f64) {
    let name = format!("nixfleet_manifest_refusals_total{{fault=\"{fault}\"}}");
    wait_for(fault, SOON, async || {
        Ok((gateway.metric(&name).await >= count).then_some(()))
    })
    .await
    .unwrap();
}

/// Warnings about refused announcements, of each start of the process.
fn logged_refusals(gateway: &Gateway) -> usize {
    let log = std::fs::read_to_string(&gateway.process.spec().log).unwrap();
    let logged = log.matches("an announced release is refused and passed over");
    logged.count()
}

async fn wait_ready(gateway: &Gateway) {
    let ready = wait_for("the gateway is ready", SOON, async || {
        let ready = gateway.ready().await?;
        Ok((ready["ready"] == true).then_some(()))
    });
    if let Err(error) = ready.await {
        panic!("{error:#}\n{}", gateway.process.tail());
    }
}

async fn wait_serves(gateway: &Gateway, release: &BuiltRelease) {
    let served = wait_for("the release is served", SOON, async || {
        Ok(gateway.serves(release).await.then_some(()))
    });
    if let Err(error) = served.await {
        panic!("{error:#}\n{}", gateway.process.tail());
    }
}

async fn push(console: &Gateway, release: &BuiltRelease) {
    let upload = json!(ReleaseUpload::from(&release.bundle));
    let pipeline = console.person("pipeline", "ci");
    let answer = pipeline.put("/v1/manifests", &upload).await;
    let tail = console.process.tail();
    assert_eq!(answer.status, 200, "{}\n{tail}", answer.json());
}

#[tokio::test]
async fn an_earlier_release_that_is_announced_again_replaces_nothing() {
    let gateway = Gateway::start_without_release("replayed", &[]).await;
    let console = gateway.other(&[]).await;
    let earlier = gateway.release("aa01", Utc::now() - TimeDelta::minutes(10));
    let seq = gateway.announce(&earlier).await;
    gateway.wait_for_release(seq, &earlier).await;
    let later = gateway.publish("bb02").await;

    gateway.announce(&earlier).await;
    for gateway in [&gateway, &console] {
        wait_refusal(gateway, "older").await;
    }
    assert!(gateway.serves(&later).await);
    let cluster = console.operator().get("/v1/cluster").await.json();
    let problems = cluster["problems"].to_string();
    assert!(problems.contains("announcement-refused"), "{problems}");
    // The next release is not held up by it.
    let pushed = gateway.release("cc03", Utc::now());
    push(&console, &pushed).await;
    wait_serves(&gateway, &pushed).await;
}

/// What was superseded is in the rows: a gateway without a memory refuses it, too.
#[tokio::test]
async fn a_restarted_gateway_takes_no_release_whose_rollouts_were_superseded() {
    let mut gateway = Gateway::start("restarted", &[]).await;
    let record = json!({ "channel": "stable", "targetRef": "aa01", "state": "Superseded", "currentWave": 0,
                         "openedAt": Utc::now(), "supersededAt": Utc::now() });
    let sql = format!(
        "INSERT INTO nixfleet.rollouts (rollout_id, partition, record, manifest_hash, host_count, wave_count,
                                        on_health_failure, input_seq, input_index)
         VALUES ('stable@aa01', 0, '{record}', 'aa', 1, 1, 'halt', 1, 0)"
    );
    gateway.execute(&sql).await;
    gateway.restart().await;
    let again = gateway.release("aa01", Utc::now());
    gateway.announce(&again).await;
    wait_refusal(&gateway, "superseded").await;
    assert!(!gateway.serves(&again).await);
}

#[tokio::test]
async fn an_unreadable_announcement_is_a_dead_letter_and_holds_nobody_up() {
    let mut gateway = Gateway::start_without_release("unreadable", &[]).await;
    let console = gateway.other(&[]).await;
    let release = gateway.publish("aa01").await;
    gateway.announce_garbage().await;
    wait_refusal(&gateway, "unreadable").await;
    let dead = gateway.bus.names().dead_stream();
    let letter = gateway.bus.message_at(&dead, 1).await.unwrap().unwrap();
    let record: DeadLetterRecord = serde_json::from_slice(&letter.payload).unwrap();
    assert_eq!(record.subject, gateway.bus.names().manifest_fleet());
    let cluster = console.operator().get("/v1/cluster").await.json();
    let problems = cluster["problems"].to_string();
    assert!(problems.contains("announcement-unreadable"), "{problems}");

    // A gateway that starts now has the release before it.
    gateway.restart().await;
    wait_ready(&gateway).await;
    assert!(gateway.serves(&release).await);
    let next = gateway.release("bb02", Utc::now());
    push(&console, &next).await;
    wait_serves(&gateway, &next).await;
}

#[tokio::test]
async fn an_announcement_without_its_objects_keeps_no_gateway_and_no_push_back() {
    let mut gateway = Gateway::start_without_release("objectless", &[]).await;
    let mut console = gateway.other(&[]).await;
    let release = gateway.publish("aa01").await;
    let lost = gateway.release("bb02", Utc::now());
    gateway.announce_without_objects(&lost).await;
    wait_refusal(&gateway, "ObjectUnusable").await;
    for gateway in [&mut gateway, &mut console] {
        gateway.restart().await;
        wait_ready(gateway).await;
        wait_refusal(gateway, "ObjectUnusable").await;
    }
    wait_serves(&gateway, &release).await;
    let cluster = console.operator().get("/v1/cluster").await.json();
    let problems = cluster["problems"].to_string();
    assert!(problems.contains("announcement-refused"), "{problems}");
    assert!(
        problems.contains("is not in the object store"),
        "{problems}"
    );
    // Compared with the release before, also the lost one itself, whose objects come with it.
    push(&console, &lost).await;
    wait_serves(&gateway, &lost).await;
    let next = gateway.release("cc03", Utc::now());
    push(&console, &next).await;
    wait_serves(&gateway, &next).await;
}

#[tokio::test]
async fn a_gateway_falls_back_over_every_announcement_that_does_not_verify() {
    let mut gateway = Gateway::start_without_release("fallback", &[]).await;
    let mut console = gateway.other(&[]).await;
    let release = gateway.publish("aa01").await;
    let damaged = gateway.publish("bb02").await;
    gateway.damage_fleet(&damaged).await;
    gateway.announce_unverifiable("cc03").await;
    gateway.announce_garbage().await;
    gateway
        .announce_without_objects(&gateway.release("dd04", Utc::now()))
        .await;
    for gateway in [&mut gateway, &mut console] {
        gateway.restart().await;
        wait_ready(gateway).await;
        wait_refusal(gateway, "BadSignature").await;
    }
    wait_serves(&gateway, &release).await;
    let logged = logged_refusals(&gateway);
    wait_refusals(&gateway, "BadSignature", 2.0).await;
    assert_eq!(logged_refusals(&gateway), logged, "once in a process");
    // A release that was accepted before and whose objects are gone comes back with its next push.
    push(&console, &damaged).await;
    wait_serves(&gateway, &damaged).await;
}
