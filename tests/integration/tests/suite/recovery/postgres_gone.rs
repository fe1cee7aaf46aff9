//! docs/operations/recovery-postgres-gone.md: the database server comes back empty.

use nixfleet_harness::{Nats, Postgres};
use serde_json::json;

use super::db_command::verify_whole;
use crate::suite::e2e::testbed::Testbed;

#[tokio::test(flavor = "multi_thread")]
async fn running_services_build_the_tables_again_from_the_logs() {
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

    // Nobody restarts or commands anything.
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
async fn services_that_were_down_meanwhile_do_the_same() {
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
