//! Stage `end-to-end`: events from agents through gateway and reducer to tables and archive.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use nixfleet_bus::Bus;
use nixfleet_harness::{Service, wait_for};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, Minutes, PlanAction};
use nixfleet_store::Store;

use super::agent_events::AgentEvents;
use super::control_plane::ControlPlane;
use super::ingest::{ARRAY, Kind, SINGLE};
use super::load_generator::{self, LoadPlan};
use super::partition_logs::{self, TIMEOUT};
use super::release::{self, Release};
use super::{Options, progress};
use crate::measurements::{Measurement, Target};
use crate::synthetic_fleet::SOAK_MINUTES;
use crate::workload::Workload;

/// Hosts at most: each has a certificate and a connection.
const HOSTS_MAX: usize = 1_000;
/// Events in transit: every agent has one open request, up to the size of the gateway's queue for a
/// partition (`bus.input_queue_entries`).
const EVENTS_AT_ONCE: usize = 12_800;
/// Least events per second, one per request and in arrays.
const TARGETS: [(Kind, f64); 2] = [(SINGLE, 10_000.0), (ARRAY, 40_000.0)];

/// Events per second from the first request until the last event is in the tables and in the archive,
/// compared with the slowest single stage.
///
/// # Errors
/// When a server or program is missing, an event does not arrive, or a stage has no measurement.
pub async fn run(options: Options, alone: &[Measurement]) -> Result<Vec<Measurement>> {
    let hosts = options.hosts.min(HOSTS_MAX);
    let release = release::build(&release::shape_of(hosts))?;
    let mut measurements = Vec::new();
    for (kind, target) in TARGETS {
        let slowest = slowest(kind, alone)?;
        let baseline = format!("the slowest stage alone, {}", slowest.stage);
        let (mut rates, mut notes) = (Vec::new(), Vec::new());
        for round in 1..=options.rounds {
            let (rate, note) = measure(kind, &release, options).await?;
            progress!(
                "end-to-end, {} per request {round}/{}: {rate:.0} events/s; {note}",
                kind.events,
                options.rounds
            );
            rates.push(rate);
            notes.push(note);
        }
        let name = format!("{} events per request, to tables and archive", kind.events);
        let slowest = vec![slowest.rate; rates.len()];
        let measurement = Measurement::new("end-to-end", name, "events/s", rates).of(hosts);
        let measurement = measurement.against(baseline, slowest).noting(notes);
        measurements.push(measurement.target(Target::AtLeast(target)));
    }
    Ok(measurements)
}

/// A stage that an event passes, by itself.
#[derive(Debug, Clone, Copy, PartialEq)]
struct StageRate {
    stage: &'static str,
    rate: f64,
}

/// The stage of the event path with the lowest rate.
fn slowest(kind: Kind, measurements: &[Measurement]) -> Result<StageRate> {
    // Stage, unit of its rate, and how much of it an event makes: the archive has its entry and its
    // outcome, and the frames, of which there are few.
    let way = [
        (kind.stage, "events/s", 1.0),
        ("reducer", "entries/s", 1.0),
        ("applier", "entries/s", 1.0),
        ("eventlog", "items/s", 2.0),
    ];
    let rates = way.map(|(stage, unit, per_event)| {
        let mut measurements = measurements.iter();
        let measurement =
            measurements.find(|measurement| measurement.stage == stage && measurement.unit == unit);
        let measurement =
            measurement.with_context(|| format!("{stage} was not measured in this run"))?;
        let rate = measurement.value / per_event;
        Ok(StageRate { stage, rate })
    });
    let rates: Vec<StageRate> = rates.into_iter().collect::<Result<_>>()?;
    let least = rates.into_iter().min_by(|a, b| a.rate.total_cmp(&b.rate));
    least.context("an event passes no stage")
}

async fn measure(kind: Kind, release: &Release, options: Options) -> Result<(f64, String)> {
    let control_plane =
        ControlPlane::start(&[Service::Applier, Service::Eventlog, Service::Reducer]).await?;
    let bus = control_plane.testbed.bus().await?;
    control_plane.announce(release).await?;
    dispatch(&bus, release).await?;
    let store = control_plane.store()?;
    arrived(&bus, &store).await?;
    let hosts = 0..release.fleet.len();
    let events = hosts
        .map(|number| AgentEvents::of(&release.fleet, number))
        .collect();
    let mut agents = control_plane.agents(events).await?;
    let plan = LoadPlan {
        events: kind.events,
        time: Duration::from_secs(options.seconds),
        rate: None,
    };
    let at_once = EVENTS_AT_ONCE / kind.events;
    let meter = control_plane.meter()?;
    let started = Instant::now();
    let load_result = load_generator::run(&mut agents, at_once, plan).await?;
    let answered = started.elapsed();
    arrived(&bus, &store).await?;
    let whole = started.elapsed();
    let note = format!(
        "acknowledged within {:.1} s, applied and archived within {:.1} s; {}",
        answered.as_secs_f64(),
        whole.as_secs_f64(),
        meter.cores()?
    );
    let sent: u64 = agents.iter().map(|agent| agent.events().sent()).sum();
    ensure!(
        sent == (load_result.requests * kind.events) as u64,
        "{sent} events were sent, {} requests succeeded",
        load_result.requests
    );
    check(&control_plane, &agents).await?;
    drop(agents);
    control_plane.stop()?;
    store.close();
    bus.close().await;
    Ok((sent as f64 / whole.as_secs_f64(), note))
}

