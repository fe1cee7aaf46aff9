//! An output log that is not trimmed, as tables and archive stand still: agents are refused before
//! it is full, operators are not, and an owner that cannot append reports it.

use std::time::{Duration, Instant};

use chrono::Utc;
use nixfleet_bus::{Bus, BusConfig};
use nixfleet_harness::agent_event_sequence::probe_round;
use nixfleet_harness::scripted_agent::Refusal;
use nixfleet_harness::{ScriptedAgent, Service, monitoring, shared_nats, wait_for};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, HostEvent, Producer, RolloutId};
use serde_json::json;

use super::running_agents::{self, Running};
use super::testbed::{Limits, PARTITION, Testbed};
use super::three_wave_fleet::{Channels, closure};

const CHANNELS: Channels = &[("edge", 8)];
const LIMITS: Limits = Limits {
    input: 32 << 20,
    output: 2 << 20,
};
/// A fraction of the limit above the 80 percent at which agents are refused.
const REFUSED_BELOW: u64 = LIMITS.output / 100 * 98;
/// From this fraction on probes are paced, so that the gateway notices the fill of the log.
const PACED_FROM: u64 = LIMITS.output / 100 * 70;
const PACE: Duration = Duration::from_millis(250);
const TIMEOUT: Duration = Duration::from_secs(60);
/// Longer than a lease: the partition is acquired again meanwhile.
const STAYS: Duration = Duration::from_secs(7);
/// Rounds of probes per append.
const ROUNDS: usize = 32;

#[tokio::test(flavor = "multi_thread")]
async fn a_full_output_log_refuses_agents_first_and_is_named() {
    let mut testbed = Testbed::start("logfull", CHANNELS, LIMITS).await;
    let running = testbed.start_agents(|_| false);
    testbed.publish("a001").await;
    testbed.wait_until_state("edge@a001", "Terminal").await;
    testbed.wait_until_ready().await;
    let mut agents = running.stop().await;
    for service in [Service::Applier, Service::Eventlog] {
        let instance = testbed.stack.instance(service, 0).unwrap();
        instance.stop().unwrap();
    }

    let refusal = probe_until_refused(&mut testbed, &mut agents).await;
    let expected = Refusal {
        status: 503,
        code: "log-full".to_owned(),
    };
    assert_eq!(refusal, expected);
    check_operator(&testbed).await;

    let appended = fill(&mut testbed, &agents[0]).await;
    check_it_stays(&mut testbed).await;

    for service in [Service::Applier, Service::Eventlog] {
        let instance = testbed.stack.instance(service, 0).unwrap();
        instance.restart().unwrap();
    }
    testbed.wait_until_ready().await;
    let events = running_agents::stored(&agents) + appended;
    testbed.wait_until_applied(events).await;
    testbed.wait_until_archived(events).await;
    testbed.verify().await;
    let running = Running::start(agents, |_| false);
    testbed.publish("a002").await;
    testbed.wait_until_state("edge@a002", "Terminal").await;
    running.stop().await;
    testbed.stop();
}

/// All agents report probes until one is refused, before the log is full.
async fn probe_until_refused(testbed: &mut Testbed, agents: &mut [ScriptedAgent]) -> Refusal {
    let log = testbed.output_stream();
    let targets = testbed.targets();
    let mut pace = tokio::time::interval(PACE);
    let start = Instant::now();
    loop {
        for agent in agents.iter_mut() {
            if let Some(refusal) = agent.probe_once(Utc::now()).await.unwrap() {
                return refusal;
            }
        }
        wait_until_folded(testbed).await;
        let bytes = targets.logs()[&log].bytes;
        assert!(
            bytes < REFUSED_BELOW && start.elapsed() < TIMEOUT * 2,
            "{log} has {bytes} of {} bytes and agents are not refused",
            LIMITS.output
        );
        if bytes >= PACED_FROM {
            pace.tick().await;
        }
    }
}

/// Waits until the output log covers the whole input log.
async fn wait_until_folded(testbed: &Testbed) {
    let folded = wait_for("everything is folded", TIMEOUT, async || {
        let cluster = testbed.operator.get("/v1/cluster").await?;
        let lag = &cluster["partitions"][usize::from(PARTITION)]["inputLagMessages"];
        Ok((lag == 0).then_some(()))
    });
    folded.await.unwrap();
}

/// Asserts that a command is accepted and folded.
async fn check_operator(testbed: &Testbed) {
    let clearance = json!({ "reason": "nothing is halted" });
    let path = "/v1/rollouts/edge@a001/clearance";
    testbed.operator.post(path, &clearance).await.unwrap();
    wait_until_folded(testbed).await;
}

/// Appends events of a host to the input log until the owner cannot append outcomes; returns their
/// number.
async fn fill(testbed: &mut Testbed, agent: &ScriptedAgent) -> u64 {
    let config = BusConfig {
        url: shared_nats().unwrap().url(),
        prefix: testbed.names.prefix().to_owned(),
        partitions: 1,
        input_max_bytes: LIMITS.input,
        output_max_bytes: LIMITS.output,
        ..BusConfig::default()
    };
    let bus = Bus::connect(config, "retention").await.unwrap();
    let input = bus.input();
    let rollout_id = RolloutId::new(&"edge".into(), &"a001".into());
    let target = closure(agent.hostname(), "a001");
    let stored = agent.stored()[&rollout_id];
    let mut seq = stored;
    let start = Instant::now();
    while names_log(testbed).is_err() {
        assert!(
            start.elapsed() < TIMEOUT,
            "the owner is ready although {:?} has {:?}",
            testbed.output_stream(),
            testbed.stream(&testbed.output_stream())
        );
        let events = (0..ROUNDS).flat_map(|_| probe_round(&target, Utc::now()));
        let entries = events.map(|body| {
            seq += 1;
            let event = EntryBody::HostEvent {
                rollout_id: rollout_id.clone(),
                hostname: agent.hostname().clone(),
                producer: Producer::Agent,
                event: HostEvent { seq, body },
            };
            Entry::new(Utc::now(), event)
        });
        let appended = input.append_all(Partition::new(PARTITION), entries.collect());
        let appended = appended.await;
        assert!(
            appended.is_ok(),
            "{appended:?} before the owner names the output log: {:?}",
            names_log(testbed)
        );
    }
    bus.close().await;
    seq - stored
}

/// Asserts that the owner is not ready and names the log.
fn names_log(testbed: &mut Testbed) -> anyhow::Result<()> {
    let log = testbed.output_stream();
    let owner = testbed.stack.instance(Service::Reducer, 0)?;
    let answer = monitoring::get(owner.admin_port(), "/readyz")?;
    let is_named = answer.status == 503 && answer.body.contains(&log);
    anyhow::ensure!(
        is_named,
        "the owner does not name {log}: {} {}",
        answer.status,
        answer.body
    );
    Ok(())
}

/// Asserts that this remains when the owner takes its partition again.
async fn check_it_stays(testbed: &mut Testbed) {
    let mut look = tokio::time::interval(Duration::from_millis(100));
    let start = Instant::now();
    while start.elapsed() < STAYS {
        names_log(testbed).unwrap();
        look.tick().await;
    }
}
