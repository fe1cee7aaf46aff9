//! `nixfleet db verify` finds damaged rows, and `nixfleet db rebuild` repairs them.

use std::collections::BTreeSet;
use std::time::Duration;

use nixfleet_harness::{Service, postgres, wait_for};
use serde_json::json;

use super::db_command_runner::{run, verify, verify_whole};
use crate::suite::e2e::testbed::Testbed;

/// One damaged row in each table that follows from the log.
const DAMAGE: [(&str, &str); 7] = [
    (
        "host_rollout_records",
        "UPDATE nixfleet.host_rollout_records
         SET record = jsonb_set(record::jsonb, '{state}', '\"Failed\"')::json
         WHERE hostname = 'edge-03'",
    ),
    (
        "host_rollout_records",
        "DELETE FROM nixfleet.host_rollout_records WHERE hostname = 'stable-04'",
    ),
    (
        "rollouts",
        "UPDATE nixfleet.rollouts SET input_seq = input_seq + 1 WHERE channel = 'edge'",
    ),
    (
        "quarantined_closures",
        "INSERT INTO nixfleet.quarantined_closures
         SELECT 'edge', 'c', partition, now(), 1, 0 FROM nixfleet.rollouts WHERE channel = 'edge'",
    ),
    (
        "probe_failures",
        "INSERT INTO nixfleet.probe_failures
         SELECT rollout_id, 'edge-00', 'p', 0, NULL, NULL, now(), 1, 0
         FROM nixfleet.rollouts WHERE channel = 'edge'",
    ),
    (
        "dispatch_queue",
        "INSERT INTO nixfleet.dispatch_queue (rollout_id, hostname, record, input_seq, input_index,
                target_closure, soak_minutes, enqueued_at)
         SELECT rollout_id, 'edge-00', '{\"targetClosure\": \"c\", \"soakMinutes\": 1,
                \"enqueuedAt\": \"2026-01-01T00:00:00Z\"}', 1, 0, 'c', 1, '2026-01-01T00:00:00Z'
         FROM nixfleet.rollouts WHERE channel = 'edge'",
    ),
    (
        "gate_blocks",
        "INSERT INTO nixfleet.gate_blocks SELECT rollout_id, 0, 'halt', '[]', now(), 1, 0
         FROM nixfleet.rollouts WHERE channel = 'edge'",
    ),
];

#[tokio::test]
async fn damage_to_any_table_is_named_and_repaired_by_a_rebuild() {
    let mut testbed = Testbed::shared("dbverify", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    testbed.check_agreement("aa01").await;
    verify_whole(&testbed).await;

    for (_, statement) in DAMAGE {
        postgres::execute(&testbed.database.url, statement)
            .await
            .unwrap();
    }
    let prefix = testbed.stack.config().prefix.clone();
    let found = run(&testbed, &["verify", "--json", "--prefix", &prefix]).await;
    assert_eq!(found.code, 1, "{found:?}");
    let report = found.json();
    let differences = report["differences"].as_array().unwrap();
    let tables: BTreeSet<&str> = differences
        .iter()
        .map(|difference| difference["table"].as_str().unwrap())
        .collect();
    let damaged: BTreeSet<&str> = DAMAGE.iter().map(|(table, _)| *table).collect();
    assert_eq!(tables, damaged, "{report}");
    assert_eq!(report["differenceCount"], DAMAGE.len(), "{report}");
    let shown = run(&testbed, &["verify", "--prefix", &prefix, "--limit", "2"]).await;
    assert_eq!(shown.code, 1);
    assert!(shown.stdout.contains("and 5 more"), "{}", shown.stdout);

    // Refused while an applier can write.
    let rebuild = ["rebuild", "--prefix", &prefix, "--yes"];
    let refused = run(&testbed, &rebuild).await;
    assert_eq!(refused.code, 1, "{refused:?}");
    assert!(
        refused.stderr.contains("stop all appliers"),
        "{}",
        refused.stderr
    );

    stop_applier(&mut testbed).await;
    // Refused without confirmation.
    let asked = run(&testbed, &["rebuild", "--prefix", &prefix]).await;
    assert_eq!(asked.code, 1, "{asked:?}");
    assert!(
        asked.stderr.contains("no change was made"),
        "{}",
        asked.stderr
    );
    let rebuilt = run(&testbed, &rebuild).await;
    assert_eq!(rebuilt.code, 0, "{rebuilt:?}");
    verify_whole(&testbed).await;

    // Applier and reducer continue behind the rebuilt rows.
    for service in [Service::Applier, Service::Reducer, Service::Planner] {
        let instance = testbed.stack.instance(service, 0).unwrap();
        instance.kill().unwrap();
        instance.restart().unwrap();
    }
    testbed.publish("aa02").await;
    testbed.wait_until_terminal("aa02").await;
    testbed.check_agreement("aa02").await;
    verify(&testbed).await;
    testbed.stop();
}

/// Stops the applier and waits until the database has noticed.
pub async fn stop_applier(testbed: &mut Testbed) {
    let applier = testbed.stack.instance(Service::Applier, 0).unwrap();
    applier.stop().unwrap();
    let connected = "SELECT count(*) FROM pg_stat_activity
                     WHERE datname = current_database() AND usename = 'nixfleet_applier'";
    wait_for(
        "no applier is connected",
        Duration::from_secs(30),
        async || Ok((testbed.count(connected).await == 0).then_some(())),
    )
    .await
    .unwrap();
}
