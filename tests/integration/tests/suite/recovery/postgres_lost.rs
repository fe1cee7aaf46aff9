//! docs/operations/recovery-postgres-gone.md: the database server restarts empty.

use nixfleet_harness::{Nats, Postgres};
use serde_json::json;

use super::db_command_runner::verify_whole;
use crate::suite::e2e::testbed::Testbed;

#[tokio::test(flavor = "multi_thread")]
async fn running_services_rebuild_the_tables_from_the_logs() {
    let nats = Nats::start("pggone").unwrap();
    let mut postgres = Postgres::start("pggone").unwrap();
    let mut testbed = Testbed::pushed("pggone", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;

    postgres.kill().unwrap();
    postgres.erase().unwrap();
    postgres.restart().unwrap();
    postgres.create_again(&testbed.database).await.unwrap();

    // Without restart or command.
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    verify_whole(&testbed).await;
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    verify_whole(&testbed).await;
    testbed.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn stopped_services_rebuild_the_tables_when_they_start() {
    let nats = Nats::start("pggonedown").unwrap();
    let mut postgres = Postgres::start("pggonedown").unwrap();
    let mut testbed = Testbed::pushed("pggonedown", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;

    testbed.stack.kill_all().unwrap();
    postgres.kill().unwrap();
    postgres.erase().unwrap();
    postgres.restart().unwrap();
    postgres.create_again(&testbed.database).await.unwrap();
    testbed.stack.start_all().unwrap();

    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    verify_whole(&testbed).await;
    testbed.stop();
}
