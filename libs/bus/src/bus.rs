//! The connections of one process and the state that everything on them shares.

mod announcement_faults;
pub(crate) mod backoff;
mod client_constructors;
pub(crate) mod connections;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use nixfleet_proto::Timestamp;
use nixfleet_proto::subject::{Names, Partition};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use crate::bus::announcement_faults::AnnouncementFaults;
use crate::bus::connections::{ConnectError, Connections};
use crate::clock::comparison::ClockComparison;
use crate::config::BusConfig;
use crate::publish::input_log::InputQueues;
use crate::publish::message_ids::MessageIds;
use crate::stream_layout::known_streams::KnownStreams;

/// Longest wait for publishers and leases at shutdown: above the append deadline, below the time after
/// which a supervisor kills the process.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(15);

/// The connections of one process to its fleet's bus; cheap to clone.
#[derive(Clone)]
pub struct Bus {
    inner: Arc<Inner>,
}

struct Inner {
    config: BusConfig,
    name: String,
    names: Names,
    connections: Connections,
    ids: MessageIds,
    clock: Arc<ClockComparison>,
    /// Ends the comparison of clocks with the last clone of the bus.
    _comparing: DropGuard,
    known_streams: KnownStreams,
    tracker: TaskTracker,
    closing: CancellationToken,
    input: Mutex<Weak<InputQueues>>,
    /// Services that refuse membership to this instance, with the reason.
    membership_faults: Mutex<BTreeMap<String, String>>,
    announcement_faults: AnnouncementFaults,
}

impl Bus {
    /// Connects, and waits for a server until the configured deadline. Later the client reconnects without
    /// a limit.
    ///
    /// `client_name` is the service and instance; it appears in the server's connection list and in message
    /// ids.
    pub async fn connect(config: BusConfig, client_name: &str) -> Result<Self, ConnectError> {
        let faults: Vec<_> = config.faults().iter().map(ToString::to_string).collect();
        if !faults.is_empty() {
            return Err(ConnectError::Config(faults.join("; ")));
        }
        let connections = Connections::open(&config, client_name).await?;
        // The client library makes inbox names unique; message ids use the same unique part.
        let inbox = connections.publish.new_inbox();
        let unique = inbox.rsplit('.').next().unwrap_or(&inbox);
        let names = Names::new(config.prefix.clone());
        let logs = Partition::all(config.partitions).map(|partition| names.input_stream(partition));
        let (context, test_file) = (
            connections.consume_js.clone(),
            config.test_clock_file.clone(),
        );
        let clock = Arc::new(ClockComparison::new(context, logs.collect(), test_file));
        let closing = CancellationToken::new();
        let comparing = closing.child_token();
        let inner = Inner {
            names,
            ids: MessageIds::new(client_name, unique),
            name: client_name.to_owned(),
            clock: Arc::clone(&clock),
            _comparing: comparing.clone().drop_guard(),
            connections,
            known_streams: KnownStreams::default(),
            config,
            tracker: TaskTracker::new(),
            closing,
            input: Mutex::new(Weak::new()),
            membership_faults: Mutex::default(),
            announcement_faults: AnnouncementFaults::default(),
        };
        inner.tracker.spawn(clock.run(comparing));
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Names of streams and subjects.
    pub fn names(&self) -> &Names {
        &self.inner.names
    }

    /// Number of partitions of the fleet.
    pub fn partitions(&self) -> u16 {
        self.inner.config.partitions
    }

    /// The keys of a service that distributes the partitions among its members.
    pub fn partition_keys(&self) -> Vec<String> {
        let partitions = Partition::all(self.partitions());
        partitions.map(|partition| partition.to_string()).collect()
    }

    /// The configuration.
    pub fn config(&self) -> &BusConfig {
        &self.inner.config
    }

    /// Checks the connections, the streams and the membership of this instance; used for readiness.
    ///
    /// # Errors
    /// Names the connection that is down, the streams that are not those of this fleet, or the process that
    /// has the same instance name.
    pub fn check(&self) -> Result<(), String> {
        self.inner.connections.check()?;
        self.inner.known_streams.check()?;
        match self.membership_faults().values().next() {
            Some(reason) => Err(reason.clone()),
            None => Ok(()),
        }
    }

    /// The time of this process, with which entries are stamped.
    pub fn now(&self) -> Timestamp {
        self.clock().now()
    }

    /// Whether the clock of this process may stamp entries; used for readiness.
    ///
    /// # Errors
    /// States by how much it differs from the broker's.
    pub fn check_clock(&self) -> Result<(), String> {
        self.clock().check()
    }

    /// Shuts down in order: accepts no new entries, answers all accepted ones, releases leases and flushes
    /// connections.
    pub async fn close(&self) {
        self.inner.closing.cancel();
        self.inner.tracker.close();
        if tokio::time::timeout(CLOSE_TIMEOUT, self.inner.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!("publishers or leases did not end in time");
        }
        self.inner.connections.close().await;
    }

    pub(crate) fn set_membership_fault(&self, service: &str, reason: Option<String>) {
        match reason {
            Some(reason) => self.membership_faults().insert(service.to_owned(), reason),
            None => self.membership_faults().remove(service),
        };
    }

    fn membership_faults(&self) -> MutexGuard<'_, BTreeMap<String, String>> {
        // Every change is one insert or removal, so that a panic elsewhere leaves no partial change.
        let membership_faults = &self.inner.membership_faults;
        membership_faults
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn input_queues(&self) -> MutexGuard<'_, Weak<InputQueues>> {
        // Every change is one assignment, so that a panic elsewhere leaves no partial change.
        let running = &self.inner.input;
        running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn name(&self) -> &str {
        &self.inner.name
    }

    pub(crate) fn connections(&self) -> &Connections {
        &self.inner.connections
    }

    pub(crate) fn known_streams(&self) -> &KnownStreams {
        &self.inner.known_streams
    }

    /// Waits until the streams were checked after the last connection was made.
    pub(crate) async fn wait_verified(&self, deadline: Instant) -> Result<(), String> {
        let connection = *self.connections().publish_made.borrow();
        self.known_streams()
            .wait_verified(connection, deadline)
            .await
    }

    pub(crate) fn clock(&self) -> &ClockComparison {
        &self.inner.clock
    }

    pub(crate) fn announcement_faults(&self) -> &AnnouncementFaults {
        &self.inner.announcement_faults
    }

    pub(crate) fn ids(&self) -> &MessageIds {
        &self.inner.ids
    }

    pub(crate) fn tracker(&self) -> &TaskTracker {
        &self.inner.tracker
    }

    pub(crate) fn closing(&self) -> &CancellationToken {
        &self.inner.closing
    }
}
