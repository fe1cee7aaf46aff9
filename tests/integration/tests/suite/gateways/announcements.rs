//! Announcements that lie: an earlier release again, and one that cannot be read.

use chrono::{TimeDelta, Utc};
use nixfleet_bus::DeadLetterRecord;
use nixfleet_harness::wait_for;
use nixfleet_trust::ReleaseUpload;
use serde_json::json;

use super::gateway_process::{Gateway, SOON};

async fn wait_refusal(gateway: &Gateway, fault: &str) {
    let name = format!("nixfleet_manifest_refusals_total{{fault=\"{fault}\"}}");
    wait_for(fault, SOON, async || {
        Ok((gateway.metric(&name).await >= 1.0).then_some(()))
    })
    .await
    .unwrap();
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
    let upload = json!(ReleaseUpload::from(&pushed.bundle));
    let answer = console
        .person("pipeline", "ci")
        .put("/v1/manifests", &upload)
        .await;
    assert_eq!(answer.status, 200, "{}", console.process.tail());
    wait_for("the pushed release", SOON, async || {
        Ok(gateway.serves(&pushed).await.then_some(()))
    })
    .await
    .unwrap();
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
    wait_for("the new gateway is ready", SOON, async || {
        let ready = gateway.ready().await?;
        Ok((ready["ready"] == true).then_some(()))
    })
    .await
    .unwrap();
    assert!(gateway.serves(&release).await);
    let next = gateway.release("bb02", Utc::now());
    let upload = json!(ReleaseUpload::from(&next.bundle));
    let answer = console
        .person("pipeline", "ci")
        .put("/v1/manifests", &upload)
        .await;
    assert_eq!(answer.status, 200, "{}", console.process.tail());
    wait_for("the pushed release", SOON, async || {
        Ok(gateway.serves(&next).await.then_some(()))
    })
    .await
    .unwrap();
}
