//! The database is dropped after the logs were trimmed: it is restored from the checkpoint and the
//! log behind it.

use std::time::{Duration, Instant};

use nixfleet_audit::PartitionSummary;
use nixfleet_harness::postgres;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::Dispatch;
use nixfleet_proto::{RolloutId, RolloutState};
use nixfleet_store::Store;
use serde_json::{Value, json};

use super::running_agents;
use super::testbed::{Limits, PARTITION, Testbed};
use super::three_wave_fleet::{Channels, closure, hostname};

const CHANNELS: Channels = &[("edge", 12), ("halted", 8), ("waived", 8)];
const RELEASES: usize = 12;
const LIMIT: u64 = 2 << 20;
/// Timeout for the first trim of the log.
const TRIMMED: Duration = Duration::from_secs(90);
/// Rounds of probes between two checks of the log.
const ROUNDS: usize = 4;
/// The release that fails on the first host of two channels.
const BROKEN: &str = "bad0";

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_database_is_restored_unchanged() {
    let limits = Limits {
        input: LIMIT,
        output: LIMIT,
    };
    let mut testbed = Testbed::start("dropped", CHANNELS, limits).await;
    let running = testbed.start_agents(fails);
    for number in 1..=RELEASES {
        publish(&mut testbed, &format!("a{number:03}")).await;
    }
    break_two_channels(&mut testbed).await;
    let mut agents = running.stop().await;

    // The current state was decided in a part of the log that is trimmed when the database is
    // dropped.
    let decided = testbed.stream(&testbed.output_stream()).last_seq;
    let start = Instant::now();
    while testbed.stream(&testbed.output_stream()).first_seq <= decided {
        for _ in 0..ROUNDS {
            running_agents::probe(&mut agents, "edge").await;
        }
        let state = testbed.stream(&testbed.output_stream());
        assert!(start.elapsed() < TRIMMED, "nothing is trimmed: {state:?}");
    }
    testbed.check_nothing_lost(&agents).await;
    let store = testbed.store();
    let before = standing(&store).await.unwrap();
    check(&before);
    let listed = listed(&testbed).await.unwrap();

    postgres::execute(&testbed.database.url, "DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    testbed
        .wait("everything stands as before", async |testbed| {
            let differences = before.differences(&standing(&store).await?);
            anyhow::ensure!(differences.is_empty(), "{}", differences.join("\n"));
            let now = self::listed(testbed).await?;
            anyhow::ensure!(now == listed, "before {listed:#?}\nnow {now:#?}");
            Ok(())
        })
        .await;
    testbed.wait_until_ready().await;

    // Without restart or command, the rollouts continue.
    let running = running_agents::Running::start(agents, |_| false);
    publish(&mut testbed, "b001").await;
    running.stop().await;
    // The archive began again in the middle of the logs, and can be replayed from a checkpoint.
    let report = testbed.verify().await;
    let partition = &report["partitions"][usize::from(PARTITION)];
    assert_eq!(partition["isWhole"], true, "{report}");
    assert_ne!(partition["decided"], 0, "{report}");
    store.close();
    testbed.stop();
}

/// True for the first host of two channels.
fn fails(dispatch: &Dispatch) -> bool {
    let is_first = ["halted", "waived"].map(|channel| hostname(channel, 0));
    is_first.contains(&dispatch.hostname)
        && dispatch.target_closure == closure(&dispatch.hostname, BROKEN)
}

/// Publishes a release that reaches every host.
async fn publish(testbed: &mut Testbed, commit: &str) {
    testbed.publish(commit).await;
    for (channel, _) in CHANNELS {
        let rollout_id = format!("{channel}@{commit}");
        testbed.wait_until_state(&rollout_id, "Terminal").await;
    }
}

/// Publishes a release that halts in two channels; an operator resumes one of them.
async fn break_two_channels(testbed: &mut Testbed) {
    testbed.publish(BROKEN).await;
    for (channel, state) in [
        ("edge", "Terminal"),
        ("halted", "Reverted"),
        ("waived", "Reverted"),
    ] {
        let rollout_id = format!("{channel}@{BROKEN}");
        testbed.wait_until_state(&rollout_id, state).await;
    }
    let path = format!("/v1/rollouts/waived@{BROKEN}/clearance");
    let clearance = json!({ "reason": "excused", "waivedHosts": [hostname("waived", 0)] });
    testbed.operator.post(&path, &clearance).await.unwrap();
    testbed
        .wait_until_state(&format!("waived@{BROKEN}"), "Terminal")
        .await;
}

async fn standing(store: &Store) -> anyhow::Result<PartitionSummary> {
    PartitionSummary::read(store, Partition::new(PARTITION)).await
}

/// Rollouts as the gateway lists them, with the states of all hosts.
async fn listed(testbed: &Testbed) -> anyhow::Result<Vec<Value>> {
    let rollouts = testbed.operator.get("/v1/rollouts?filter=all").await?;
    let mut rollouts = rollouts["rollouts"].as_array().cloned().unwrap_or_default();
    rollouts.sort_by_key(|rollout| rollout["rolloutId"].to_string());
    Ok(rollouts)
}

/// Asserts that the state has what this test needs.
fn check(standing: &PartitionSummary) {
    let of = |channel: &str| &standing.rollouts[&RolloutId::new(&channel.into(), &BROKEN.into())];
    for channel in ["halted", "waived"] {
        let closure = closure(&hostname(channel, 0), BROKEN);
        assert!(standing.is_quarantined(channel, &closure), "{standing:#?}");
    }
    assert_eq!(of("halted").state, RolloutState::Reverted);
    assert_eq!(of("waived").state, RolloutState::Terminal);
    assert_eq!(of("waived").waived_hosts, [hostname("waived", 0)].into());
    assert_eq!(standing.rollouts.len(), (RELEASES + 1) * CHANNELS.len());
}
