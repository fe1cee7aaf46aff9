//! Comments, constraints, and a missing schema.

use std::collections::BTreeSet;

use nixfleet_proto::{Gate, HostState, OnHealthFailure, RolloutState};

use super::sample_rollouts::{raw, store};

#[tokio::test]
async fn a_missing_schema_is_retryable_and_restored_by_migration() {
    let (store, database) = store("store_dropped").await;
    store
        .load_partition(super::sample_rollouts::partition())
        .await
        .unwrap();
    raw(&database)
        .await
        .batch_execute("DROP SCHEMA nixfleet CASCADE")
        .await
        .unwrap();
    let error = store
        .load_partition(super::sample_rollouts::partition())
        .await
        .unwrap_err();
    assert!(error.schema_missing() && error.retryable(), "{error:?}");
    let error = store.schema_ready().await.unwrap_err();
    assert!(error.schema_missing(), "{error:?}");
    store.migrate().await.unwrap();
    let snapshot = store
        .load_partition(super::sample_rollouts::partition())
        .await
        .unwrap();
    assert_eq!(snapshot.cursor, None);
}

#[tokio::test]
async fn every_table_and_column_has_a_comment() {
    let (_store, database) = store("store_comments").await;
    let rows = raw(&database)
        .await
        .query(
            "SELECT c.relname || coalesce('.' || a.attname, '') FROM pg_class c \
             JOIN pg_namespace n ON n.oid = c.relnamespace AND n.nspname = 'nixfleet' \
             LEFT JOIN LATERAL (SELECT 0 AS attnum, NULL AS attname UNION ALL \
                 SELECT attnum, attname FROM pg_attribute \
                 WHERE attrelid = c.oid AND attnum > 0 AND NOT attisdropped) a ON true \
             WHERE c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition \
               AND c.relname <> 'refinery_schema_history' \
               AND col_description(c.oid, a.attnum) IS NULL \
               AND NOT (a.attnum = 0 AND obj_description(c.oid, 'pg_class') IS NOT NULL)",
            &[],
        )
        .await
        .unwrap();
    let bare: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    assert_eq!(bare, Vec::<String>::new());
}

#[tokio::test]
async fn check_constraints_allow_exactly_the_names_of_the_enums() {
    let (_store, database) = store("store_checks").await;
    let client = raw(&database).await;
    let policies = [OnHealthFailure::Halt, OnHealthFailure::RollbackAndHalt].map(|p| p.name());
    for (constraint, names) in [
        (
            "rollouts_state_check",
            RolloutState::ALL.map(|s| s.name()).to_vec(),
        ),
        (
            "host_rollout_records_state_check",
            HostState::ALL.map(|s| s.name()).to_vec(),
        ),
        (
            "gate_blocks_gate_check",
            Gate::ALL.map(|g| g.name()).to_vec(),
        ),
        ("rollouts_on_health_failure_check", policies.to_vec()),
        (
            "host_rollout_records_policy_applied_check",
            policies.to_vec(),
        ),
    ] {
        let row = client
            .query_one(
                "SELECT pg_get_constraintdef(oid) FROM pg_constraint WHERE conname = $1",
                &[&constraint],
            )
            .await
            .unwrap();
        let definition: String = row.get(0);
        let literals = definition.split('\'').skip(1).step_by(2);
        let known: BTreeSet<&str> = literals.collect();
        assert_eq!(known, names.into_iter().collect(), "{constraint}");
    }
}

#[tokio::test]
async fn no_column_is_a_time_without_a_zone() {
    let (_store, database) = store("store_times").await;
    let rows = raw(&database)
        .await
        .query(
            "SELECT table_name || '.' || column_name FROM information_schema.columns \
             WHERE table_schema = 'nixfleet' AND data_type = 'timestamp without time zone'",
            &[],
        )
        .await
        .unwrap();
    assert!(rows.is_empty());
}
