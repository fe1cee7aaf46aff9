//! Replays of a small archive that is right, and of the same archive with something wrong in it.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;

use chrono::{TimeDelta, Utc};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::rollout::{PinnedHost, PinnedWave};
use nixfleet_proto::{
    Decision, Entry, EntryBody, Gate, Hold, HostEvent, HostEventBody, HostState, InputMark,
    Minutes, OnHealthFailure, OutputFrame, Pinned, PinnedManifest, PinnedSet, PlanAction, Position,
    ProbeStatus, Producer, StoredAt, Timestamp,
};
use nixfleet_replay::{Comparison, InputItem, Replay, ReplayError, Row, expected_rows};

const ROLLOUT: &str = "stable@4f";

fn at(seconds: i64) -> Timestamp {
    chrono::DateTime::<Utc>::UNIX_EPOCH + TimeDelta::seconds(1_700_000_000 + seconds)
}

fn pins() -> PinnedSet {
    let hosts = ["a", "b", "c"].map(|name| PinnedHost {
        hostname: name.into(),
        wave_index: 0,
        target_closure: "new".into(),
        staged: true,
    });
    let pinned = Pinned {
        on_health_failure: OnHealthFailure::Halt,
        waves: vec![PinnedWave {
            soak_minutes: Minutes::from_minutes(5),
        }],
        host_set: hosts.to_vec(),
        disruption_budgets: Vec::new(),
    };
    let manifest = PinnedManifest {
        rollout_id: ROLLOUT.parse().unwrap(),
        pinned: Arc::new(pinned),
    };
    PinnedSet::from([("m1".into(), manifest)])
}

fn plan(action: PlanAction) -> EntryBody {
    EntryBody::Plan { epoch: 1, action }
}

fn dispatch(host: &str) -> EntryBody {
    plan(PlanAction::QueueDispatch {
        hostname: host.parse().unwrap(),
        rollout_id: ROLLOUT.parse().unwrap(),
        target_closure: "new".into(),
        soak_minutes: Minutes::from_minutes(5),
    })
}

fn event(host: &str, seq: u64, body: HostEventBody) -> EntryBody {
    EntryBody::HostEvent {
        rollout_id: ROLLOUT.parse().unwrap(),
        hostname: host.parse().unwrap(),
        producer: Producer::Agent,
        event: HostEvent { seq, body },
    }
}

/// Entries of three frames: a is dispatched, b activated and failing a probe, c held.
fn history() -> Vec<Vec<EntryBody>> {
    let acknowledged = HostEventBody::DispatchAck {
        current_closure_at_dispatch: "old".into(),
        received_at: at(2),
    };
    let completed = HostEventBody::ActivationCompleted {
        observed_current_closure: "new".into(),
        exit_code: 0,
        completed_at: at(3),
    };
    let failing = HostEventBody::ProbeResult {
        probe_name: "http".into(),
        mode: Default::default(),
        status: ProbeStatus::Fail,
        observed_at: at(4),
        failure_reason: None,
        sub_results: None,
    };
    let held = PlanAction::BlocksChanged {
        rollout_id: ROLLOUT.parse().unwrap(),
        wave: 0,
        gate: Gate::Freshness,
        holds: vec![Hold {
            reason: "old".to_owned(),
            hosts: None,
            cause: None,
        }],
    };
    let open = PlanAction::OpenRollout {
        rollout_id: ROLLOUT.parse().unwrap(),
        channel: "stable".into(),
        target_ref: "4f".into(),
        manifest_hash: "m1".into(),
    };
    vec![
        vec![plan(PlanAction::Barrier {}), plan(open)],
        vec![dispatch("a"), dispatch("b"), event("b", 1, acknowledged)],
        vec![event("b", 2, completed), event("b", 3, failing), plan(held)],
    ]
}

/// An archive: the takeover, then one frame per input message.
#[derive(Clone)]
struct Archive {
    frames: Vec<(u64, OutputFrame)>,
    input: Vec<Vec<InputItem>>,
}

impl Archive {
    fn new() -> Self {
        let mut state = PartitionState::new();
        let mut frame = OutputFrame::new(1);
        let mut archive = Self {
            frames: vec![(1, frame.clone())],
            input: vec![Vec::new()],
        };
        for (seq, bodies) in (1..).zip(history()) {
            let of = bodies.len() as u32;
            let items: Vec<_> = (0..)
                .zip(bodies)
                .map(|(index, body)| InputItem {
                    mark: InputMark { seq, index, of },
                    stored_at: StoredAt::new(at(seq as i64)),
                    entry: Some(Entry::new(at(seq as i64), body)),
                })
                .collect();
            let outcomes = items.iter().map(|item| {
                let (position, entry) = (item.position(), item.entry.as_ref().unwrap());
                let outcome = state.apply(position, item.stored_at, entry, &pins());
                assert!(
                    matches!(outcome.decision, Decision::Accepted(_)),
                    "{outcome:?}"
                );
                outcome
            });
            frame.outcomes = outcomes.collect();
            frame.first_input = Some(items[0].position());
            frame.last_input = items.last().map(|item| item.mark);
            frame.state_hash = Some(state.hash());
            archive.frames.push((seq + 1, frame.clone()));
            archive.input.push(items);
        }
        archive
    }

