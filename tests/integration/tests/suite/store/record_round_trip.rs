//! Every record that a host can produce is stored and read back unchanged.

use std::collections::BTreeMap;

use chrono::{DateTime, Utc};
use nixfleet_proto::host::{
    ConvergenceClaim, FailedControl, ProbeDeclaration, ProbeMode, ProbeRecord, ProbeStatus,
};
use nixfleet_proto::{ClosureHash, HostRecord, HostState, OnHealthFailure, ProbeName, Timestamp};
use nixfleet_store::{FailureSet, TurnRows};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::sample_rollouts::*;

fn text() -> impl Strategy<Value = String> {
    "[\\x00-\\x20a\\\\\"'u0\u{FFFD}\u{1F600}\u{2028}]{0,16}"
}

fn time() -> impl Strategy<Value = Timestamp> {
    let bounds = (
        DateTime::<Utc>::MIN_UTC.timestamp(),
        DateTime::<Utc>::MAX_UTC.timestamp(),
    );
    // The nanoseconds above one second are how a leap second is written.
    prop_oneof![
        (-5_000_000_000_i64..5_000_000_000, 0..1_000_000_000_u32),
        (bounds.0..=bounds.1, 0..1_000_000_000_u32),
        Just((1_483_228_799, 1_500_000_000)),
    ]
    .prop_filter_map("no date", |(seconds, nanos)| {
        DateTime::from_timestamp(seconds, nanos)
    })
}

fn closure() -> impl Strategy<Value = Option<ClosureHash>> {
    proptest::option::of(text().prop_map(ClosureHash::from))
}

fn probe() -> impl Strategy<Value = ProbeRecord> {
    let control = (proptest::option::of(text()), proptest::option::of(text()));
    let control = control.prop_map(|(control_id, framework)| FailedControl {
        control_id,
        framework,
    });
    let controls = proptest::option::of(proptest::collection::btree_set(control, 0..3));
    let reason = proptest::option::of(text());
    (
        any::<bool>(),
        time(),
        proptest::option::of(time()),
        reason,
        controls,
    )
        .prop_map(
            |(pass, last_observed_at, last_pass_at, failure_reason, failing_controls)| {
                ProbeRecord {
                    status: if pass {
                        ProbeStatus::Pass
                    } else {
                        ProbeStatus::Fail
                    },
                    mode: ProbeMode::Observe,
                    last_observed_at,
                    last_pass_at,
                    failure_reason: failure_reason.map(Into::into),
                    failing_controls: failing_controls.map(Into::into),
                }
            },
        )
}

fn record() -> impl Strategy<Value = HostRecord> {
    let state = proptest::sample::select(HostState::ALL.to_vec());
    let seq = prop_oneof![Just(0), Just(u64::MAX), any::<u64>()];
    let times = proptest::collection::vec(proptest::option::of(time()), 11);
    let closures = (closure(), closure(), closure());
    let name = text().prop_map(ProbeName::from);
    let probes = proptest::collection::btree_map(name, probe(), 0..3);
    let declared = proptest::option::of(proptest::collection::vec(
        (text(), text()).prop_map(|(name, kind)| ProbeDeclaration {
            probe_name: ProbeName::from(name),
            kind,
            mode: ProbeMode::Disabled,
        }),
        0..3,
    ));
    let claim = proptest::option::of((time(), text()));
    let flags = (any::<bool>(), proptest::option::of(any::<bool>()));
    (
        state,
        (seq.clone(), seq),
        times,
        closures,
        probes,
        declared,
        claim,
        flags,
    )
        .prop_map(
            |(state, seqs, times, closures, probes, declared_probes, claim, flags)| HostRecord {
                state,
                current_closure_at_dispatch: closures.0,
                current_closure: closures.1,
                reverted_to: closures.2,
                dispatch_acked_at: times[0],
                activation_started_at: times[1],
                activation_completed_at: times[2],
                activation_failed_at: times[3],
                probe_observed_first_at: times[4],
                probe_failure_first_at: times[5],
                soak_due_at: times[6],
                converged_at: times[7],
                failed_at: times[8],
                reverted_at: times[9],
                policy_applied: flags.1.map(|halt| match halt {
                    true => OnHealthFailure::Halt,
                    false => OnHealthFailure::RollbackAndHalt,
                }),
                probes: probes.into(),
                declared_probes: declared_probes.map(Into::into),
                convergence_claim: claim.map(|(converged_at, closure)| {
                    Box::new(ConvergenceClaim {
                        converged_at,
                        current_closure: ClosureHash::from(closure),
                    })
                }),
                unchanged: flags.0,
                last_event_seq: seqs.0,
                recovery_seq: seqs.1,
                ..pending(&rollout_id("stable@4f"), 0)
            },
        )
}

