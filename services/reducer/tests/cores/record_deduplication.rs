//! A frame has the record of each host once, and each frame is enough to follow the log up to its
//! end.

use std::collections::BTreeMap;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::{
    Entry, EntryBody, HostEvent, HostEventBody, OutputFrame, Position, ProbeStatus, Producer,
    StoredAt,
};
use nixfleet_reducer::{LogBytes, Owner, OwnerConfig};

use crate::simulated_partition::{
    CONFIG, SimulatedPartition, acknowledged, at, fetched, id, opening, pinned,
};

const ROLLOUT: &str = "stable@4f";
const RESULTS: u64 = 20;

fn report(host: &str, seq: u64, body: HostEventBody) -> Entry {
    let event = EntryBody::HostEvent {
        rollout_id: id(ROLLOUT),
        hostname: host.parse().unwrap(),
        producer: Producer::Agent,
        event: HostEvent { seq, body },
    };
    Entry::new(at(3), event)
}

fn completed(host: &str) -> Entry {
    let body = HostEventBody::ActivationCompleted {
        observed_current_closure: format!("target-{host}").into(),
        exit_code: 0,
        completed_at: at(3),
    };
    report(host, 2, body)
}

fn result(host: &str, seq: u64) -> Entry {
    let body = HostEventBody::ProbeResult {
        probe_name: format!("probe-{}", seq % 3).into(),
        mode: Default::default(),
        status: ProbeStatus::Pass,
        observed_at: at(3),
        failure_reason: None,
        sub_results: None,
    };
    report(host, seq, body)
}

/// Two hosts that send their queued events; every fifth event is sent twice.
fn partition() -> SimulatedPartition {
    let drained = |host: &'static str| {
        let results = (3..=RESULTS).map(move |seq| result(host, seq - u64::from(seq % 5 == 0)));
        [acknowledged(ROLLOUT, host), completed(host)]
            .into_iter()
            .chain(results)
    };
    let [first, second] = ["a", "b"].map(drained);
    SimulatedPartition::of(std::iter::once(opening(ROLLOUT)).chain(first).chain(second))
}

/// The frames of the log under a size limit, and the final state of their owner.
fn frames(frame_bytes: usize) -> (Vec<OutputFrame>, PartitionState) {
    let mut partition = partition();
    let config = OwnerConfig {
        frame_bytes,
        ..CONFIG
    };
    let mut owner = Owner::new(partition.take_over().unwrap(), LogBytes::default(), config);
    let items = (1..)
        .zip(&partition.input)
        .map(|(seq, entry)| partition.item(seq, entry.clone()));
    owner.take(items.collect(), 1);
    while let Some(hash) = owner.missing_manifest().cloned() {
        owner.add_manifest(hash.clone(), fetched(&hash)).unwrap();
    }
    let mut frames = Vec::new();
    while owner.fold().is_some() {
        owner.write();
        while let Some(publish) = owner.publish_queue().publish() {
            let folded = &publish.built;
            let written: OutputFrame = serde_json::from_slice(&folded.payload).unwrap();
            assert_eq!(written, folded.frame);
            assert!(folded.payload.len() <= frame_bytes || folded.entries == 1);
            frames.push(written);
            owner
                .publish_queue()
                .published(Ok(publish.expected + 1))
                .unwrap();
        }
    }
    (frames, owner.state().clone())
}

/// State hashes by the last folded position.
fn hashes() -> BTreeMap<Position, String> {
    let partition = partition();
    let mut state = PartitionState::new();
    let entries = (1..).zip(&partition.input);
    let hashes = entries.map(|(seq, entry)| {
        let position = Position { seq, index: 0 };
        state.apply(position, StoredAt::new(entry.received_at), entry, &pinned());
        (position, state.hash())
    });
    hashes.collect()
}

fn records(frame: &OutputFrame) -> usize {
    let outcomes = frame.outcomes.iter();
    outcomes
        .map(|outcome| outcome.decision.host_records().len())
        .sum()
}

#[test]
fn a_frame_has_the_record_of_a_host_once() {
    let (frames, _) = frames(usize::MAX);
    let [frame] = &*frames else {
        panic!("{} frames", frames.len());
    };
    assert_eq!(frame.outcomes.len(), 2 + 2 * RESULTS as usize);
    let indexed = frame.outcomes.iter().enumerate();
    let with_records = indexed.filter(|(_, outcome)| !outcome.decision.host_records().is_empty());
    let with_records: Vec<_> = with_records.map(|(index, _)| index).collect();
    // Behind barrier and opening. The last event of each host is a duplicate and is rejected.
    let drained = RESULTS as usize;
    assert_eq!(with_records, [drained, 2 * drained]);
}

#[test]
fn each_frame_of_any_size_leads_to_the_state_at_its_end() {
    let hashes = hashes();
    let complete = frames(usize::MAX).0[0].clone();
    let largest = serde_json::to_vec(&complete).unwrap().len() + 2_048;
    let (mut cuts, mut left) = (0, 0);
    for frame_bytes in (1_100..largest).step_by(331) {
        let (frames, owner) = frames(frame_bytes);
        let mut state = PartitionState::new();
        for frame in &frames {
            let mut again = frame.outcomes.clone();
            assert!(
                !drop_repeated_records(&mut again),
                "a record is in the frame twice"
            );
            for outcome in &frame.outcomes {
                state.apply_outcome(outcome, &pinned()).unwrap();
            }
            let last = frame.last_input.unwrap();
            let position = Position {
                seq: last.seq,
                index: last.index,
            };
            assert_eq!(
                state.hash(),
                hashes[&position],
                "{frame_bytes} bytes, {position:?}"
            );
        }
        assert_eq!(state, owner, "{frame_bytes} bytes");
        let outcomes: usize = frames.iter().map(|frame| frame.outcomes.len()).sum();
        assert_eq!(outcomes, hashes.len());
        cuts += usize::from(frames.len() > 1);
        left += usize::from(frames.iter().map(records).sum::<usize>() < outcomes / 2);
    }
    assert!(
        cuts > 10 && left > 10,
        "{cuts} were cut, {left} omitted records"
    );
}
