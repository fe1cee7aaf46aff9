//! The table: users of the bus and what each may do.

/// A user of the bus; its certificate has the same common name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum BusUser {
    /// The gateway for agents.
    Ingest,
    /// The gateway for people and pipelines.
    Console,
    /// Owns partitions.
    Reducer,
    /// Decides, announces releases, and owns the layout.
    Planner,
    /// Writes the tables.
    Applier,
    /// Archives and trims.
    Eventlog,
    /// Programs of administrators that only read.
    OperatorTools,
}

/// A stream or a group of streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum StreamGroup {
    /// Input logs of all partitions.
    Input,
    /// Output logs of all partitions.
    Output,
    /// Announcements.
    Manifests,
    /// Dead letters.
    DeadLetters,
}

/// A bucket of the object store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ObjectBucket {
    /// Signed artifacts.
    Manifests,
    /// Checkpoints of partitions.
    Checkpoints,
}

/// One thing that a user may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Right {
    /// See size and state of streams, and the constants of the fleet.
    InspectStreams,
    /// Create streams and buckets, and change their limits.
    ManageStreams,
    /// Read messages.
    Read(StreamGroup),
    /// Look up single messages.
    LookUp(StreamGroup),
    /// Append entries of this class to the input logs: `event`, `recovery`, `plan` or `operator`.
    Append(&'static str),
    /// Publish frames to the output logs.
    PublishFrames,
    /// Announce releases and rollout manifests.
    Announce,
    /// Store its own dead letters.
    StoreDeadLetters,
    /// Delete the oldest messages of input and output logs.
    TrimLogs,
    /// Read objects.
    ReadObjects(ObjectBucket),
    /// Write, replace and delete objects.
    WriteObjects(ObjectBucket),
    /// Take and renew leases of its own service.
    HoldLeases,
    /// List members and leases of all services.
    ListLeases,
    /// Send heartbeats of hosts to the owners of partitions.
    RequestHeartbeats,
    /// Answer heartbeats.
    AnswerHeartbeats,
    /// Keep the newest list of revocations that it obeyed.
    KeepRevocationFloor,
    /// Publish last-seen times.
    PublishLiveness,
    /// Receive last-seen times.
    ReceiveLiveness,
}

impl BusUser {
    /// Every user.
    pub const ALL: [Self; 7] = [
        Self::Ingest,
        Self::Console,
        Self::Reducer,
        Self::Planner,
        Self::Applier,
        Self::Eventlog,
        Self::OperatorTools,
    ];

    /// Common name of its certificate.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ingest => "ingest",
            Self::Console => "console",
            Self::Reducer => "reducer",
            Self::Planner => "planner",
            Self::Applier => "applier",
            Self::Eventlog => "eventlog",
            Self::OperatorTools => "operator-tools",
        }
    }

    /// The user that a client name begins with.
    pub fn of_client(client_name: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|user| client_name.starts_with(user.name()))
    }

    /// First token of all inboxes of the user.
    pub fn inbox_prefix(self) -> String {
        format!("_INBOX_{}", self.name())
    }

    /// The table.
    #[expect(clippy::too_many_lines, reason = "one table, read as a whole")]
    pub fn rights(self) -> &'static [Right] {
        use {ObjectBucket as Objects, Right::*, StreamGroup as Streams};
        match self {
            Self::Ingest => &[
                InspectStreams,
                Append("event"),
                RequestHeartbeats,
                Read(Streams::Output),
                Read(Streams::Manifests),
                ReadObjects(Objects::Manifests),
                KeepRevocationFloor,
                StoreDeadLetters,
            ],
            Self::Console => &[
                InspectStreams,
                ListLeases,
                Append("operator"),
                // A sample says who fills a log.
                LookUp(Streams::Input),
                LookUp(Streams::Output),
                KeepRevocationFloor,
                Announce,
                Read(Streams::Manifests),
                ReadObjects(Objects::Manifests),
                WriteObjects(Objects::Manifests),
                StoreDeadLetters,
            ],
            Self::Reducer => &[
                InspectStreams,
                HoldLeases,
                Append("recovery"),
                Read(Streams::Input),
                // Manifests are read before their rollouts open.
                Read(Streams::Manifests),
                PublishFrames,
                Read(Streams::Output),
                ReadObjects(Objects::Manifests),
                ReadObjects(Objects::Checkpoints),
                WriteObjects(Objects::Checkpoints),
                AnswerHeartbeats,
                PublishLiveness,
                StoreDeadLetters,
            ],
            Self::Planner => &[
                InspectStreams,
                ManageStreams,
                HoldLeases,
                Append("plan"),
                Read(Streams::Output),
                Announce,
                Read(Streams::Manifests),
                ReadObjects(Objects::Manifests),
                WriteObjects(Objects::Manifests),
                StoreDeadLetters,
            ],
            Self::Applier => &[
                InspectStreams,
                HoldLeases,
                // The last applied message identifies the log.
                LookUp(Streams::Input),
                Read(Streams::Output),
                ReadObjects(Objects::Manifests),
                ReadObjects(Objects::Checkpoints),
                ReceiveLiveness,
            ],
            Self::Eventlog => &[
                InspectStreams,
                HoldLeases,
                Read(Streams::Input),
                Read(Streams::Output),
                Read(Streams::Manifests),
                Read(Streams::DeadLetters),
                ReadObjects(Objects::Manifests),
                ReadObjects(Objects::Checkpoints),
                TrimLogs,
            ],
            Self::OperatorTools => &[
                InspectStreams,
                Read(Streams::Input),
                Read(Streams::Output),
                Read(Streams::Manifests),
                Read(Streams::DeadLetters),
            ],
        }
    }
}

impl StreamGroup {
    fn text(self) -> &'static str {
        match self {
            Self::Input => "input logs",
            Self::Output => "output logs",
            Self::Manifests => "announcements",
            Self::DeadLetters => "dead letters",
        }
    }
}

impl Right {
    pub(super) fn text(self) -> String {
        match self {
            Self::InspectStreams => "see size and state of streams".to_owned(),
            Self::ManageStreams => "create streams and buckets, change their limits".to_owned(),
            Self::Read(group) => format!("read {}", group.text()),
            Self::LookUp(group) => format!("look up single messages of {}", group.text()),
            Self::Append(class) => format!("append `{class}` entries"),
            Self::PublishFrames => "publish frames to output logs".to_owned(),
            Self::Announce => "announce releases".to_owned(),
            Self::StoreDeadLetters => "store dead letters".to_owned(),
            Self::TrimLogs => "trim input and output logs".to_owned(),
            Self::ReadObjects(ObjectBucket::Manifests) => "read artifacts".to_owned(),
            Self::ReadObjects(ObjectBucket::Checkpoints) => "read checkpoints".to_owned(),
            Self::WriteObjects(ObjectBucket::Manifests) => "write artifacts".to_owned(),
            Self::WriteObjects(ObjectBucket::Checkpoints) => {
                "write and delete checkpoints".to_owned()
            }
            Self::HoldLeases => "hold leases of its service".to_owned(),
            Self::ListLeases => "list members and leases".to_owned(),
            Self::RequestHeartbeats => "send heartbeats to owners".to_owned(),
            Self::AnswerHeartbeats => "answer heartbeats".to_owned(),
            Self::KeepRevocationFloor => {
                "keep the newest list of revocations that it obeyed".to_owned()
            }
            Self::PublishLiveness => "publish last-seen times".to_owned(),
            Self::ReceiveLiveness => "receive last-seen times".to_owned(),
        }
    }
}