/// Rows whose typed columns differ from the record by more than a microsecond, leap seconds excepted.
const COLUMNS_THAT_DIFFER: &str = "
    SELECT count(*) FROM nixfleet.host_rollout_records
    WHERE (state, channel, target_closure, current_closure_at_dispatch, current_closure, reverted_to,
           policy_applied, soak_minutes::text, last_event_seq::text, recovery_seq::text, unchanged)
        IS DISTINCT FROM
          (record ->> 'state', record ->> 'channel', record ->> 'targetClosure',
           record ->> 'currentClosureAtDispatch', record ->> 'currentClosure',
           record ->> 'revertedTo', record ->> 'policyApplied', record ->> 'soakMinutes',
           record ->> 'lastEventSeq', record ->> 'recoverySeq', coalesce((record ->> 'unchanged')::boolean, false))
       OR EXISTS (SELECT FROM (VALUES
            (dispatched_at, record ->> 'dispatchedAt'),
            (dispatch_acked_at, record ->> 'dispatchAckedAt'),
            (activation_started_at, record ->> 'activationStartedAt'),
            (activation_completed_at, record ->> 'activationCompletedAt'),
            (activation_failed_at, record ->> 'activationFailedAt'),
            (probe_observed_first_at, record ->> 'probeObservedFirstAt'),
            (probe_failure_first_at, record ->> 'probeFailureFirstAt'),
            (soak_due_at, record ->> 'soakDueAt'),
            (converged_at, record ->> 'convergedAt'),
            (failed_at, record ->> 'failedAt'),
            (reverted_at, record ->> 'revertedAt')) AS moments (typed, exact)
          WHERE (typed IS NULL) <> (exact IS NULL)
             OR isfinite(nixfleet.record_time(exact)) AND exact NOT LIKE '%:60%'
                AND abs(extract(epoch FROM typed - nixfleet.record_time(exact))) > 0.000001)";

#[tokio::test(flavor = "multi_thread")]
async fn any_record_is_read_back_unchanged() {
    let (store, database) = store("store_round_trip").await;
    let sql = raw(&database).await;
    let id = rollout_id("stable@4f");
    store
        .apply_turn(partition(), 0, &opening(&id, 1), &cursor(1))
        .await
        .unwrap();
    let position = std::cell::Cell::new(1);
    let mut runner = TestRunner::new(Config {
        failure_persistence: None,
        ..Config::with_cases(200)
    });
    let handle = tokio::runtime::Handle::current();
    let outcome = tokio::task::block_in_place(|| {
        runner
            .run(
                &(record(), text(), time()),
                |(record, hostile, observed_at)| {
                    let previous = position.get();
                    let mut rows = host_change(record.clone(), previous);
                    let control = FailedControl {
                        control_id: Some(hostile.clone()),
                        framework: None,
                    };
                    let failures = FailureSet {
                        failures: vec![control.clone()],
                        observed_at,
                        stamp: stamp(previous),
                    };
                    rows.probe_failures =
                        BTreeMap::from([((id.clone(), hostname(0), "p".into()), failures)]);
                    let candidate = Some(ClosureHash::from(hostile));
                    rows.recovery_candidates
                        .insert((id.clone(), hostname(0)), candidate.clone());
                    let snapshot = handle.block_on(async {
                        let next = cursor(previous + 1);
                        let turn = store.apply_turn(partition(), previous, &rows, &next);
                        turn.await
                            .map_err(|error| TestCaseError::fail(format!("{error:?}")))?;
                        position.set(previous + 1);
                        let loaded = store.load_partition(partition()).await;
                        loaded.map_err(|error| TestCaseError::fail(format!("{error:?}")))
                    })?;
                    prop_assert_eq!(&*snapshot.hosts[0].record, &record);
                    let differing = handle.block_on(sql.query_one(COLUMNS_THAT_DIFFER, &[]));
                    prop_assert_eq!(differing.unwrap().get::<_, i64>(0), 0, "{:?}", record);
                    prop_assert_eq!(&snapshot.hosts[0].recovery_candidate, &candidate);
                    prop_assert_eq!(&snapshot.probe_failures[0].control, &control);
                    Ok(())
                },
            )
            .map_err(|error| error.to_string())
    });
    outcome.unwrap();
}

#[tokio::test]
async fn names_with_nul_are_distinct_and_read_back_unchanged() {
    let (store, _database) = store("store_nul").await;
    let id = rollout_id("stable@4f\0");
    let mut rows = TurnRows::default();
    let mut opened = opened(&id, 2);
    let pinned = std::sync::Arc::make_mut(&mut opened.pinned);
    pinned.host_set[0].target_closure = "a\0".into();
    pinned.host_set[1].target_closure = "a\u{FFFD}0".into();
    rows.opened.push(opened);
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    let snapshot = store.load_partition(partition()).await.unwrap();
    assert_eq!(snapshot.rollouts[0].record.rollout_id, id);
    let closures: Vec<_> = snapshot
        .hosts
        .iter()
        .map(|host| host.record.target_closure.as_str())
        .collect();
    assert_eq!(closures.len(), 2);
    assert!(
        closures.contains(&"a\0") && closures.contains(&"a\u{FFFD}0"),
        "{closures:?}"
    );
}

#[tokio::test]
async fn names_a_host_chooses_may_be_longer_than_an_index_entry() {
    let (store, _database) = store("store_long").await;
    let id = rollout_id("stable@4f");
    let mut rows = opening(&id, 1);
    // Random text, because Postgres compresses before it measures.
    let long: String = (0_u64..9_000)
        .map(|n| char::from(b'!' + (n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 57) as u8 % 94))
        .collect();
    let probe = ProbeName::from(long.as_str());
    let control = FailedControl {
        control_id: Some(long.clone()),
        framework: Some(long.clone()),
    };
    let set = FailureSet {
        failures: vec![control.clone()],
        observed_at: at(1),
        stamp: stamp(1),
    };
    rows.probe_failures
        .insert((id.clone(), hostname(0), probe), set);
    let candidate = Some(ClosureHash::from(long));
    rows.recovery_candidates
        .insert((id.clone(), hostname(0)), candidate.clone());
    store
        .apply_turn(partition(), 0, &rows, &cursor(1))
        .await
        .unwrap();
    let snapshot = store.load_partition(partition()).await.unwrap();
    assert_eq!(snapshot.probe_failures[0].control, control);
    assert_eq!(snapshot.hosts[0].recovery_candidate, candidate);
}
