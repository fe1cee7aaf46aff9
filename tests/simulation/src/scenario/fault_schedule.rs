//! Faults at scheduled times.

use std::fmt;
use std::time::Duration;

use super::shape::Shape;
use crate::engine::Rng;

/// A scheduled fault.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// When it begins.
    pub at: Duration,
    /// How long it lasts, for faults with a duration.
    pub lasts: Duration,
    /// Its kind.
    pub kind: FaultKind,
}

/// Where a process crashes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Before a publish is sent.
    BeforePublish,
    /// After a publish was sent, before its reply.
    AfterPublish,
    /// Before a turn is sent.
    BeforeCommit,
    /// After a turn was sent, before its reply.
    AfterCommit,
    /// After a checkpoint was sent to be stored, before it is announced.
    AfterStore,
    /// Before a log is trimmed.
    BeforeTrim,
    /// After a trim was sent, before its reply.
    AfterTrim,
}

/// The kinds of faults. Numbers of processes, hosts and partitions are taken modulo their count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultKind {
    /// A process is killed, and started again at the end.
    KillProcess(usize),
    /// A process ends gracefully and is started again at the end.
    StopProcess(usize),
    /// A process is frozen, as by SIGSTOP.
    FreezeProcess(usize),
    /// A process crashes at a point of its work, and is started again at the end.
    CrashProcess {
        /// The process.
        process: usize,
        /// Where it dies.
        point: CrashPoint,
        /// How many such occasions it survives first.
        skipped: u32,
    },
    /// A process cannot reach the broker.
    DisconnectBroker(usize),
    /// A process cannot reach the database.
    DisconnectDatabase(usize),
    /// The broker restarts.
    RestartBroker,
    /// The database restarts.
    RestartDatabase,
    /// A process works as if it held every lease: two owners at once.
    IgnoreLeases(usize),
    /// The same, and its reads of the logs are seconds late.
    IgnoreLeasesAndDelayReads(usize),
    /// Writes of all processes of a service take seconds; the service is that of the process.
    SlowWrites(usize),
    /// All planners work as if they held the lease, while no rows are written.
    CompetingPlanners,
    /// Archiving or the writing of rows stops, so that logs fill.
    StallConsumer(StalledConsumer),
    /// The input log of a partition takes no messages.
    FillInputLog(u16),
    /// Heartbeats are repeated and report arbitrary closures, and writes of owners take seconds.
    HeartbeatStorm,
    /// The lease bucket loses its data.
    LoseLeases,
    /// The wall clock of a process is off by so many milliseconds until the end, which may be years.
    SkewProcessClock(usize, i64),
    /// The same for a host.
    SkewHostClock(usize, i64),
    /// An agent crashes, and is started again at the end.
    CrashAgent(usize),
    /// A host loses its network.
    DisconnectHost(usize),
    /// A host reports closures that it does not run.
    ReportFalseClosures(usize),
    /// An agent crashes and loses its journals.
    LoseAgentState(usize),
    /// The broker forgets the ids of stored messages.
    ForgetMessageIds,
    /// A message that cannot be decoded is stored in an input log.
    StoreUnreadableMessage(u16),
    /// An entry that is dated so many milliseconds ahead is stored in an input log, as by a service that does not
    /// compare its clock.
    StoreMisdatedEntry(u16, i64),
    /// An operator clears halted rollouts and quarantines.
    OperatorCommands,
    /// The object of the newest checkpoint of a partition is lost or changed.
    DamageCheckpoint(u16, CheckpointLoss),
    /// Rows are lost; there is at most one of these or the next two in a run.
    LoseRows(RowLoss),
    /// Broker and database come back empty.
    LoseBrokerAndDatabase,
    /// The broker comes back without the last messages of its logs.
    LoseLogTails(TailLoss),
}

/// Loss of the last messages of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TailLoss {
    /// The partition, modulo how many there are; absent: all of them.
    pub partition: Option<u16>,
    /// Messages of the input log.
    pub input: usize,
    /// Messages of the output log.
    pub output: usize,
}