/// Opens the rollout and dispatches every host, as a planner does.
async fn dispatch(bus: &Bus, release: &Release) -> Result<()> {
    let fleet = &release.fleet;
    let partition = Partition::of(&fleet.rollout_id.channel(), bus.partitions());
    let mut entries: Vec<Entry> = Workload::opening_entries(fleet).into();
    entries.extend(fleet.pinned.host_set.iter().map(|host| {
        Workload::plan_entry(PlanAction::QueueDispatch {
            hostname: host.hostname.clone(),
            rollout_id: fleet.rollout_id.clone(),
            target_closure: host.target_closure.clone(),
            soak_minutes: Minutes::from_minutes(SOAK_MINUTES),
        })
    }));
    let appended = bus.input().append_all(partition, entries).await;
    appended.context("dispatching the hosts")?;
    Ok(())
}

/// Waits until tables and archive are at the end of the input log.
async fn arrived(bus: &Bus, store: &Store) -> Result<()> {
    let partition = Partition::new(0);
    let input = bus.names().input_stream(partition);
    let output = bus.names().output_stream(partition);
    let end = bus.stream_identity(&input).await?.last_seq;
    wait_for("tables and archive", TIMEOUT, async || {
        tokio::time::sleep(partition_logs::POLL_INTERVAL).await;
        let cursor = store.cursor(partition).await?;
        let Some(cursor) = cursor.filter(|cursor| cursor.input.is_some_and(|mark| mark.seq >= end))
        else {
            return Ok(None);
        };
        let cursors = store.archive_cursors().await?;
        let at = |stream: &String| cursors.get(stream).map_or(0, |mark| mark.sequence);
        Ok((at(&input) >= end && at(&output) >= cursor.out_seq).then_some(()))
    })
    .await
}

/// Checks that the tables contain the last event of every host.
async fn check(control_plane: &ControlPlane, agents: &[load_generator::Agent]) -> Result<()> {
    let client = super::postgres_client::connect(&control_plane.database.url).await?;
    let query = "SELECT hostname, last_event_seq::text FROM nixfleet.host_rollout_records";
    let mut known = std::collections::BTreeMap::new();
    for row in client.query(query, &[]).await? {
        known.insert(row.get::<_, String>(0), row.get::<_, String>(1));
    }
    for agent in agents {
        let events = agent.events();
        let last = known.get(events.hostname()).map_or("none", String::as_str);
        ensure!(
            last == events.sent().to_string(),
            "{} sent {} events, the tables contain {last}",
            events.hostname(),
            events.sent()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measurements(rates: [f64; 5]) -> Vec<Measurement> {
        let measurement = |stage, unit, rate| Measurement::new(stage, "", unit, vec![rate]);
        vec![
            measurement("reducer", "entries/s", rates[0]),
            // Rows of tables are no events.
            measurement("applier", "rows/s", 1.0),
            measurement("applier", "entries/s", rates[1]),
            measurement("eventlog", "items/s", rates[2]),
            measurement("ingest-single", "events/s", rates[3]),
            measurement("ingest-array", "events/s", rates[4]),
        ]
    }

    #[track_caller]
    fn check(kind: Kind, rates: [f64; 5], stage: &'static str, rate: f64) {
        let found = slowest(kind, &measurements(rates)).unwrap();
        assert_eq!(found, StageRate { stage, rate });
    }

    #[test]
    fn the_slowest_stage_has_the_lowest_event_rate() {
        check(
            SINGLE,
            [50.0, 40.0, 120.0, 30.0, 90.0],
            "ingest-single",
            30.0,
        );
        check(ARRAY, [50.0, 40.0, 120.0, 30.0, 90.0], "applier", 40.0);
        check(ARRAY, [50.0, 40.0, 60.0, 30.0, 90.0], "eventlog", 30.0);
        check(ARRAY, [20.0, 40.0, 60.0, 30.0, 90.0], "reducer", 20.0);
    }

    #[test]
    fn a_missing_stage_is_reported() {
        let mut measurements = measurements([1.0; 5]);
        measurements.retain(|measurement| measurement.stage != "eventlog");
        let error = slowest(SINGLE, &measurements).unwrap_err();
        assert!(error.to_string().contains("eventlog"), "{error}");
    }
}
