//! A gateway that starts on quiet logs: rows tell which entries are folded, also without new
//! frames.

use std::time::{Duration, Instant};

use chrono::Utc;
use nixfleet_harness::{Service, wait_for};

use super::testbed::{Limits, Testbed};
use super::three_wave_fleet::Channels;

const CHANNELS: Channels = &[("edge", 8)];
const LIMIT: u64 = 2 << 20;
/// A log with this fill has no capacity for the outcomes of its whole input again.
const FILLED: u64 = LIMIT / 100 * 45;
const TIMEOUT: Duration = Duration::from_secs(60);
/// The gateway observes the logs twice a second; its first observation may precede the rows.
const OBSERVATION_TIMEOUT: Duration = Duration::from_secs(10);

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_starts_on_quiet_logs_accepts_events() {
    let limits = Limits {
        input: LIMIT,
        output: LIMIT,
    };
    let mut testbed = Testbed::start("gwrestart", CHANNELS, limits).await;
    let running = testbed.start_agents(|_| false);
    testbed.publish("a001").await;
    testbed.wait_until_state("edge@a001", "Terminal").await;
    testbed.wait_until_ready().await;
    let mut agents = running.stop().await;
    // Stops trimming.
    let archive = testbed.stack.instance(Service::Eventlog, 0).unwrap();
    archive.stop().unwrap();
    let logs = [testbed.input_stream(), testbed.output_stream()];
    let targets = testbed.targets();
    let start = Instant::now();
    while logs.iter().all(|log| targets.logs()[log].bytes < FILLED) {
        for agent in &mut agents {
            let refusal = agent.probe_once(Utc::now()).await.unwrap();
            assert_eq!(refusal, None, "{:?}", targets.logs());
        }
        assert!(start.elapsed() < TIMEOUT, "{:?}", targets.logs());
    }
    testbed
        .wait_until_applied(super::running_agents::stored(&agents))
        .await;

    let gateway = testbed.stack.instance(Service::Ingest, 0).unwrap();
    gateway.stop().unwrap();
    gateway.restart().unwrap();
    let ready = wait_for("the gateway is ready", TIMEOUT, async || {
        Ok(gateway.is_ready().then_some(()))
    });
    ready.await.unwrap();
    for agent in &mut agents {
        let taken = wait_for(
            "the gateway accepts events",
            OBSERVATION_TIMEOUT,
            async || {
                let refusal = agent.probe_once(Utc::now()).await?;
                Ok(refusal.is_none().then_some(()))
            },
        );
        taken.await.unwrap();
    }
    testbed.stop();
}
