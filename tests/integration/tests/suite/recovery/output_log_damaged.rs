//! docs/operations/recovery-output-log-damaged.md: an output log holds a message that is no frame.

use std::time::Duration;

use async_nats::jetstream;
use nixfleet_harness::{Nats, Postgres, Service, monitoring, wait_for};
use nixfleet_proto::subject::Partition;
use serde_json::json;

use crate::suite::e2e::testbed::Testbed;

const TIMEOUT: Duration = Duration::from_secs(90);

#[tokio::test(flavor = "multi_thread")]
async fn the_owner_names_the_message_and_both_logs_are_replaced() {
    let nats = Nats::start("outdamaged").unwrap();
    let postgres = Postgres::start("outdamaged").unwrap();
    let mut testbed = Testbed::pushed("outdamaged", &nats, &postgres).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;

    let context = jetstream::new(async_nats::connect(nats.url()).await.unwrap());
    let partition = Partition::of(&"edge".into(), 2);
    let subject = format!("fleet.out.{partition}.nobody");
    let stored = context.publish(subject, "no frame".into()).await.unwrap();
    let seq = stored.await.unwrap().sequence;
    // The planner reads it at once and holds the partition; the owner sees it when it publishes next.
    testbed.publish("aa02").await;
    let path = "/v1/quarantines/edge/nothing?reason=the+owner+publishes+an+outcome";
    testbed.operator.delete(path).await.unwrap();
    let reducer = testbed.stack.instance(Service::Reducer, 0).unwrap();
    let port = reducer.admin_port();
    let named = wait_for("the owner names the message", TIMEOUT, async || {
        let answer = monitoring::get(port, "/readyz")?;
        let remedy = "recovery-output-log-damaged";
        let named = answer.body.contains(&seq.to_string()) && answer.body.contains(remedy);
        anyhow::ensure!(named, "{}", answer.body);
        Ok(Some(()))
    });
    named.await.unwrap();

    testbed.stack.kill_all().unwrap();
    for log in ["IN", "OUT"] {
        let stream = format!("FLEET_{log}_{partition}");
        context.delete_stream(stream).await.unwrap();
    }
    testbed.stack.start_all().unwrap();
    testbed.wait_until_terminal("aa02").await;
    testbed.publish_when_possible("aa03").await;
    testbed.wait_until_terminal("aa03").await;
    testbed.stop();
}
