//! `nixfleet db verify` finds what the owner of the database changed in the archive.

use nixfleet_harness::postgres;
use serde_json::{Value, json};

use super::db_command_runner::{Run, run, verify_whole};
use crate::suite::e2e::testbed::Testbed;

/// The entry of a clearance: the last row of its message.
const CLEARANCE: &str = "kind = 'OperatorClearance'";

async fn change(testbed: &Testbed, statement: &str) {
    postgres::execute(&testbed.database.url, statement)
        .await
        .unwrap();
}

async fn verify(testbed: &Testbed, more: &[&str]) -> Run {
    let prefix = &testbed.stack.config().prefix;
    let mut arguments = vec!["verify", "--json", "--prefix", prefix];
    arguments.extend(more);
    run(testbed, &arguments).await
}

/// Table, key and column of each difference.
fn differences(found: &Run) -> Vec<(String, String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let report = found.json();
    let all = report["differences"].as_array().unwrap();
    let key = |key: &Value| {
        key.as_array()
            .unwrap()
            .iter()
            .map(text)
            .collect::<Vec<_>>()
            .join(" ")
    };
    all.iter()
        .map(|it| (text(&it["table"]), key(&it["key"]), text(&it["column"])))
        .collect()
}

#[tokio::test]
async fn a_changed_or_deleted_row_of_the_archive_is_a_difference() {
    let mut testbed = Testbed::shared("tampered", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    // Rejected, as the rollout is terminal: no table has a trace of it.
    let reason = json!({ "reason": "nothing to clear" });
    let path = "/v1/rollouts/edge@aa01/clearance";
    testbed.operator.post(path, &reason).await.unwrap();
    let archived = format!("SELECT count(*) FROM nixfleet.event_log WHERE {CLEARANCE}");
    let counted = nixfleet_harness::wait_for(
        "the clearance is archived",
        std::time::Duration::from_secs(30),
        async || Ok((testbed.count(&archived).await == 1).then_some(())),
    );
    counted.await.unwrap();
    verify_whole(&testbed).await;

    // Another reason. The name of the actor stands in the outcome too.
    change(
        &testbed,
        &format!(
            "UPDATE nixfleet.event_log SET payload = replace(payload::text, '\"reason\":\"', \
             '\"reason\":\"not-')::json WHERE {CLEARANCE}"
        ),
    )
    .await;
    let found = verify(&testbed, &[]).await;
    assert_eq!(found.code, 1, "{found:?}");
    let [(table, _, column)] = &differences(&found)[..] else {
        panic!("{found:?}");
    };
    assert_eq!((&**table, &**column), ("event_log", "payload"));
    // The replay alone does not see it, and says that it did not look.
    let blind = verify(&testbed, &["--without-streams"]).await;
    assert_eq!(blind.code, 0, "{blind:?}");
    assert_eq!(blind.json()["streamMessages"], Value::Null);
    change(
        &testbed,
        &format!(
            "UPDATE nixfleet.event_log SET payload = replace(payload::text, '\"reason\":\"not-', \
             '\"reason\":\"')::json WHERE {CLEARANCE}"
        ),
    )
    .await;
    verify_whole(&testbed).await;

    // No such entry: with and without the streams.
    change(
        &testbed,
        &format!("DELETE FROM nixfleet.event_log WHERE {CLEARANCE}"),
    )
    .await;
    for more in [&[] as &[&str], &["--without-streams"]] {
        let found = verify(&testbed, more).await;
        assert_eq!(found.code, 1, "{more:?}: {found:?}");
        let all = differences(&found);
        assert!(
            all.iter().all(|(table, ..)| table == "event_log"),
            "{all:?}"
        );
    }
    testbed.stop();
}

#[tokio::test]
async fn a_gap_in_the_archive_is_a_difference() {
    let mut testbed = Testbed::shared("archivegap", 1).await;
    testbed.publish("aa01").await;
    testbed.start_swarm(&json!({}));
    testbed.wait_until_terminal("aa01").await;
    verify_whole(&testbed).await;
    let prefix = testbed
        .stack
        .config()
        .prefix
        .to_uppercase()
        .replace('-', "_");
    let input = format!("{prefix}_IN_00");
    // The first message, one in the middle, and the last one.
    for sequence in ["min(sequence)", "min(sequence) + 1", "max(sequence)"] {
        change(
            &testbed,
            &format!(
                "CREATE TABLE nixfleet.kept AS SELECT * FROM nixfleet.event_log WHERE stream = '{input}' \
                 AND sequence = (SELECT {sequence} FROM nixfleet.event_log WHERE stream = '{input}'); \
                 DELETE FROM nixfleet.event_log AS log USING nixfleet.kept \
                 WHERE log.stream = kept.stream AND log.sequence = kept.sequence"
            ),
        )
        .await;
        let found = verify(&testbed, &["--without-streams"]).await;
        assert_eq!(found.code, 1, "{sequence}: {found:?}");
        let all = differences(&found);
        assert!(
            all.contains(&("event_log".to_owned(), input.clone(), String::new())),
            "{all:?}"
        );
        change(
            &testbed,
            "INSERT INTO nixfleet.event_log SELECT * FROM nixfleet.kept; DROP TABLE nixfleet.kept",
        )
        .await;
        verify_whole(&testbed).await;
    }
    testbed.stop();
}
