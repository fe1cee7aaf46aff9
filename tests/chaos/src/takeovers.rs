//! Injected groups of faults, and the takeovers that followed.

use std::collections::BTreeMap;
use std::time::Duration;

use nixfleet_harness::Service;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, EntryBody, PlanAction, Position, Timestamp};

use crate::fault_injection::{InterruptedProcess, Interruption};
use crate::partition_logs::{Input, Output, PartitionLogs};
use crate::testbed::InstanceId;

/// An injected group of faults.
#[derive(Debug, Clone)]
pub struct Incident {
    /// Name under which the group is counted.
    pub name: String,
    /// Number of faults in the group.
    pub faults: usize,
    /// Start of the injection.
    pub from: Timestamp,
    /// Start of the next injection, or end of the run.
    pub until: Timestamp,
    /// From the end of the repair to the recovery; absent when it exceeded the timeout.
    pub recovery_time: Option<Duration>,
    /// Processes that the faults interrupted.
    pub interrupted: Vec<InterruptedProcess>,
}

/// What a planner takes over, in [`Takeover::what`].
pub const LEADER: &str = "leader";

/// A takeover of the work of an interrupted process.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Takeover {
    /// Name of the group of faults.
    pub incident: String,
    /// Number of faults in the group.
    pub faults: usize,
    /// Subject of the takeover: `partition 02`, or [`LEADER`].
    pub what: String,
    /// How the previous owner was interrupted.
    pub interruption: Interruption,
    /// From the signal to the barrier of the next owner; absent without one.
    pub took: Option<Duration>,
}

/// Every takeover that follows from the interrupted processes.
pub fn takeovers(incidents: &[Incident], logs: &[PartitionLogs]) -> Vec<Takeover> {
    let mut found = Vec::new();
    for incident in incidents {
        for process in &incident.interrupted {
            let takeover = |what: String, took| Takeover {
                incident: incident.name.clone(),
                faults: incident.faults,
                what,
                interruption: process.interruption,
                took,
            };
            match process.id.service {
                Service::Reducer => found.extend(logs.iter().filter_map(|log| {
                    let took = of_partition(process, log)?;
                    Some(takeover(format!("partition {}", log.partition), took))
                })),
                Service::Planner => found
                    .extend(of_leader(process, logs).map(|took| takeover(LEADER.to_owned(), took))),
                Service::Ingest | Service::Console | Service::Applier | Service::Eventlog => {}
            }
        }
    }
    found
}

/// Prefix of the message ids of a process: service, instance and a unique suffix.
fn prefix(process: &InterruptedProcess) -> String {
    let InstanceId { service, number } = process.id;
    format!("{service}-{service}-{number}-")
}

fn since(process: &InterruptedProcess, at: Timestamp) -> Duration {
    (at - process.at).to_std().unwrap_or_default()
}

/// `None` when the process did not own the partition.
fn of_partition(process: &InterruptedProcess, log: &PartitionLogs) -> Option<Option<Duration>> {
    let owner = last_writer(process, &log.outputs)?;
    let next = log
        .outputs
        .iter()
        .find(|output| output.at >= process.at && output.writer != owner);
    Some(next.map(|output| since(process, output.at)))
}

/// The writer of the last frame before the interruption, if it was the interrupted process.
fn last_writer(process: &InterruptedProcess, outputs: &[Output]) -> Option<String> {
    let before = outputs.iter().rev().find(|output| output.at < process.at)?;
    let is_victim = before.writer.starts_with(&prefix(process));
    is_victim.then(|| before.writer.clone())
}

/// An accepted barrier of a leader.
struct Barrier {
    partition: Partition,
    at: Timestamp,
    writer: String,
}

/// `None` when the process did not lead.
fn of_leader(process: &InterruptedProcess, logs: &[PartitionLogs]) -> Option<Option<Duration>> {
    let barriers = barriers(logs);
    let before = barriers.iter().rev().find(|b| b.at < process.at)?;
    if !before.writer.starts_with(&prefix(process)) {
        return None;
    }
    // A leader leads once its barrier is accepted in every partition.
    let mut through: BTreeMap<Partition, Timestamp> = BTreeMap::new();
    for barrier in &barriers {
        if barrier.at >= process.at && barrier.writer != before.writer {
            through.entry(barrier.partition).or_insert(barrier.at);
        }
    }
    if through.len() < logs.len() {
        return Some(None);
    }
    Some(through.values().max().map(|at| since(process, *at)))
}

/// Accepted leader barriers of all partitions in the order of their outcomes.
fn barriers(logs: &[PartitionLogs]) -> Vec<Barrier> {
    let mut barriers = Vec::new();
    for log in logs {
        let appended: BTreeMap<Position, &str> = log.inputs.iter().flat_map(appended).collect();
        for output in &log.outputs {
            for outcome in &output.frame.outcomes {
                let Some(writer) = appended.get(&outcome.position) else {
                    continue;
                };
                if matches!(outcome.decision, Decision::Accepted(_)) {
                    barriers.push(Barrier {
                        partition: log.partition,
                        at: output.at,
                        writer: (*writer).to_owned(),
                    });
                }
            }
        }
    }
    barriers.sort_by_key(|barrier| barrier.at);
    barriers
}

/// The leader barriers of a message and their writer.
fn appended(input: &Input) -> impl Iterator<Item = (Position, &str)> {
    (0_u32..)
        .zip(&input.entries)
        .filter_map(|(index, entry)| match &entry.body {
            EntryBody::Plan {
                action: PlanAction::Barrier {},
                ..
            } => Some((
                Position {
                    seq: input.seq,
                    index,
                },
                input.writer.as_str(),
            )),
            EntryBody::Plan { .. }
            | EntryBody::HostEvent { .. }
            | EntryBody::RecoveryCandidate { .. }
            | EntryBody::Operator { .. } => None,
        })
}

#[cfg(test)]
mod tests {
    use nixfleet_proto::OutputFrame;

    use super::*;

    fn at(millis: i64) -> Timestamp {
        Timestamp::from_timestamp_millis(millis).unwrap()
    }

    fn output(seq: u64, millis: i64, writer: &str) -> Output {
        Output {
            seq,
            at: at(millis),
            writer: writer.to_owned(),
            stored_bytes: 0,
            frame: OutputFrame::new(seq),
        }
    }

    fn log(outputs: Vec<Output>) -> PartitionLogs {
        PartitionLogs {
            partition: Partition::all(1).next().unwrap(),
            input_stream: "IN".to_owned(),
            output_stream: "OUT".to_owned(),
            inputs: Vec::new(),
            outputs,
        }
    }

    fn process(number: usize, millis: i64) -> InterruptedProcess {
        InterruptedProcess {
            id: InstanceId {
                service: Service::Reducer,
                number,
            },
            interruption: Interruption::Killed,
            at: at(millis),
        }
    }

    #[test]
    fn a_takeover_is_the_first_frame_of_another_process() {
        let log = log(vec![
            output(1, 0, "reducer-reducer-0-aa/x"),
            output(2, 900, "reducer-reducer-0-aa/x"),
            output(3, 1_050, "reducer-reducer-0-aa/x"),
            output(4, 9_000, "reducer-reducer-0-bb/y"),
        ]);
        let took = Some(Some(Duration::from_secs(8)));
        assert_eq!(of_partition(&process(0, 1_000), &log), took);
        assert_eq!(
            of_partition(&process(1, 1_000), &log),
            None,
            "not the owner"
        );
        assert_eq!(
            of_partition(&process(0, 10_000), &log),
            Some(None),
            "nobody"
        );
    }
}
