//! The servers under the tests.

use nixfleet_harness::{Nats, Postgres, monitor, scope, shared_nats};

#[tokio::test]
async fn a_scope_has_its_own_prefix_and_database() {
    let one = scope("own").await.unwrap();
    let two = scope("own").await.unwrap();
    assert_ne!(one.prefix, two.prefix);
    assert_ne!(one.database, two.database);
    nixfleet_harness::postgres::execute(&one.database.url, "CREATE TABLE t (a int)")
        .await
        .unwrap();
}

#[test]
fn the_shared_nats_syncs_every_append() {
    let port = shared_nats().unwrap().monitor_port();
    let varz = monitor::get(port, "/varz").unwrap().body;
    let varz: serde_json::Value = serde_json::from_str(&varz).unwrap();
    assert_eq!(varz["jetstream"]["config"]["sync_always"], true, "{varz}");
}

#[tokio::test]
async fn private_servers_come_back_on_the_same_port_with_their_data() {
    let mut nats = Nats::start("own").unwrap();
    let url = nats.url();
    nats.kill().unwrap();
    nats.restart().unwrap();
    assert_eq!(nats.url(), url);

    let mut postgres = Postgres::start("own").unwrap();
    let database = postgres.create_database("kept").await.unwrap();
    let statement = "CREATE TABLE kept (a int)";
    nixfleet_harness::postgres::execute(&database.url, statement)
        .await
        .unwrap();
    postgres.kill().unwrap();
    postgres.restart().unwrap();
    nixfleet_harness::postgres::execute(&database.url, "INSERT INTO kept VALUES (1)")
        .await
        .unwrap();
}
