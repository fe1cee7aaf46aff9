//! Follows the output log of the channel: dispatches, states of rollouts, counts of outcomes.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use nixfleet_bus::{Bus, decode_output};
use nixfleet_harness::synthetic_release::host_number;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Decision, Outcome, Producer, RolloutId, RolloutState};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames read at once.
const BATCH: usize = 64;

/// An event of the output log that the driver waits for.
#[derive(Debug)]
pub enum OutputEvent {
    /// Hosts that were dispatched in a rollout.
    Dispatched(RolloutId, Vec<usize>),
    /// A rollout entered a state.
    State(RolloutId, RolloutState),
}

/// Outcome counts of agents' events and of all other entries.
#[derive(Debug, Default, Clone)]
pub struct OutcomeCounts {
    /// Outcomes of all entries.
    pub outcomes: u64,
    /// Outcomes of agents' events.
    pub events: u64,
    /// Accepted ones of them.
    pub accepted: u64,
    /// Rejected ones by reason.
    pub rejected: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Shared {
    outcome_counts: OutcomeCounts,
    /// Output sequence of frames that are not everywhere yet, with the agents' events up to each.
    frames: VecDeque<(u64, u64)>,
}

/// The follower.
pub struct Follower {
    shared: Arc<Mutex<Shared>>,
    // Bounded by what the control plane sends: one item per frame.
    output_event: mpsc::UnboundedReceiver<OutputEvent>,
    task: JoinHandle<Result<()>>,
}

/// Counts of a running follower.
#[derive(Debug, Clone)]
pub struct SharedCounts(Arc<Mutex<Shared>>);

impl Follower {
    /// Follows from the first frame of the log on.
    pub fn start(bus: &Bus, partition: Partition) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (sender, output_event) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(bus.clone(), partition, Arc::clone(&shared), sender));
        Self {
            shared,
            output_event,
            task,
        }
    }

    /// Shared counts of the follower.
    pub fn counts(&self) -> SharedCounts {
        SharedCounts(Arc::clone(&self.shared))
    }

    /// The next item.
    ///
    /// # Errors
    /// When the log cannot be followed any more.
    pub async fn next(&mut self) -> Result<OutputEvent> {
        if let Some(output_event) = self.output_event.recv().await {
            return Ok(output_event);
        }
        let ended = (&mut self.task).await.context("the follower panicked")?;
        ended.context("following the output log")?;
        bail!("the follower ended")
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl SharedCounts {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.0)
    }

    /// Current counts of outcomes.
    pub fn outcome_counts(&self) -> OutcomeCounts {
        self.lock().outcome_counts.clone()
    }

    /// Agents' events with an outcome in the frames up to a sequence.
    pub fn events_up_to(&self, output_seq: u64) -> u64 {
        let shared = self.lock();
        let behind = shared.frames.partition_point(|(seq, _)| *seq <= output_seq);
        behind
            .checked_sub(1)
            .map_or(0, |place| shared.frames[place].1)
    }

    /// Drops counts below this sequence, which no reader needs any more.
    pub fn discard_before(&self, output_seq: u64) {
        let mut shared = self.lock();
        while shared
            .frames
            .get(1)
            .is_some_and(|(seq, _)| *seq <= output_seq)
        {
            shared.frames.pop_front();
        }
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn follow(
    bus: Bus,
    partition: Partition,
    shared: Arc<Mutex<Shared>>,
    output_event: mpsc::UnboundedSender<OutputEvent>,
) -> Result<()> {
    let mut reader = bus.reader(&bus.names().output_stream(partition), 1);
    loop {
        for message in reader.next_batch(BATCH).await? {
            let frame = decode_output(&message)?;
            let found = read(&frame.outcomes)?;
            {
                let mut shared = lock(&shared);
                shared.outcome_counts.add(&frame.outcomes);
                let events = shared.outcome_counts.events;
                shared.frames.push_back((message.seq, events));
            }
            for item in found {
                if output_event.send(item).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

impl OutcomeCounts {
    fn add(&mut self, outcomes: &[Outcome]) {
        self.outcomes += outcomes.len() as u64;
        for outcome in outcomes {
            if outcome.subject.producer != Some(Producer::Agent) {
                continue;
            }
            self.events += 1;
            match &outcome.decision {
                Decision::Accepted(_) => self.accepted += 1,
                Decision::Rejected(_) => {
                    let reason = outcome.decision.name().to_owned();
                    *self.rejected.entry(reason).or_default() += 1;
                }
            }
        }
    }
}

/// Dispatches and states of rollouts, in the order of the log.
fn read(outcomes: &[Outcome]) -> Result<Vec<OutputEvent>> {
    let mut output_event = Vec::new();
    for outcome in outcomes {
        let Decision::Accepted(accepted) = &outcome.decision else {
            continue;
        };
        let subject = &outcome.subject;
        if subject.entry == "QueueDispatch" {
            let hostname = subject
                .hostname
                .as_ref()
                .context("a dispatch has no host")?;
            let rollout_id = subject.rollout_id.as_ref();
            let rollout_id = rollout_id.context("a dispatch has no rollout")?;
            let number = host_number(hostname)?;
            match output_event.last_mut() {
                Some(OutputEvent::Dispatched(last, numbers)) if last == rollout_id => {
                    numbers.push(number)
                }
                Some(OutputEvent::Dispatched(..) | OutputEvent::State(..)) | None => {
                    output_event.push(OutputEvent::Dispatched(rollout_id.clone(), vec![number]));
                }
            }
        }
        for record in &accepted.rollouts {
            output_event.push(OutputEvent::State(record.rollout_id.clone(), record.state));
        }
    }
    Ok(output_event)
}