    /// As owners write it: the record of a host is in the last outcome of a frame that changed it.
    fn said_once(mut self) -> Self {
        for (_, frame) in &mut self.frames {
            drop_repeated_records(&mut frame.outcomes);
        }
        self
    }

    fn replay(&self) -> Result<Replay, ReplayError> {
        let mut replay = Replay::new();
        for (hash, pinned) in pins() {
            replay.pin(hash, pinned);
        }
        for ((out_seq, frame), items) in self.frames.iter().zip(&self.input) {
            replay.apply_frame(*out_seq, frame, items)?;
        }
        Ok(replay)
    }
}

/// Table, column and whether both sides hold something, of each difference.
fn differences(replay: &mut Replay) -> Vec<(&'static str, String)> {
    let found = replay.differences();
    found.into_iter().map(|d| (d.table, d.column)).collect()
}

#[test]
fn a_whole_archive_is_decided_again_without_a_difference() {
    let mut replay = Archive::new().replay().unwrap();
    assert_eq!(differences(&mut replay), []);
    let coverage = replay.coverage().clone();
    assert!(coverage.is_complete);
    assert_eq!(
        (coverage.frames, coverage.outcomes, coverage.decided),
        (4, 8, 8)
    );
    assert_eq!((coverage.unchecked, coverage.hashes), (0, 3));
    assert_eq!((replay.out_seq(), replay.last_input().unwrap().seq), (4, 3));
}

#[test]
fn the_tables_follow_from_the_state_and_the_entries_behind_it() {
    let replay = Archive::new().replay().unwrap();
    let id = ROLLOUT.parse().unwrap();
    let hosts: Vec<Row> = expected_rows::hosts(&replay, &id).collect();
    let states: Vec<_> = hosts
        .iter()
        .map(|row| (row.key[1].as_str(), &row.columns["record"]["state"]))
        .collect();
    let state = |state: HostState| serde_json::json!(state.name());
    let (pending, soaking) = (state(HostState::Pending), state(HostState::Soaking));
    assert_eq!(states, [("a", &pending), ("b", &soaking), ("c", &pending)]);
    assert_eq!(hosts[1].columns["inputSeq"], 3);
    let key = |rows: Vec<Row>| rows.into_iter().map(|row| row.key).collect::<Vec<_>>();
    assert_eq!(
        key(expected_rows::dispatches(&replay, &id).collect()),
        [[ROLLOUT, "a"]]
    );
    let failures: Vec<Row> = expected_rows::probe_failures(&replay, &id).collect();
    assert_eq!(failures[0].key, [ROLLOUT, "b", "http", "0000000000"]);
    assert_eq!(failures[0].columns["observedAt"], at(4).timestamp_micros());
    assert_eq!(failures[0].columns["inputIndex"], 1);
    let blocks = expected_rows::blocks(&replay, &id);
    assert_eq!(blocks[0].key, [ROLLOUT, "0000000000", "freshness"]);
    assert_eq!(blocks[0].columns["observedAt"], at(3).timestamp_micros());
    let rollouts: Vec<Row> = expected_rows::rollouts(&replay).collect();
    assert_eq!(rollouts[0].columns["hostCount"], 3);

    let mut comparison =
        Comparison::new("host_rollout_records", expected_rows::hosts(&replay, &id));
    hosts.into_iter().for_each(|row| comparison.found(row));
    assert_eq!(comparison.finish(), (3, Vec::new()));
}

#[test]
fn an_outcome_that_the_fold_contradicts_is_found_and_followed_all_the_same() {
    let mut archive = Archive::new();
    let outcome = &mut archive.frames[2].1.outcomes[2];
    let Decision::Accepted(accepted) = &mut outcome.decision else {
        panic!("{outcome:?}");
    };
    Arc::make_mut(&mut accepted.hosts[0]).last_event_seq = 7;
    archive.frames[2].1.state_hash = None;
    archive.frames[3].1 = Archive::new().frames[3].1.clone();
    let mut replay = archive.replay().unwrap();
    let found = differences(&mut replay);
    assert_eq!(found[0], ("outcomes", "HostEvent".to_owned()));
    // Its successors, too: with a higher sequence they are stale.
    assert!(found.len() > 1, "{found:?}");
}

