//! docs/operations/recovery-restored-backup.md: database or logs are restored from an older copy.

use std::time::Duration;

use nixfleet_harness::{Nats, Postgres, Service, monitoring, wait_for};
use serde_json::json;

use super::db_command_runner::{verify, verify_whole};
use crate::suite::e2e::testbed::Testbed;

#[tokio::test(flavor = "multi_thread")]
async fn an_older_postgres_is_brought_up_to_date_from_the_log() {
    let nats = Nats::start("pgold").unwrap();
    let mut postgres = Postgres::start("pgold").unwrap();
    let mut testbed = Testbed::pushed("pgold", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;
    postgres.stop().unwrap();
    postgres.back_up().unwrap();
    postgres.restart().unwrap();
    testbed.wait_until_terminal("aa01").await;
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;

    postgres.stop().unwrap();
    postgres.restore().unwrap();
    postgres.restart().unwrap();

    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    verify_whole(&testbed).await;
    testbed.stop();
}

const TIMEOUT: Duration = Duration::from_secs(60);
const REMEDY: &str = "empty the store of NATS";

#[tokio::test(flavor = "multi_thread")]
async fn an_older_nats_is_refused_until_its_store_is_emptied() {
    let mut nats = Nats::start("natsold").unwrap();
    let postgres = Postgres::start("natsold").unwrap();
    let mut testbed = Testbed::pushed("natsold", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;
    nats.stop().unwrap();
    nats.back_up().unwrap();
    nats.restart().unwrap();
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    verify(&testbed).await;

    nats.stop().unwrap();
    nats.restore().unwrap();
    nats.restart().unwrap();

    // Every service names the remedy, and no event is accepted.
    for service in Service::ALL {
        let port = testbed.stack.instance(service, 0).unwrap().admin_port();
        let refused = wait_for("the service names the remedy", TIMEOUT, async || {
            let answer = monitoring::get(port, "/readyz")?;
            anyhow::ensure!(answer.body.contains(REMEDY), "{service}: {}", answer.body);
            Ok(Some(()))
        });
        refused.await.unwrap();
    }
    let accepted = testbed.swarm_state()["totals"]["acceptedEvents"].clone();
    let published = testbed.try_publish("aa02").await.unwrap_err();
    assert!(format!("{published:#}").contains("503"), "{published:#}");
    // A service that starts now names the same remedy.
    let applier = testbed.stack.instance(Service::Applier, 0).unwrap();
    applier.kill().unwrap();
    applier.restart().unwrap();
    let port = applier.admin_port();
    let refused = wait_for("the applier names the remedy", TIMEOUT, async || {
        let answer = monitoring::get(port, "/readyz")?;
        anyhow::ensure!(answer.body.contains(REMEDY), "{}", answer.body);
        Ok(Some(()))
    });
    refused.await.unwrap();
    assert_eq!(testbed.swarm_state()["totals"]["acceptedEvents"], accepted);

    // Only the steps of docs/operations/recovery-restored-backup.md; services that exited are
    // started again.
    nats.stop().unwrap();
    nats.erase().unwrap();
    nats.restart().unwrap();
    testbed.stack.start_all().unwrap();

    testbed.publish_when_possible("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    verify(&testbed).await;
    testbed.stop();
}
