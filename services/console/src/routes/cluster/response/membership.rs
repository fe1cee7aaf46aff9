//! Members of the services and the leases they hold, from the records of the lease bucket, and its problems.

use std::collections::{BTreeMap, BTreeSet};

use chrono::TimeDelta;
use nixfleet_bus::lease::{LeaseRecord, MemberRecord, Record, RecordKey, RecordView};
use nixfleet_bus::{AGENT_EVENTS_MAX_PERCENT, LOG_PROBLEM_PERCENT, LastFrame, LogKind};
use nixfleet_proto::Timestamp;
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::{Partition, escape};

use super::{
    Announcements, Archive, Cluster, Log, LogSource, LogView, Member, Owner, PartitionView,
    Problem, Service, SharedView, behind,
};

/// The services that share out work.
const SERVICES: [&str; 4] = ["reducer", "applier", "eventlog", "planner"];
/// The services whose keys are the partitions; the archive has one more.
const BY_PARTITION: [&str; 3] = ["reducer", "applier", "eventlog"];
/// Key of the streams all partitions share.
const SHARED: &str = "shared";
/// Key of the planner's leader.
const LEADER: &str = "leader";
/// A record older than its time to live and this is not renewed any more; the clocks of two
/// machines may differ by as much.
const CLOCK_TOLERANCE: TimeDelta = TimeDelta::seconds(5);

/// The lease bucket, sorted.
pub struct Membership {
    at: Timestamp,
    partitions: Vec<String>,
    members: BTreeMap<(String, String), (MemberRecord, Timestamp)>,
    leases: BTreeMap<(String, String), (LeaseRecord, Timestamp)>,
    problems: Vec<Problem>,
}

impl Membership {
    /// Sorts the records of the bucket and notes those that are not right.
    pub fn new(at: Timestamp, partitions: &[String], records: Vec<RecordView>) -> Self {
        let mut membership = Self {
            at,
            partitions: partitions.to_vec(),
            members: BTreeMap::new(),
            leases: BTreeMap::new(),
            problems: Vec::new(),
        };
        for view in records {
            membership.sort(view);
        }
        membership.find_orphans();
        membership.find_vacancies();
        membership
    }

    /// The same with the problems of release announcements.
    pub fn with_announcements(mut self, announcements: Announcements) -> Self {
        let place = ("console".to_owned(), "release".to_owned());
        let newest = announcements.newest.unwrap_or_default();
        if let Some(letter) = newest.unreadable {
            let message = format!(
                "announcement {} cannot be read and is passed over: {}; see the dead letters, and who writes \
                 to the bus: docs/operations/announcements.md",
                letter.seq, letter.reason
            );
            self.problem(&place, None, ("announcement-unreadable", message));
        }
        if let Some(refusal) = announcements.refusal {
            let message =
                format!("{refusal}; the release before it stays: docs/operations/announcements.md");
            self.problem(&place, None, ("announcement-refused", message));
        }
        self
    }

    pub fn cluster(
        mut self,
        logs: Vec<Log>,
        cursors: Option<BTreeMap<Partition, Cursor>>,
        archive: Archive,
    ) -> Cluster {
        self.find_held();
        let mut partitions = Vec::new();
        for log in &logs {
            let cursor = cursors.as_ref().map(|cursors| cursors.get(&log.partition));
            let view = self.partition(log, cursor, &archive);
            self.find_filling(log, &view);
            partitions.push(view);
        }
        let shared: Vec<_> = archive.shared.iter().collect();
        Cluster {
            at: self.at,
            partitions,
            services: self.services(),
            leader: self.owner("planner", LEADER),
            shared: SharedView {
                archived_by: self.owner("eventlog", SHARED),
                archive_lag_messages: archive.lag(&shared),
            },
            problems: self.problems,
        }
    }

