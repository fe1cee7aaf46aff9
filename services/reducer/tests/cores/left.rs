//! The record of a host is said once in a frame, and each frame is enough to follow the log so far.

use std::collections::BTreeMap;

use nixfleet_core::partition::PartitionState;
use nixfleet_proto::record_deduplication::drop_repeated_records;
use nixfleet_proto::{
    Entry, EntryBody, HostEvent, HostEventBody, OutputFrame, Position, ProbeStatus, Producer,
};
use nixfleet_reducer::{LogBytes, Owner, OwnerConfig};

use crate::world::{CONFIG, World, acknowledged, at, fetched, id, opening, pinned};

const ROLLOUT: &str = "stable@4f";
const RESULTS: u64 = 20;

fn report(host: &str, seq: u64, body: HostEventBody) -> Entry {
    let event = EntryBody::HostEvent {
        rollout_id: id(ROLLOUT),
        hostname: host.into(),
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

/// Two hosts that drain their queues; every fifth event comes a second time.
fn world() -> World {
    let drained = |host: &'static str| {
        let results = (3..=RESULTS).map(move |seq| result(host, seq - u64::from(seq % 5 == 0)));
        [acknowledged(ROLLOUT, host), completed(host)]
            .into_iter()
            .chain(results)
    };
    let [first, second] = ["a", "b"].map(drained);
    World::of(std::iter::once(opening(ROLLOUT)).chain(first).chain(second))
}

/// The frames of one run each limit, with the state that their owner ended with.
fn frames(frame_bytes: usize) -> (Vec<OutputFrame>, PartitionState) {
    let mut world = world();
    let config = OwnerConfig {
        frame_bytes,
        ..CONFIG
    };
    let mut owner = Owner::new(world.take_over().unwrap(), LogBytes::default(), config);
    let items = (1..)
        .zip(&world.input)
        .map(|(seq, entry)| world.item(seq, entry.clone()));
    owner.take(items.collect(), 1);
    while let Some(hash) = owner.lacking().cloned() {
        owner.give(hash.clone(), fetched(&hash)).unwrap();
    }
    let mut frames = Vec::new();
    while owner.fold().is_some() {
        owner.write();
        while let Some(publish) = owner.outbox().publish() {
            let folded = &publish.folded;
            let written: OutputFrame = serde_json::from_slice(&folded.payload).unwrap();
            assert_eq!(written, folded.frame);
            assert!(folded.payload.len() <= frame_bytes || folded.entries == 1);
            frames.push(written);
            owner.outbox().published(Ok(publish.expected + 1)).unwrap();
        }
    }
    (frames, owner.state().clone())
}

/// Hashes of the state by the last position folded.
fn hashes() -> BTreeMap<Position, String> {
    let world = world();
    let mut state = PartitionState::new();
    let entries = (1..).zip(&world.input);
    let hashes = entries.map(|(seq, entry)| {
        let position = Position { seq, index: 0 };
        state.apply(position, entry, &pinned());
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
    let places = frame.outcomes.iter().enumerate();
    let with_records = places.filter(|(_, outcome)| !outcome.decision.host_records().is_empty());
    let with_records: Vec<_> = with_records.map(|(place, _)| place).collect();
    // Behind barrier and opening; the last event of each host repeats one before it and is refused.
    let drained = RESULTS as usize;
    assert_eq!(with_records, [drained, 2 * drained]);
}

#[test]
fn wherever_a_run_is_cut_each_frame_leads_to_the_state_behind_it() {
    let hashes = hashes();
    let whole = frames(usize::MAX).0[0].clone();
    let largest = serde_json::to_vec(&whole).unwrap().len() + 2_048;
    let (mut cuts, mut left) = (0, 0);
    for frame_bytes in (1_100..largest).step_by(331) {
        let (frames, owner) = frames(frame_bytes);
        let mut state = PartitionState::new();
        for frame in &frames {
            let mut again = frame.outcomes.clone();
            assert!(!drop_repeated_records(&mut again), "a record is said twice");
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
        "{cuts} cut, {left} left records out"
    );
}