/// Loss of rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowLoss {
    /// The database is as it was some time ago; otherwise it is empty.
    pub is_restored: bool,
    /// It happens as soon as a log was trimmed.
    pub is_at_trim: bool,
    /// Loss of the newest checkpoint of every partition at the same time.
    pub checkpoints: Option<CheckpointLoss>,
}

/// A consumer that stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StalledConsumer {
    /// The archive.
    Archive,
    /// The applier.
    Applier,
}

/// Loss of a stored object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CheckpointLoss {
    /// It is deleted.
    Missing,
    /// It holds another state, with the same size.
    Changed,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (at, lasts) = (self.at.as_secs_f64(), self.lasts.as_secs_f64());
        write!(f, "{:?} at {at:.3} s for {lasts:.3} s", self.kind)
    }
}

/// The schedule of a seed.
pub fn schedule(seed: u64, shape: &Shape) -> Vec<Fault> {
    let mut rng = Rng::new(seed, "faults");
    let minutes = shape.safety.as_secs() / 60;
    let rate = *rng.pick(&[0_u64, 1, 2, 3, 5]);
    let count = rng.below(minutes * rate + 1);
    let mut faults: Vec<Fault> = (0..count).map(|_| fault(&mut rng, shape)).collect();
    faults.push(stall(&mut rng, shape));
    faults.extend(full_input(seed, shape));
    if let Some(kind) = disaster(&mut rng) {
        faults.push(disaster_fault(&mut rng, shape, kind));
    }
    faults.sort_by_key(|fault| fault.at);
    faults
}

fn fault(rng: &mut Rng, shape: &Shape) -> Fault {
    let at = Duration::from_millis(rng.below(shape.safety.as_millis() as u64));
    let lasts = Duration::from_millis(*rng.pick(&[500_u64, 3_000, 8_000, 15_000, 40_000]));
    let lasts = lasts + Duration::from_millis(rng.below(2_000));
    let processes: usize = shape.instances.iter().sum();
    let process = rng.index(processes);
    let host = rng.index(shape.hosts.len());
    let kind = match rng.below(126) {
        0..=11 => FaultKind::KillProcess(process),
        12..=15 => FaultKind::StopProcess(process),
        16..=24 => FaultKind::FreezeProcess(process),
        25..=42 => FaultKind::CrashProcess {
            process,
            point: crash_point(rng),
            skipped: rng.below(12) as u32,
        },
        43..=48 => FaultKind::DisconnectBroker(process),
        49..=52 => FaultKind::DisconnectDatabase(process),
        53..=56 => FaultKind::RestartBroker,
        57..=60 => FaultKind::RestartDatabase,
        61..=64 => FaultKind::IgnoreLeases(process),
        65..=68 => FaultKind::IgnoreLeasesAndDelayReads(process),
        69..=70 => FaultKind::LoseLeases,
        71..=74 => FaultKind::SkewProcessClock(process, process_skew(rng)),
        75..=77 => FaultKind::SkewHostClock(host, host_skew(rng)),
        78..=84 => FaultKind::CrashAgent(host),
        85..=89 => FaultKind::DisconnectHost(host),
        90..=91 => FaultKind::ReportFalseClosures(host),
        92 => FaultKind::LoseAgentState(host),
        93..=94 => FaultKind::ForgetMessageIds,
        95 => FaultKind::StoreUnreadableMessage(rng.below(4) as u16),
        96..=99 => FaultKind::OperatorCommands,
        100..=103 => FaultKind::SlowWrites(process),
        104..=106 => FaultKind::HeartbeatStorm,
        107..=109 => FaultKind::CompetingPlanners,
        110..=112 => FaultKind::DamageCheckpoint(rng.below(4) as u16, checkpoint_loss(rng)),
        113..=117 => FaultKind::StallConsumer(StalledConsumer::Archive),
        118..=121 => FaultKind::StoreMisdatedEntry(rng.below(4) as u16, misdating(rng)),
        _ => FaultKind::StallConsumer(StalledConsumer::Applier),
    };
    let lasts = if matches!(kind, FaultKind::StallConsumer(_)) {
        // Long enough for logs to fill.
        lasts + Duration::from_secs(rng.range(20, 90))
    } else {
        lasts
    };
    Fault { at, lasts, kind }
}