    fn sort(&mut self, view: RecordView) {
        let RecordView {
            service,
            key,
            record,
            written_at,
        } = view;
        let (RecordKey::Member(token) | RecordKey::Lease(token)) = &key;
        let place = (service, token.clone());
        let ttl = match record {
            Some(Record::Member(record)) => {
                let ttl = Some(record.ttl_seconds);
                self.members.insert(place.clone(), (record, written_at));
                ttl
            }
            Some(Record::Lease(record)) => {
                let ttl = record.ttl_seconds;
                self.leases.insert(place.clone(), (record, written_at));
                ttl
            }
            None => {
                let message = "another release wrote it; it cannot be read here".to_owned();
                self.problem(&place, None, ("unreadable", message));
                None
            }
        };
        let age = self.at - written_at;
        let ttl = ttl.and_then(|ttl| TimeDelta::try_seconds(i64::try_from(ttl).ok()?));
        if ttl.is_some_and(|ttl| age > ttl + CLOCK_TOLERANCE) {
            let kind = match key {
                RecordKey::Member(_) => "the member",
                RecordKey::Lease(_) => "the lease",
            };
            let message = format!(
                "{kind} was written {} s ago and should have expired: compare the clocks of this \
                 gateway and of NATS",
                age.num_seconds()
            );
            self.problem(&place, None, ("stale", message));
        }
    }

    /// Leases of instances that are gone, or of keys the fleet does not have.
    fn find_orphans(&mut self) {
        let mut found = Vec::new();
        for (place, (lease, _)) in &self.leases {
            let (service, key) = place;
            let member = self.member(service, &lease.writer.instance);
            let fault = match member {
                _ if !self.keys(service).contains(key) => Some((
                    "unknown-key",
                    format!("service {service} has no key {key} in this fleet"),
                )),
                None => Some((
                    "orphaned",
                    "its holder is no member; the lease expires by itself within its time to live"
                        .to_owned(),
                )),
                Some(member) if member.writer.process != lease.writer.process => Some((
                    "orphaned",
                    "an earlier process of the instance took it; the lease expires by itself"
                        .to_owned(),
                )),
                Some(_) => None,
            };
            if let Some(fault) = fault {
                found.push((place.clone(), lease.writer.instance.clone(), fault));
            }
        }
        for (place, instance, fault) in found {
            self.problem(&place, Some(instance), fault);
        }
    }

    /// Keys that nobody holds.
    fn find_vacancies(&mut self) {
        for service in SERVICES {
            let has_members = self.members.keys().any(|(of, _)| of == service);
            if !has_members {
                let message = "no instance of it is a member: none runs, or none reaches NATS";
                let place = (service.to_owned(), String::new());
                self.problem(&place, None, ("no-members", message.to_owned()));
                continue;
            }
            for key in self.keys(service) {
                let place = (service.to_owned(), key);
                if !self.leases.contains_key(&place) {
                    let message = "nobody holds it at the moment".to_owned();
                    self.problem(&place, None, ("vacant", message));
                }
            }
        }
    }

