use nixfleet_proto::RolloutId;
use serde_json::json;

use super::*;
use crate::test_release::{build_from, source, source_with, stamp, verified};

fn never(_: &RolloutId) -> bool {
    false
}

/// A release of a commit with one changed closure, signed at this second.
fn release(commit: &str, second: u32) -> Release {
    let mut stamp = stamp(&format!("2026-05-01T11:58:{second:02}Z"));
    stamp.commit = Some(commit.to_owned());
    let source = match commit {
        "aa01" => source(),
        _ => source_with("/hosts/lab-01/closureHash", json!(commit)),
    };
    verified(&build_from(&source, &stamp).bundle)
}

fn faults(raised: Result<Newest, NotNewer>) -> Vec<&'static str> {
    let refused = raised.expect_err("refused");
    refused.faults.iter().map(Fault::name).collect()
}

#[test]
fn an_earlier_release_never_replaces_a_later_one() {
    let mut floor = ReleaseFloor::default();
    assert_eq!(floor.accepted(), None);
    floor.raise(&release("aa01", 10), &never).unwrap();
    let newest = floor.raise(&release("bb02", 20), &never).unwrap();
    assert_eq!(faults(floor.raise(&release("aa01", 10), &never)), ["older"]);
    // The same one again, and the same content signed again.
    assert_eq!(floor.raise(&release("bb02", 20), &never), Ok(newest));
    floor.raise(&release("bb02", 30), &never).unwrap();
    assert_eq!(faults(floor.raise(&release("bb02", 20), &never)), ["older"]);
}

#[test]
fn of_two_releases_of_one_instant_the_first_stays() {
    let mut floor = ReleaseFloor::default();
    floor.raise(&release("aa01", 10), &never).unwrap();
    assert_eq!(faults(floor.raise(&release("bb02", 10), &never)), ["older"]);
}

#[test]
fn a_release_with_a_superseded_rollout_is_refused_without_a_memory_of_its_successor() {
    let mut floor = ReleaseFloor::default();
    let is_superseded = |id: &RolloutId| id.as_str() == "stable@aa01";
    let refused = faults(floor.raise(&release("aa01", 50), &is_superseded));
    assert_eq!(refused, ["superseded"]);
    assert_eq!(floor.accepted(), None);
    floor.raise(&release("bb02", 20), &is_superseded).unwrap();
}
