//! docs/operations/recovery-log-trimmed.md: frames were trimmed before the applier wrote them.

use std::time::Duration;

use async_nats::jetstream;
use async_nats::jetstream::stream::DiscardPolicy;
use nixfleet_harness::{Nats, Postgres, Service, monitoring, wait_for};
use nixfleet_proto::subject::Partition;
use serde_json::json;

use super::db_command_runner::{run, verify_whole};
use super::verify_and_rebuild::stop_applier;
use crate::suite::e2e::testbed::Testbed;

const TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn the_applier_halts_until_the_tables_are_rebuilt_from_the_archive() {
    let nats = Nats::start("trimmed").unwrap();
    let postgres = Postgres::start("trimmed").unwrap();
    let mut testbed = Testbed::pushed("trimmed", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_for_progress().await;
    stop_applier(&mut testbed).await;

    // Hosts and archive continue without the applier.
    let archived = "SELECT count(*) FROM nixfleet.archive_items WHERE kind = 'accepted'";
    let before = testbed.count(archived).await;
    testbed
        .wait("the archive goes on", async |testbed| {
            (testbed.count(archived).await >= before + 20).then_some(())
        })
        .await;
    let partition = Partition::of(&"edge".into(), 2);
    trim(&nats, &format!("FLEET_OUT_{partition}")).await;

    let applier = testbed.stack.instance(Service::Applier, 0).unwrap();
    applier.restart().unwrap();
    let port = applier.admin_port();
    let stopped = wait_for("the applier says what to do", TIMEOUT, async || {
        let answer = monitoring::get(port, "/readyz")?;
        let trimmed = answer.body.contains("trimmed") && answer.body.contains("db rebuild");
        anyhow::ensure!(trimmed, "{}", answer.body);
        Ok(Some(()))
    });
    stopped.await.unwrap();

    stop_applier(&mut testbed).await;
    let rebuilt = run(&testbed, &["rebuild", "--yes", "--json"]).await;
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    let applier = testbed.stack.instance(Service::Applier, 0).unwrap();
    applier.restart().unwrap();
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    verify_whole(&testbed).await;

    // A reducer that starts now accepts rows and log, too.
    let reducer = testbed.stack.instance(Service::Reducer, 0).unwrap();
    reducer.kill().unwrap();
    reducer.restart().unwrap();
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    verify_whole(&testbed).await;
    testbed.stop();
}

/// Trims a stream to its last message, as an age limit would.
async fn trim(nats: &Nats, stream: &str) {
    let client = async_nats::connect(nats.url()).await.unwrap();
    let context = jetstream::new(client);
    let stream = context.get_stream(stream).await.unwrap();
    let kept = stream.cached_info().config.clone();
    let mut short = kept.clone();
    short.max_messages = 1;
    short.discard = DiscardPolicy::Old;
    context.update_stream(&short).await.unwrap();
    context.update_stream(&kept).await.unwrap();
    let mut stream = context.get_stream(&kept.name).await.unwrap();
    let state = &stream.info().await.unwrap().state;
    assert!(state.first_sequence > 2, "{}: {state:?}", kept.name);
}
