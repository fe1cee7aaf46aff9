//! Each turn is written once, across kills and dropped schemas.

use nixfleet_harness::postgres::execute;
use nixfleet_harness::wait_for;

use super::published_fold::PublishedFold;
use crate::suite::service_testbed::service_process::TIMEOUT;

#[tokio::test]
async fn tables_follow_the_fold_across_kills() {
    let mut fold = PublishedFold::new("applier_kill").await;
    let mut applier = fold.applier(0);
    fold.open().await;
    for _ in 0..3 {
        fold.report().await;
        applier.kill();
        applier = fold.applier(0);
        fold.report().await;
    }
    fold.wait_applied(&applier).await;
    applier.stop();
}

#[tokio::test]
async fn a_second_applier_stands_by_and_takes_over() {
    let mut fold = PublishedFold::new("applier_two").await;
    let mut first = fold.applier(0);
    let second = fold.applier(1);
    fold.open().await;
    for _ in 0..4 {
        fold.report().await;
    }
    fold.wait_applied(&second).await;
    first.kill();
    fold.report().await;
    fold.wait_applied(&second).await;
}

#[tokio::test]
async fn a_dropped_schema_is_rebuilt_from_the_log() {
    let mut fold = PublishedFold::new("applier_wipe").await;
    let applier = fold.applier(0);
    fold.open().await;
    for _ in 0..4 {
        fold.report().await;
    }
    fold.wait_applied(&applier).await;
    let drop = "DROP SCHEMA nixfleet CASCADE";
    execute(&fold.database().url, drop).await.unwrap();
    fold.wait_applied(&applier).await;
    execute(&fold.database().url, drop).await.unwrap();
    fold.report().await;
    fold.wait_applied(&applier).await;
}

#[tokio::test]
async fn last_seen_times_reach_the_hosts() {
    let fold = PublishedFold::new("applier_liveness").await;
    let applier = fold.applier(0);
    let report = nixfleet_proto::wire::LivenessReport {
        hostname: "web-0".into(),
        channel: "stable".into(),
        last_seen_at: chrono::Utc::now(),
        current_closure: None,
    };
    let seen = wait_for("the host was seen", TIMEOUT, async || {
        // Reports without a subscriber are lost.
        fold.servers
            .bus
            .publish_liveness(std::slice::from_ref(&report))
            .await?;
        Ok(fold.servers.store.host_detail(&"web-0".into()).await?.seen)
    });
    let seen = seen
        .await
        .unwrap_or_else(|error| panic!("{error:#}\n{}", applier.tail()));
    assert_eq!(
        seen.last_seen_at.timestamp_micros(),
        report.last_seen_at.timestamp_micros()
    );
}