/// In every run the logs are held back once while a release is rolled out.
fn stall(rng: &mut Rng, shape: &Shape) -> Fault {
    let release = *rng.pick(&shape.releases);
    let early = Duration::from_millis(rng.below(5_000));
    let consumer = *rng.pick(&[
        StalledConsumer::Archive,
        StalledConsumer::Archive,
        StalledConsumer::Applier,
    ]);
    Fault {
        at: release.saturating_sub(early),
        lasts: Duration::from_secs(rng.range(40, 160)),
        kind: FaultKind::StallConsumer(consumer),
    }
}

/// In one run of four an input log is full while a release is rolled out, long enough for a leader to change.
fn full_input(seed: u64, shape: &Shape) -> Option<Fault> {
    let mut rng = Rng::new(seed, "full input log");
    if !rng.chance(250) {
        return None;
    }
    let release = *rng.pick(&shape.releases);
    Some(Fault {
        at: release.saturating_sub(Duration::from_millis(rng.below(20_000))),
        lasts: Duration::from_secs(rng.range(5, 120)),
        kind: FaultKind::FillInputLog(rng.below(4) as u16),
    })
}

fn crash_point(rng: &mut Rng) -> CrashPoint {
    *rng.pick(&[
        CrashPoint::BeforePublish,
        CrashPoint::AfterPublish,
        CrashPoint::AfterPublish,
        CrashPoint::BeforeCommit,
        CrashPoint::AfterCommit,
        CrashPoint::AfterStore,
        CrashPoint::BeforeTrim,
        CrashPoint::AfterTrim,
    ])
}

fn checkpoint_loss(rng: &mut Rng) -> CheckpointLoss {
    *rng.pick(&[
        CheckpointLoss::Missing,
        CheckpointLoss::Changed,
        CheckpointLoss::Changed,
    ])
}

/// Less or more than a service accepts of its clock, up to years.
fn process_skew(rng: &mut Rng) -> i64 {
    let millis = *rng.pick(&[50_i64, 2_000, 25_000, 45_000, 300_000, 100_000_000_000]);
    if rng.chance(500) { millis } else { -millis }
}

/// More than the fold accepts of a time, up to years.
fn misdating(rng: &mut Rng) -> i64 {
    let millis = *rng.pick(&[61_000_i64, 300_000, 100_000_000_000]);
    if rng.chance(500) { millis } else { -millis }
}

fn skew(rng: &mut Rng) -> i64 {
    let millis = *rng.pick(&[50_i64, 2_000, 30_000, 300_000]);
    if rng.chance(500) { millis } else { -millis }
}

/// Sometimes more than a soak.
fn host_skew(rng: &mut Rng) -> i64 {
    let millis = skew(rng);
    if rng.chance(300) { millis * 6 } else { millis }
}

/// Loss of rows in one run of thirteen, of the ends of logs in another one, of everything in one of
/// twenty-one.
fn disaster(rng: &mut Rng) -> Option<FaultKind> {
    match rng.below(64) {
        0..=4 => Some(FaultKind::LoseRows(RowLoss {
            is_restored: rng.chance(500),
            is_at_trim: rng.chance(500),
            checkpoints: rng.chance(600).then(|| checkpoint_loss(rng)),
        })),
        5..=9 => Some(FaultKind::LoseLogTails(tails(rng))),
        10..=12 => Some(FaultKind::LoseBrokerAndDatabase),
        _ => None,
    }
}

fn tails(rng: &mut Rng) -> TailLoss {
    let partition = rng.chance(700).then(|| rng.below(4) as u16);
    let some = |rng: &mut Rng| *rng.pick(&[1_usize, 1, 2, 3, 5, 20]);
    let (input, output) = match rng.below(3) {
        0 => (some(rng), 0),
        1 => (0, some(rng)),
        _ => (some(rng), some(rng)),
    };
    TailLoss {
        partition,
        input,
        output,
    }
}

fn disaster_fault(rng: &mut Rng, shape: &Shape, kind: FaultKind) -> Fault {
    let millis = shape.safety.as_millis() as u64;
    Fault {
        at: Duration::from_millis(rng.range(millis / 3, millis)),
        lasts: Duration::from_millis(rng.range(500, 10_000)),
        kind,
    }
}