    fn problem(
        &mut self,
        (service, key): &(String, String),
        instance: Option<String>,
        (code, message): (&'static str, String),
    ) {
        self.problems.push(Problem {
            service: service.clone(),
            key: key.clone(),
            instance,
            code,
            message,
        });
    }

    fn keys(&self, service: &str) -> Vec<String> {
        let mut keys = Vec::new();
        if BY_PARTITION.contains(&service) {
            keys.extend(self.partitions.iter().cloned());
        }
        match service {
            "eventlog" => keys.push(SHARED.to_owned()),
            "planner" => keys.push(LEADER.to_owned()),
            _ => {}
        }
        keys
    }

    fn member(&self, service: &str, instance: &str) -> Option<&MemberRecord> {
        let place = (service.to_owned(), escape(instance));
        self.members.get(&place).map(|(member, _)| member)
    }

    fn owner(&self, service: &str, key: &str) -> Option<Owner> {
        let place = (service.to_owned(), key.to_owned());
        let (lease, renewed_at) = self.leases.get(&place)?;
        Some(Owner {
            instance: lease.writer.instance.clone(),
            epoch: lease.epoch,
            renewed_at: *renewed_at,
        })
    }

    fn services(&self) -> Vec<Service> {
        let strangers = self.members.keys().map(|(service, _)| service.as_str());
        let strangers: BTreeSet<&str> = strangers.filter(|name| !SERVICES.contains(name)).collect();
        let names = SERVICES.into_iter().chain(strangers);
        names
            .map(|service| Service {
                service: service.to_owned(),
                members: self.members_of(service),
            })
            .collect()
    }

    fn members_of(&self, service: &str) -> Vec<Member> {
        let members = self.members.iter().filter(|((of, _), _)| of == service);
        members
            .map(|(_, (record, renewed_at))| Member {
                holds: self.held_by(service, &record.writer.instance),
                instance: record.writer.instance.clone(),
                version: record.version.clone(),
                since: record.since,
                renewed_at: *renewed_at,
                declines: record.declines.clone(),
            })
            .collect()
    }

    fn held_by(&self, service: &str, instance: &str) -> Vec<String> {
        let leases = self.leases.iter();
        leases
            .filter(|((of, _), (lease, _))| of == service && lease.writer.instance == instance)
            .map(|((_, key), _)| key.clone())
            .collect()
    }

    fn partition(
        &self,
        log: &Log,
        cursor: Option<Option<&Cursor>>,
        archive: &Archive,
    ) -> PartitionView {
        let key = log.partition.to_string();
        let (input, output) = (log.input.1.as_ref(), log.output.1.as_ref());
        let folded = log.last.as_ref().map(|last| {
            let mark = last.as_ref().and_then(|last| last.frame.last_input);
            // A message that is folded in part is not folded yet.
            mark.map_or(0, |mark| mark.next().seq - 1)
        });
        let applied = cursor.map(|cursor| cursor.map_or(0, |cursor| cursor.out_seq));
        let epoch = |last: &Option<LastFrame>| last.as_ref().map_or(0, |last| last.frame.epoch);
        PartitionView {
            partition: log.partition.number(),
            owners: BY_PARTITION
                .map(|service| (service, self.owner(service, &key)))
                .into(),
            epoch: log.last.as_ref().map(epoch),
            input_seq: input.map(|input| input.last_seq),
            folded_input_seq: folded,
            input_lag_messages: input.zip(folded).map(|(input, done)| behind(input, done)),
            output_seq: output.map(|output| output.last_seq),
            applied_output_seq: applied,
            output_lag_messages: output
                .zip(applied)
                .map(|(output, done)| behind(output, done)),
            archive_lag_messages: archive.lag(&[&log.input, &log.output]),
            input_log: archive
                .log_view(LogKind::Input, &log.input, cursor)
                .map(|view| LogView {
                    sources: log.sources.clone(),
                    ..view
                }),
            output_log: archive.log_view(LogKind::Output, &log.output, cursor),
        }
    }

    /// Partitions in which the leading planner plans nothing.
    fn find_held(&mut self) {
        let leader = ("planner".to_owned(), LEADER.to_owned());
        let Some((lease, _)) = self.leases.get(&leader) else {
            return;
        };
        let (instance, held) = (lease.writer.instance.clone(), lease.held.clone());
        for partition in held {
            let message = "its input log takes no entries, no owner folds them, or its output log cannot be read: \
                           nothing is planned for its channels, the others go on; the log of the planner names the \
                           reason: docs/operations/log-full.md, docs/operations/recovery-output-log-damaged.md";
            let place = ("planner".to_owned(), partition);
            let fault = ("partition-held", message.to_owned());
            self.problem(&place, Some(instance.clone()), fault);
        }
    }

    /// Logs that are nearly full: nothing that runs in steady state may reach its bound.
    fn find_filling(&mut self, log: &Log, view: &PartitionView) {
        let logs = [
            (&log.input.0, &view.input_log),
            (&log.output.0, &view.output_log),
        ];
        for (stream, log_view) in logs {
            let Some(log_view) = log_view else { continue };
            if log_view.percent < LOG_PROBLEM_PERCENT {
                continue;
            }
            let holder = log_view.held_by.unwrap_or("nobody knows whom");
            let filled_by: Vec<String> = log_view.sources.iter().map(LogSource::text).collect();
            let filled_by = match filled_by.is_empty() {
                true => String::new(),
                false => format!(", filled by {}", filled_by.join(", ")),
            };
            let message = format!(
                "{stream} is {} % full, held back by {holder}{filled_by}; at {AGENT_EVENTS_MAX_PERCENT} % \
                 agents are refused: docs/operations/log-full.md",
                log_view.percent
            );
            let place = ("reducer".to_owned(), log.partition.to_string());
            self.problem(&place, None, ("log-filling", message));
        }
    }
}

#[cfg(test)]
mod tests;
