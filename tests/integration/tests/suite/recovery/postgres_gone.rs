//! docs/operations/recovery-postgres-gone.md: the database server comes back empty.

use nixfleet_harness::{Nats, Postgres};
use serde_json::json;

use super::db::verify_whole;
use crate::suite::e2e::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn running_services_build_the_tables_again_from_the_logs() {
    let nats = Nats::start("pggone").unwrap();
    let mut postgres = Postgres::start("pggone").unwrap();
    let mut world = World::pushed("pggone", &nats, &postgres).await;
    world.publish("aa01").await;
    world.start_swarm(&json!({}));
    world.wait_for_progress().await;

    postgres.kill().unwrap();
    postgres.erase().unwrap();
    postgres.restart().unwrap();
    postgres.create_again(&world.database).await.unwrap();

    // Nobody restarts or commands anything.
    world.wait_until_terminal("aa01").await;
    world.check_agreement("aa01").await;
    verify_whole(&world).await;
    world.publish("aa02").await;
    world.wait_until_terminal("aa02").await;
    world.check_agreement("aa02").await;
    verify_whole(&world).await;
    world.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn services_that_were_down_meanwhile_do_the_same() {
    let nats = Nats::start("pggonedown").unwrap();
    let mut postgres = Postgres::start("pggonedown").unwrap();
    let mut world = World::pushed("pggonedown", &nats, &postgres).await;
    world.publish("aa01").await;
    world.start_swarm(&json!({}));
    world.wait_for_progress().await;

    world.stack.kill_all().unwrap();
    postgres.kill().unwrap();
    postgres.erase().unwrap();
    postgres.restart().unwrap();
    postgres.create_again(&world.database).await.unwrap();
    world.stack.start_all().unwrap();

    world.wait_until_terminal("aa01").await;
    world.check_agreement("aa01").await;
    verify_whole(&world).await;
    world.stop();
}
