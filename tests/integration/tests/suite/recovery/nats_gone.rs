//! docs/operations/recovery-nats-gone.md: the log is lost, the tables and the archive are kept.

use nixfleet_harness::{Nats, Postgres};
use serde_json::json;

use super::db::verify;
use crate::suite::e2e::world::World;

fn lose(nats: &mut Nats) {
    nats.kill().unwrap();
    nats.erase().unwrap();
    nats.restart().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_under_way_is_finished_and_services_may_have_been_down() {
    let mut nats = Nats::start("natsgonedown").unwrap();
    let postgres = Postgres::start("natsgonedown").unwrap();
    let mut world = World::pushed("natsgonedown", &nats, &postgres).await;
    world.publish("aa01").await;
    world.start_swarm(&json!({}));
    world.wait_until_terminal("aa01").await;
    world.publish("aa02").await;
    world.wait_for_dispatch("aa02").await;

    world.stack.kill_all().unwrap();
    lose(&mut nats);
    world.stack.start_all().unwrap();

    // Nobody pushes the release again: the archive has it.
    world.wait_until_terminal("aa02").await;
    verify(&world).await;
    world.publish("aa03").await;
    world.wait_until_terminal("aa03").await;
    verify(&world).await;
    world.stop();
}