#[test]
fn an_entry_is_decided_at_the_time_of_its_message() {
    let mut archive = Archive::new();
    let item = &mut archive.input[3][1];
    item.stored_at = StoredAt::new(at(3) + chrono::TimeDelta::seconds(61));
    let mut replay = archive.replay().unwrap();
    let found = replay.differences();
    let expected = found[0].expected.as_ref().unwrap();
    assert_eq!(
        (found.len(), &expected["rejected"]["reason"]),
        (1, &"clock".into())
    );
}

fn decided(replay: &Replay) -> (u64, u64) {
    (replay.coverage().decided, replay.coverage().unchecked)
}

#[test]
fn a_record_that_a_later_outcome_has_is_decided_on_the_way() {
    let archive = Archive::new().said_once();
    let first = &archive.frames[3].1.outcomes[0];
    assert_eq!(first.decision.host_records(), []);
    let mut replay = archive.replay().unwrap();
    assert_eq!(differences(&mut replay), []);
    assert_eq!((decided(&replay), replay.coverage().hashes), ((8, 0), 3));
    assert_eq!(replay.state(), Archive::new().replay().unwrap().state());
}

#[test]
fn a_record_that_no_outcome_has_is_found() {
    let mut archive = Archive::new().said_once();
    let last = &mut archive.frames[3].1.outcomes[1];
    last.decision.replace_host_records(Vec::new());
    archive.frames[3].1.state_hash = None;
    let mut replay = archive.replay().unwrap();
    let both = ["HostEvent", "HostEvent"].map(|entry| ("outcomes", entry.to_owned()));
    assert_eq!(differences(&mut replay), both);
}

#[test]
fn nothing_is_decided_on_a_state_that_lacks_a_record() {
    let mut archive = Archive::new();
    archive.input[3].remove(0);
    let mut replay = archive.clone().replay().unwrap();
    assert_eq!(
        (differences(&mut replay), decided(&replay)),
        (vec![], (7, 1))
    );
    let mut replay = archive.said_once().replay().unwrap();
    assert_eq!(
        (differences(&mut replay), decided(&replay)),
        (vec![], (5, 3))
    );
    assert_eq!(replay.state(), Archive::new().replay().unwrap().state());
}

#[test]
fn an_entry_without_an_outcome_is_found() {
    let mut archive = Archive::new();
    archive.frames[3].1.outcomes.remove(1);
    archive.frames[3].1.state_hash = None;
    let mut replay = archive.replay().unwrap();
    assert_eq!(differences(&mut replay), [("outcomes", String::new())]);
}

#[test]
fn an_owner_with_another_state_is_found_by_its_hash() {
    let mut archive = Archive::new();
    archive.frames[2].1.state_hash = Some("other".to_owned());
    let mut replay = archive.replay().unwrap();
    assert_eq!(
        differences(&mut replay),
        [("state", "stateHash".to_owned())]
    );
}

#[test]
fn a_hole_ends_the_replay() {
    let mut archive = Archive::new();
    archive.frames.push((
        5,
        OutputFrame {
            first_input: None,
            outcomes: Vec::new(),
            ..archive.frames[3].1.clone()
        },
    ));
    archive.input.push(Vec::new());
    archive.replay().unwrap();
    archive.frames[4].1.last_input = Some(InputMark {
        seq: 1,
        index: 0,
        of: 2,
    });
    assert!(matches!(
        archive.replay(),
        Err(ReplayError::Gap { out_seq: 5, .. })
    ));
}

#[test]
fn entries_that_are_not_archived_are_counted_and_their_outcomes_followed() {
    let mut archive = Archive::new();
    archive.input[3].clear();
    let mut replay = archive.replay().unwrap();
    assert_eq!(differences(&mut replay), []);
    assert_eq!(decided(&replay), (5, 3));
}

#[test]
fn an_archive_without_its_beginning_checks_only_what_it_knows() {
    let mut archive = Archive::new();
    archive.frames.drain(..2);
    archive.input.drain(..2);
    let mut replay = archive.replay().unwrap();
    assert_eq!(differences(&mut replay), []);
    assert!(!replay.coverage().is_complete);
    assert_eq!(decided(&replay), (0, 6));
    assert!(!replay.knows(&ROLLOUT.parse().unwrap()));
    assert_eq!(
        replay.last_input().map(InputMark::next),
        Some(Position { seq: 4, index: 0 })
    );
}
