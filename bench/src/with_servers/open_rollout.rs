//! Stage `open`: from a release of a whole fleet to the first dispatch.

use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use nixfleet_bus::{Bus, decode_output};
use nixfleet_harness::{Service, wait_for};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Outcome};
use nixfleet_store::Store;

use super::agent_events::AgentEvents;
use super::control_plane::{ControlPlane, Setting};
use super::https_client::{self, Sender};
use super::load_generator::Agent;
use super::partition_logs::TIMEOUT;
use super::postgres_client::connect;
use super::postgres_client::{copy_in, copy_out};
use super::process_usage::UsageMeter;
use super::release;
use super::{progress, testbed};
use crate::measurements::{Measurement, Target};

/// Hosts of the fleet that has a target.
const JUDGED_HOSTS: usize = 1_000_000;
/// Target of the total in seconds.
const TARGET_SECONDS: f64 = 20.0;
/// Larger fleets are opened once.
const ONCE_ABOVE: usize = 200_000;
/// Services beside the gateway.
const OTHERS: [Service; 5] = [
    Service::Console,
    Service::Applier,
    Service::Eventlog,
    Service::Reducer,
    Service::Planner,
];
/// Size limits for the artifacts of the services and the releases of the gateway.
const LARGEST: &str = "1073741824";
/// Room for the release of a million hosts, and time to take it in.
const SETTINGS: [Setting; 9] = [
    (Service::Ingest, "bus.manifest_max_object_bytes", LARGEST),
    (Service::Applier, "bus.manifest_max_object_bytes", LARGEST),
    (Service::Eventlog, "bus.manifest_max_object_bytes", LARGEST),
    (Service::Reducer, "bus.manifest_max_object_bytes", LARGEST),
    (Service::Planner, "bus.manifest_max_object_bytes", LARGEST),
    (Service::Console, "bus.manifest_max_object_bytes", LARGEST),
    (Service::Console, "releases.body_bytes", LARGEST),
    (Service::Console, "limits.bodies_in_flight_bytes", LARGEST),
    (Service::Console, "http.body_timeout_seconds", "300"),
];
const HOSTS: &str = "nixfleet.host_rollout_records";

/// Seconds from the push of a release until an agent of the first wave holds its dispatch, and hosts
/// opened per second, for every size, smallest first.
///
/// # Errors
/// When a server or program is missing, a release is refused, or the tables lack a host.
pub async fn run(sizes: &[usize], rounds: usize) -> Result<Vec<Measurement>> {
    let mut sizes = sizes.to_vec();
    sizes.sort_unstable();
    let mut measurements = Vec::new();
    for hosts in sizes {
        let rounds = if hosts > ONCE_ABOVE { 1 } else { rounds };
        measurements.extend(of(hosts, rounds).await?);
    }
    Ok(measurements)
}

async fn of(hosts: usize, rounds: usize) -> Result<[Measurement; 2]> {
    let prepared = PreparedRelease::make(hosts)?;
    progress!(
        "open: a release of {hosts} hosts has {} bytes",
        prepared.upload.len()
    );
    let (mut seconds, mut copied, mut notes) = (Vec::new(), Vec::new(), Vec::new());
    for round in 1..=rounds {
        let (took, records, note) = open(&prepared).await?;
        progress!("open, {hosts} hosts {round}/{rounds}: {took:.1} s; {note}");
        seconds.push(took);
        notes.push(note);
        copied.push(baseline(&records, hosts).await?);
        progress!(
            "open, {hosts} hosts {round}/{rounds}: baseline {:.1} s",
            copied[round - 1]
        );
    }
    let rate = |samples: &[f64]| samples.iter().map(|took| hosts as f64 / took).collect();
    let opened = Measurement::new("open", "hosts opened", "hosts/s", rate(&seconds)).of(hosts);
    let held = Measurement::new("open", "from the push to the first dispatch", "s", seconds);
    let held = held.of(hosts).noting(notes);
    Ok([
        if hosts == JUDGED_HOSTS {
            held.target(Target::AtMost(TARGET_SECONDS))
        } else {
            held
        },
        opened.against("COPY of the same records", rate(&copied)),
    ])
}

/// A release that is built, signed and encoded before the measurement.
struct PreparedRelease {
    hosts: usize,
    upload: Bytes,
    first: AgentEvents,
}

impl PreparedRelease {
    /// Builds and signs a release; keeps only the body of its push.
    fn make(hosts: usize) -> Result<Self> {
        let release = release::build(&release::shape_of(hosts))?;
        Ok(Self {
            hosts,
            upload: release::upload(&release)?,
            first: AgentEvents::of(&release.fleet, 0),
        })
    }
}

/// The tables as a COPY writes them.
struct Records {
    hosts: Vec<Bytes>,
}

