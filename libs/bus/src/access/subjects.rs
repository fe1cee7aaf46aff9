//! The subjects behind the rights of a user.

use std::collections::BTreeSet;

use nixfleet_proto::subject::{Names, Partition, escape};

use super::rights::{BusUser, ObjectBucket, Right, StreamGroup};

/// The names of one fleet.
#[derive(Debug, Clone)]
pub(super) struct Fleet {
    pub(super) names: Names,
    pub(super) partitions: u16,
}

impl Fleet {
    pub(super) fn api_prefix(&self) -> String {
        format!("JS.{}", self.names.prefix())
    }

    /// Answered with one message for each key.
    pub(super) fn lease_listing(&self) -> String {
        format!("$JS.API.DIRECT.GET.KV_{}", self.names.lease_bucket())
    }

    /// JetStream's API has another prefix in the users' accounts: each account answers its own `$JS.API` with
    /// an error.
    pub(super) fn as_imported(&self, subject: &str) -> String {
        match subject.strip_prefix("$JS.API.") {
            Some(rest) => format!("{}.{rest}", self.api_prefix()),
            None => subject.to_owned(),
        }
    }
}

/// Subjects of one user, in the account of the streams.
#[derive(Debug, Default)]
pub(super) struct Subjects {
    /// Answered by the account of the streams.
    pub(super) requests: BTreeSet<String>,
    /// Answered by another user.
    pub(super) calls: Vec<(BusUser, String)>,
    /// Answered by this user, with the user who asks.
    pub(super) serves: Vec<(BusUser, String)>,
    /// The server pushes messages to the user's inboxes.
    pub(super) is_pushed_to: bool,
}

impl Subjects {
    pub(super) fn of(fleet: &Fleet, user: BusUser) -> Self {
        let mut subjects = Self::default();
        for right in user.rights() {
            subjects.add(fleet, user, *right);
        }
        subjects
    }

    fn add(&mut self, fleet: &Fleet, user: BusUser, right: Right) {
        let names = &fleet.names;
        let prefix = names.prefix();
        match right {
            Right::InspectStreams => self.request([
                "$JS.API.STREAM.INFO.*".to_owned(),
                format!("$JS.API.STREAM.MSG.GET.KV_{}", names.meta_bucket()),
            ]),
            Right::ManageStreams => self.request([
                // The client library asks it before it creates a bucket.
                "$JS.API.INFO".to_owned(),
                "$JS.API.STREAM.CREATE.*".to_owned(),
                "$JS.API.STREAM.UPDATE.*".to_owned(),
                format!("$KV.{}.>", names.meta_bucket()),
            ]),
            Right::Read(group) => {
                for stream in streams(fleet, group) {
                    self.read(&stream);
                }
            }
            Right::LookUp(group) => {
                let streams = streams(fleet, group).into_iter();
                self.request(streams.map(|stream| format!("$JS.API.STREAM.MSG.GET.{stream}")));
            }
            Right::Append(class) => self.request([format!("{prefix}.in.*.{class}.>")]),
            Right::PublishFrames => self.request([format!("{prefix}.out.*.*")]),
            Right::Announce => self.request([names.manifest_wildcard()]),
            Right::StoreDeadLetters => self.request([names.dead_of(user.name())]),
            Right::TrimLogs => {
                for group in [StreamGroup::Input, StreamGroup::Output] {
                    let streams = streams(fleet, group).into_iter();
                    self.request(streams.map(|stream| format!("$JS.API.STREAM.PURGE.{stream}")));
                }
            }
            Right::ReadObjects(bucket) => {
                let stream = format!("OBJ_{}", bucket_name(fleet, bucket));
                self.request([
                    format!("$JS.API.STREAM.MSG.GET.{stream}"),
                    format!("$JS.API.DIRECT.GET.{stream}"),
                    format!("$JS.API.DIRECT.GET.{stream}.>"),
                ]);
            }
            Right::WriteObjects(bucket) => {
                let bucket = bucket_name(fleet, bucket);
                self.request([
                    format!("$O.{bucket}.C.*"),
                    format!("$O.{bucket}.M.*"),
                    format!("$JS.API.STREAM.PURGE.OBJ_{bucket}"),
                ]);
                // Objects are listed before obsolete ones are deleted.
                self.watch(&format!("OBJ_{bucket}"));
            }
            Right::HoldLeases => {
                let (bucket, service) = (names.lease_bucket(), escape(user.name()));
                self.request([
                    format!("$KV.{bucket}.member.{service}.>"),
                    format!("$KV.{bucket}.lease.{service}.>"),
                    format!("$JS.API.STREAM.MSG.GET.KV_{bucket}"),
                ]);
                self.watch(&format!("KV_{bucket}"));
            }
            Right::ListLeases => self.request([fleet.lease_listing()]),
            Right::RequestHeartbeats => self
                .calls
                .push((BusUser::Reducer, format!("{prefix}.hb.*"))),
            Right::AnswerHeartbeats => self
                .serves
                .push((BusUser::Ingest, format!("{prefix}.hb.*"))),
            Right::KeepRevocationFloor => self.request([revocation_floor(names, user)]),
            Right::PublishLiveness => self.calls.push((BusUser::Applier, names.liveness())),
            Right::ReceiveLiveness => self.serves.push((BusUser::Reducer, names.liveness())),
        }
    }

    fn request(&mut self, subjects: impl IntoIterator<Item = String>) {
        self.requests.extend(subjects);
    }

    /// Consumers of a stream, and single messages.
    fn read(&mut self, stream: &str) {
        self.consume(stream);
        self.request([
            format!("$JS.API.CONSUMER.MSG.NEXT.{stream}.>"),
            format!("$JS.API.STREAM.MSG.GET.{stream}"),
        ]);
    }

    /// Consumers whose messages the server pushes.
    fn watch(&mut self, stream: &str) {
        self.consume(stream);
        self.request([format!("$JS.FC.{stream}.>")]);
        self.is_pushed_to = true;
    }

    fn consume(&mut self, stream: &str) {
        self.request([
            format!("$JS.API.CONSUMER.CREATE.{stream}"),
            format!("$JS.API.CONSUMER.CREATE.{stream}.>"),
            format!("$JS.API.CONSUMER.DELETE.{stream}.>"),
            format!("$JS.API.CONSUMER.INFO.{stream}.>"),
        ]);
    }
}

fn streams(fleet: &Fleet, group: StreamGroup) -> Vec<String> {
    let names = &fleet.names;
    let partitions = || Partition::all(fleet.partitions);
    match group {
        StreamGroup::Input => partitions().map(|at| names.input_stream(at)).collect(),
        StreamGroup::Output => partitions().map(|at| names.output_stream(at)).collect(),
        StreamGroup::Manifests => vec![names.manifest_stream()],
        StreamGroup::DeadLetters => vec![names.dead_stream()],
    }
}

fn revocation_floor(names: &Names, user: BusUser) -> String {
    let bucket = names.meta_bucket();
    format!("$KV.{bucket}.floor.revocations.{}", user.name())
}

fn bucket_name(fleet: &Fleet, bucket: ObjectBucket) -> String {
    match bucket {
        ObjectBucket::Manifests => fleet.names.manifest_bucket(),
        ObjectBucket::Checkpoints => fleet.names.checkpoint_bucket(),
    }
}
