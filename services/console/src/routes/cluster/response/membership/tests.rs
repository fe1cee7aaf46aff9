use nixfleet_bus::LogUsage;
use nixfleet_bus::lease::{InstanceId, LeaseRecord, MemberRecord, Record, RecordKey, RecordView};
use nixfleet_proto::{InputMark, OutputFrame};

use nixfleet_store::ArchiveMark;

use super::*;

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_timestamp(seconds, 0).unwrap()
}

fn writer(instance: &str) -> InstanceId {
    InstanceId {
        instance: instance.to_owned(),
        process: format!("{instance}/1"),
    }
}

fn member(service: &str, instance: &str) -> RecordView {
    let record = MemberRecord {
        writer: writer(instance),
        renewal: 1,
        version: "0.1.0".to_owned(),
        since: at(10),
        ttl_seconds: 10,
        declines: BTreeSet::new(),
    };
    RecordView {
        service: service.to_owned(),
        key: RecordKey::member(instance),
        record: Some(Record::Member(record)),
        written_at: at(99),
    }
}

fn lease(service: &str, key: &str, instance: &str) -> RecordView {
    let record = LeaseRecord {
        writer: writer(instance),
        renewal: 1,
        ttl_seconds: Some(10),
        epoch: Some(7),
        held: std::collections::BTreeSet::new(),
    };
    RecordView {
        service: service.to_owned(),
        key: RecordKey::lease(key),
        record: Some(Record::Lease(record)),
        written_at: at(99),
    }
}

fn membership(records: Vec<RecordView>) -> Membership {
    Membership::new(at(100), &["00".to_owned(), "01".to_owned()], records)
}

fn problems(records: Vec<RecordView>) -> Vec<(String, &'static str)> {
    let membership = membership(records);
    let problems = membership.problems.into_iter();
    problems
        .map(|problem| (format!("{} {}", problem.service, problem.key), problem.code))
        .collect()
}

fn healthy() -> Vec<RecordView> {
    let mut records: Vec<_> = SERVICES.map(|service| member(service, "a")).into();
    for service in BY_PARTITION {
        records.extend(["00", "01"].map(|key| lease(service, key, "a")));
    }
    records.push(lease("eventlog", "shared", "a"));
    records.push(lease("planner", "leader", "a"));
    records
}

fn log(number: u16) -> Log {
    let fill = LogUsage {
        created: at(1),
        first_seq: 1,
        last_seq: 20,
        messages: 20,
        bytes: 300,
        max_bytes: 1_000,
    };
    let frame = OutputFrame {
        last_input: Some(InputMark {
            seq: 18,
            index: 0,
            of: 2,
        }),
        ..OutputFrame::new(4)
    };
    Log {
        sources: Vec::new(),
        partition: Partition::new(number),
        input: (format!("IN_{number}"), Some(fill)),
        output: (format!("OUT_{number}"), Some(fill)),
        last: Some(Some(LastFrame {
            seq: 20,
            msg_id: None,
            frame,
        })),
    }
}

#[test]
fn a_healthy_cluster_has_no_problems() {
    assert_eq!(problems(healthy()), []);
}

#[test]
fn what_is_not_right_is_named() {
    let mut records = healthy();
    records.retain(|view| view.service != "planner");
    records
        .retain(|view| (view.service.as_str(), &view.key) != ("applier", &RecordKey::lease("01")));
    records.push(lease("reducer", "01", "gone"));
    records.push(lease("reducer", "09", "a"));
    let mut stale = lease("eventlog", "00", "a");
    stale.written_at = at(80);
    records.push(stale);
    let mut unreadable = lease("applier", "00", "a");
    unreadable.record = None;
    records.push(unreadable);
    let expected = [
        ("eventlog 00", "stale"),
        ("applier 00", "unreadable"),
        ("reducer 01", "orphaned"),
        ("reducer 09", "unknown-key"),
        ("applier 01", "vacant"),
        ("planner ", "no-members"),
    ];
    assert_eq!(
        problems(records),
        expected.map(|(place, code)| (place.to_owned(), code))
    );
}

#[test]
fn a_lease_of_an_earlier_process_is_an_orphan() {
    let mut records = healthy();
    let mut old = lease("reducer", "00", "a");
    if let Some(Record::Lease(record)) = &mut old.record {
        record.writer.process = "a/0".to_owned();
    }
    records.push(old);
    assert_eq!(problems(records), [("reducer 00".to_owned(), "orphaned")]);
}

#[test]
fn lags_are_counted_from_what_was_read() {
    let archived = BTreeMap::from([(
        "IN_0".to_owned(),
        ArchiveMark {
            sequence: 15,
            stream_created: at(1),
        },
    )]);
    let archive = Archive {
        archived: Some(archived),
        shared: Vec::new(),
    };
    let cluster = membership(healthy()).cluster(vec![log(0)], Some(BTreeMap::new()), archive);
    let view = &cluster.partitions[0];
    // The last message is folded in part, nothing is applied, one log is archived in part.
    assert_eq!(view.epoch, Some(4));
    assert_eq!(
        (view.folded_input_seq, view.input_lag_messages),
        (Some(17), Some(3))
    );
    assert_eq!(view.output_lag_messages, Some(20));
    assert_eq!(view.archive_lag_messages, Some(5 + 20));
    let leader = cluster.leader.unwrap();
    assert_eq!((leader.instance.as_str(), leader.epoch), ("a", Some(7)));
}

#[test]
fn what_was_not_read_is_unknown() {
    let mut log = log(0);
    log.input.1 = None;
    log.last = None;
    let archive = Archive {
        archived: None,
        shared: Vec::new(),
    };
    let cluster = membership(Vec::new()).cluster(vec![log], None, archive);
    let view = serde_json::to_value(&cluster.partitions[0]).unwrap();
    for key in [
        "epoch",
        "inputSeq",
        "foldedInputSeq",
        "inputLagMessages",
        "appliedOutputSeq",
        "outputLagMessages",
        "archiveLagMessages",
    ] {
        assert!(view[key].is_null(), "{key}: {view}");
    }
    assert_eq!(view["outputSeq"], 20);
    assert!(view["owners"]["reducer"].is_null());
    assert!(cluster.leader.is_none());
}

#[test]
fn a_log_that_fills_is_a_problem_and_says_who_holds_it_back() {
    let mut filling = log(0);
    if let Some(fill) = &mut filling.output.1 {
        fill.bytes = 710;
    }
    let cursor = Cursor {
        out_seq: 20,
        ..Cursor::empty(at(1))
    };
    let archive = Archive {
        archived: Some(BTreeMap::new()),
        shared: Vec::new(),
    };
    let cursors = BTreeMap::from([(Partition::new(0), cursor)]);
    let cluster = membership(healthy()).cluster(vec![filling], Some(cursors), archive);
    let problem = &cluster.problems[0];
    assert_eq!(cluster.problems.len(), 1);
    assert_eq!((problem.code, problem.key.as_str()), ("log-filling", "00"));
    let message = &problem.message;
    assert!(
        message.starts_with("OUT_0 is 71 % full, held back by checkpoint;"),
        "{message}"
    );
    let view = cluster.partitions[0].output_log.clone().unwrap();
    assert_eq!((view.percent, view.held_by), (71, Some("checkpoint")));
}