/// Opens the rollout with all services. Gives the seconds until the dispatch, what the tables hold
/// then, and how the time was spent.
async fn open(prepared: &PreparedRelease) -> Result<(f64, Records, String)> {
    let control_plane = ControlPlane::start_with(&OTHERS, &SETTINGS).await?;
    let bus = control_plane.testbed.bus().await?;
    let store = control_plane.store()?;
    let mut agents = control_plane.agents(vec![prepared.first.clone()]).await?;
    let agent = agents.pop().context("there is no agent")?;
    let operator = control_plane.operator().await?;
    let timeline = Timeline::start(&control_plane)?;
    let ((), (), seconds) = tokio::try_join!(
        push(operator, prepared, &timeline),
        arrive(&bus, &store, &timeline),
        hold(agent, &timeline),
    )?;
    let note = timeline.text()?;
    control_plane.stop()?;
    let records = Records::read(&control_plane.database.url, prepared.hosts).await?;
    store.close();
    bus.close().await;
    Ok((seconds, records, note))
}

async fn push(
    mut operator: Sender,
    prepared: &PreparedRelease,
    timeline: &Timeline<'_>,
) -> Result<()> {
    https_client::publish(&mut operator, prepared.upload.clone()).await?;
    timeline.done("release accepted").map(drop)
}

/// Waits for the rollout in the output log, then for its rows.
async fn arrive(bus: &Bus, store: &Store, timeline: &Timeline<'_>) -> Result<()> {
    let partition = Partition::new(0);
    let seq = opened(bus, partition).await?;
    timeline.done("rollout in the output log")?;
    wait_for("the tables", TIMEOUT, async || {
        let cursor = store.cursor(partition).await?;
        Ok(cursor.filter(|cursor| cursor.out_seq >= seq).map(drop))
    })
    .await?;
    timeline.done("rows in the tables").map(drop)
}

/// The sequence of the frame that opens the rollout.
async fn opened(bus: &Bus, partition: Partition) -> Result<u64> {
    let opens = |outcome: &Outcome| match &outcome.decision {
        Decision::Accepted(accepted) => accepted.opened.is_some(),
        Decision::Rejected(_) => false,
    };
    let mut reader = bus.reader(&bus.names().output_stream(partition), 1);
    loop {
        for message in reader.next_batch(64).await? {
            if decode_output(&message)?.outcomes.iter().any(opens) {
                return Ok(message.seq);
            }
        }
    }
}

async fn hold(mut agent: Agent, timeline: &Timeline<'_>) -> Result<f64> {
    agent.dispatch_within(TIMEOUT).await?;
    timeline.done("first dispatch held")
}

/// Times of the steps, and CPU usage between them.
struct Timeline<'a> {
    control_plane: &'a ControlPlane,
    started: Instant,
    done: Mutex<(UsageMeter, Vec<String>)>,
}

impl<'a> Timeline<'a> {
    fn start(control_plane: &'a ControlPlane) -> Result<Self> {
        Ok(Self {
            control_plane,
            done: Mutex::new((control_plane.meter()?, Vec::new())),
            started: Instant::now(),
        })
    }

    /// Records the end of a step; returns the seconds since the start.
    fn done(&self, step: &str) -> Result<f64> {
        let seconds = self.started.elapsed().as_secs_f64();
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        let line = format!("{step} after {seconds:.2} s, {}", done.0.cores()?);
        progress!("open: {line}");
        done.1.push(line);
        done.0 = self.control_plane.meter()?;
        Ok(seconds)
    }

    fn text(&self) -> Result<String> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        Ok(format!("{}; {}", done.1.join("; "), done.0.memory()?))
    }
}

impl Records {
    /// Reads the tables; every host is there.
    async fn read(url: &str, hosts: usize) -> Result<Self> {
        let client = connect(url).await?;
        let count = format!("SELECT count(*) FROM {HOSTS}");
        let found: i64 = client.query_one(&count, &[]).await?.get(0);
        ensure!(
            usize::try_from(found)? == hosts,
            "the tables have {found} of {hosts} hosts"
        );
        Ok(Self {
            hosts: copy_out(&client, HOSTS).await?,
        })
    }
}

/// Seconds of one COPY of the records into the table of a new database.
async fn baseline(records: &Records, hosts: usize) -> Result<f64> {
    let (database, store) = testbed::create_database().await?;
    store.close();
    let client = connect(&database.url_of(Service::Applier)).await?;
    let started = Instant::now();
    let copied = copy_in(&client, HOSTS, &records.hosts).await?;
    let seconds = started.elapsed().as_secs_f64();
    ensure!(
        usize::try_from(copied)? == hosts,
        "{copied} of {hosts} records were copied"
    );
    Ok(seconds)
}
