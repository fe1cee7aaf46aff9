//! docs/operations/recovery-nats-gone.md: the logs are lost, tables and archive are kept.

use async_nats::jetstream;
use nixfleet_harness::{Nats, Postgres, Service};
use serde_json::json;

use super::db_command_runner::verify;
use crate::suite::e2e::test_fleet::HOSTS;
use crate::suite::e2e::testbed::Testbed;

fn lose(nats: &mut Nats) {
    nats.kill().unwrap();
    nats.erase().unwrap();
    nats.restart().unwrap();
}

/// Waits until tables and archive have reached the ends of the logs.
async fn wait_until_covered(testbed: &Testbed, nats: &Nats) {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = jetstream::new(client);
    let archived =
        "SELECT coalesce(max(sequence), 0) FROM nixfleet.archive_cursors WHERE stream = ";
    let applied =
        "SELECT coalesce(max(out_seq), 0) FROM nixfleet.partition_cursors WHERE partition = ";
    for (stream, sql) in [
        ("FLEET_MANIFEST", format!("{archived} 'FLEET_MANIFEST'")),
        ("FLEET_IN_00", format!("{archived} 'FLEET_IN_00'")),
        ("FLEET_IN_01", format!("{archived} 'FLEET_IN_01'")),
        ("FLEET_OUT_00", format!("{archived} 'FLEET_OUT_00'")),
        ("FLEET_OUT_01", format!("{archived} 'FLEET_OUT_01'")),
        ("FLEET_OUT_00", format!("{applied} 0")),
        ("FLEET_OUT_01", format!("{applied} 1")),
    ] {
        testbed
            .wait(&sql, async |testbed| {
                // Messages of killed services may be stored late.
                let stream = context.get_stream(stream).await.unwrap();
                let last = i64::try_from(stream.cached_info().state.last_sequence).unwrap();
                (testbed.count(&sql).await == last).then_some(())
            })
            .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_under_way_is_finished_and_services_may_have_been_down() {
    let mut nats = Nats::start("natsgonedown").unwrap();
    let postgres = Postgres::start("natsgonedown").unwrap();
    let mut testbed = Testbed::pushed("natsgonedown", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.publish("aa02").await;
    testbed.wait_for_dispatch("aa02").await;
    for service in [Service::Ingest, Service::Planner, Service::Reducer] {
        testbed.stack.instance(service, 0).unwrap().kill().unwrap();
    }
    // What is in the tables or in the archive alone when the log goes is a difference for ever, and
    // a release that is not archived has to be pushed again.
    wait_until_covered(&testbed, &nats).await;
    testbed.stack.kill_all().unwrap();
    lose(&mut nats);
    testbed.stack.start_all().unwrap();

    // The release comes from the archive, without another push.
    testbed.wait_until_terminal("aa02").await;
    verify(&testbed).await;
    testbed.publish("aa03").await;
    testbed.wait_until_terminal("aa03").await;
    verify(&testbed).await;
    testbed.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn running_services_continue_above_what_the_tables_cover() {
    let mut nats = Nats::start("natsgone").unwrap();
    let postgres = Postgres::start("natsgone").unwrap();
    let mut testbed = Testbed::pushed("natsgone", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    verify(&testbed).await;

    lose(&mut nats);

    // Without restart or command.
    let above = "SELECT count(*) FROM nixfleet.partition_cursors WHERE out_seq > 1000000";
    testbed
        .wait("both partitions go on above", async |testbed| {
            (testbed.count(above).await == 2).then_some(())
        })
        .await;
    assert_eq!(testbed.state_of("edge@aa01").await, "Terminal");
    // The tables are unchanged, and the next release continues from them.
    testbed.publish_when_possible("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    assert_eq!(testbed.state_of("edge@aa01").await, "Superseded");
    let converged = "SELECT count(*) FROM nixfleet.host_rollout_records
                     WHERE rollout_id LIKE '%@aa01' AND state = 'Converged'";
    assert_eq!(testbed.count(converged).await, HOSTS.len() as i64);
    testbed.check_agreement("aa02").await;
    verify(&testbed).await;
    testbed.stop();
}
