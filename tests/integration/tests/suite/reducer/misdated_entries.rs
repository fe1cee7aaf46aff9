//! Entries with a wrong time do not move the time of a partition, whoever wrote them.

use chrono::{TimeDelta, Utc};
use nixfleet_proto::{
    Decision, Entry, EntryBody, HostState, InputFrame, LAYOUT_VERSION, PlanAction, Reason,
};

use super::partition_log::{PartitionLog, count};
use crate::suite::service_testbed::signed_release::{HOSTS, acknowledged};

#[tokio::test]
async fn an_entry_dated_2030_does_not_move_the_clock() {
    let log = PartitionLog::new("misdated").await;
    let mut reducer = log.reducer(0);
    log.open().await;
    // A client with the rights of a gateway or of a planner, whose clock is years off.
    for offset in [TimeDelta::days(1_400), -TimeDelta::days(1_400)] {
        let epoch = u64::MAX >> 1;
        let action = PlanAction::Barrier {};
        let entry = Entry::new(Utc::now() + offset, EntryBody::Plan { epoch, action });
        let frame = InputFrame {
            v: LAYOUT_VERSION,
            entries: vec![entry],
        };
        log.append_raw("plan", serde_json::to_vec(&frame).unwrap())
            .await;
    }
    log.report(1, acknowledged).await;
    let state = log.wait_folded(&reducer).await;
    let clock = state.clock().unwrap();
    assert!(clock < Utc::now() + TimeDelta::seconds(60), "{clock}");
    assert_eq!(count(&log, &state, HostState::Activating), HOSTS as u64);
    let frames = log.frames().await.into_iter();
    let refused: Vec<_> = frames
        .flat_map(|(_, frame)| frame.outcomes)
        .filter_map(|outcome| match outcome.decision {
            Decision::Rejected(rejection) => Some(rejection),
            Decision::Accepted(_) => None,
        })
        .collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert!(
        refused
            .iter()
            .all(|rejection| rejection.reason == Reason::Clock)
    );
    assert!(
        refused[0].message.contains("ahead of the broker's"),
        "{refused:?}"
    );
    assert_eq!(
        reducer.metric("nixfleet_rejections_total{reason=\"clock\"}"),
        2.0
    );
    reducer.stop();
}
