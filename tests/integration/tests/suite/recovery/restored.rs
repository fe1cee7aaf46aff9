//! docs/operations/recovery-restored-backup.md: one side comes back older than the other.

use nixfleet_harness::{Nats, Postgres};
use serde_json::json;

use super::db::verify_whole;
use crate::suite::e2e::world::World;

#[tokio::test(flavor = "multi_thread")]
async fn an_older_postgres_is_brought_up_to_date_from_the_log() {
    let nats = Nats::start("pgold").unwrap();
    let mut postgres = Postgres::start("pgold").unwrap();
    let mut world = World::pushed("pgold", &nats, &postgres).await;
    world.publish("aa01").await;
    world.start_swarm(&json!({}));
    world.wait_for_progress().await;
    postgres.stop().unwrap();
    postgres.back_up().unwrap();
    postgres.restart().unwrap();
    world.wait_until_terminal("aa01").await;
    world.publish("aa02").await;
    world.wait_until_terminal("aa02").await;

    postgres.stop().unwrap();
    postgres.restore().unwrap();
    postgres.restart().unwrap();

    world.wait_until_terminal("aa02").await;
    world.check_agreement("aa02").await;
    verify_whole(&world).await;
    world.stop();
}
