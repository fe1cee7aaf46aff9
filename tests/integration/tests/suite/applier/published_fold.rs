//! A partition that the test folds and publishes as a reducer does, and appliers as processes.

use anyhow::{Context as _, Result};
use bytes::Bytes;
use chrono::Utc;
use nixfleet_bus::OutputLog;
use nixfleet_core::partition::PartitionState;
use nixfleet_harness::{Database, Service, wait_for};
use nixfleet_proto::event::{HostEvent, HostEventBody};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, EntryBody, InputMark, Outcome, OutputFrame, Producer, StoredAt};

use crate::suite::service_testbed::service_process::{ServiceProcess, TIMEOUT};
use crate::suite::service_testbed::signed_release::{
    HOSTS, StoredRelease, acknowledged, channel, completed, hostname,
};
use crate::suite::service_testbed::test_servers::TestServers;

/// The fold of one partition and the position of its output log.
pub struct PublishedFold {
    pub servers: TestServers,
    pub partition: Partition,
    pub state: PartitionState,
    release: StoredRelease,
    out_seq: u64,
    event_seq: u64,
}

impl PublishedFold {
    /// A fleet of one channel whose release is in the object store.
    pub async fn new(name: &str) -> Self {
        let servers = TestServers::start(name, 2).await;
        Self {
            partition: Partition::of(&channel(), 2),
            state: PartitionState::new(),
            release: StoredRelease::store(&servers.bus, "halt").await,
            out_seq: 0,
            event_seq: 0,
            servers,
        }
    }

    pub fn database(&self) -> &Database {
        &self.servers.namespace.database
    }

    /// Publishes turns that open the rollout and dispatch every host.
    pub async fn open(&mut self) {
        self.turn(vec![self.release.open()]).await;
        self.turn(self.release.dispatches().collect()).await;
    }

    /// Publishes a turn in which every host reports; most entries of later turns are rejected.
    pub async fn report(&mut self) {
        self.event_seq += 1;
        let (seq, at) = (self.event_seq, Utc::now());
        let entries = (0..HOSTS).map(|number| {
            let body = match seq % 4 {
                1 => acknowledged(number),
                2 => HostEventBody::ActivationStarted {
                    started_at: at,
                    switch_method: "switch".to_owned(),
                },
                3 => completed(number),
                _ => HostEventBody::ProbeResult {
                    probe_name: "http".into(),
                    mode: Default::default(),
                    status: nixfleet_proto::ProbeStatus::Fail,
                    observed_at: at,
                    failure_reason: Some("a\0b".to_owned()),
                    sub_results: None,
                },
            };
            EntryBody::HostEvent {
                rollout_id: self.release.rollout.clone(),
                hostname: hostname(number).parse().unwrap(),
                producer: Producer::Agent,
                event: HostEvent { seq, body },
            }
        });
        let entries = entries.collect();
        self.turn(entries).await;
    }

    async fn turn(&mut self, bodies: Vec<EntryBody>) {
        let mut outcomes: Vec<Outcome> = Vec::new();
        let input = self.servers.bus.input();
        let entries: Vec<Entry> = bodies
            .into_iter()
            .map(|body| Entry::new(Utc::now(), body))
            .collect();
        let positions = input
            .append_all(self.partition, entries.clone())
            .await
            .unwrap();
        for (position, entry) in positions.iter().zip(&entries) {
            let (stored_at, pinned) = (StoredAt::new(entry.received_at), &self.release.pinned);
            outcomes.push(self.state.apply(*position, stored_at, entry, pinned));
        }
        let last = positions.last().unwrap();
        let frame = OutputFrame {
            first_input: positions.first().copied(),
            last_input: Some(InputMark {
                seq: last.seq,
                index: last.index,
                of: last.index + 1,
            }),
            outcomes,
            ..OutputFrame::new(1)
        };
        let output = self.servers.bus.output(self.partition);
        // Every other frame is stored without compression, as by earlier releases.
        let json = Bytes::from(serde_json::to_vec(&frame).unwrap());
        let payload = if self.out_seq.is_multiple_of(2) {
            OutputLog::encode(json).await.unwrap()
        } else {
            json
        };
        let published = output.publish_stored(payload, self.out_seq, None).await;
        self.out_seq = published.unwrap().seq;
    }

    /// Starts an applier.
    pub fn applier(&self, number: usize) -> ServiceProcess {
        let own = [
            ("database.owner_url", self.database().url.clone()),
            ("turn.check_seconds", "1".to_owned()),
        ];
        let servers = &self.servers;
        servers.start_service(Service::Applier, &number.to_string(), &own)
    }

    /// Waits until the tables give the state of the fold.
    pub async fn wait_applied(&self, applier: &ServiceProcess) {
        let applied = wait_for("the tables equal the fold", TIMEOUT, async || {
            self.compare().await
        });
        if let Err(error) = applied.await {
            panic!("{error:#}\n{}", applier.tail());
        }
    }

    async fn compare(&self) -> Result<Option<()>> {
        let snapshot = self.servers.store.load_partition(self.partition).await?;
        let covered = snapshot.cursor.as_ref().map(|cursor| cursor.out_seq);
        if covered != Some(self.out_seq) {
            anyhow::bail!("the cursor is at {covered:?}, the log at {}", self.out_seq);
        }
        let restored =
            PartitionState::restore(snapshot, &self.release.pinned).context("restoring")?;
        anyhow::ensure!(
            restored.hash() == self.state.hash(),
            "{restored:#?}\n{:#?}",
            self.state
        );
        anyhow::ensure!(restored == self.state, "positions differ");
        Ok(Some(()))
    }
}
