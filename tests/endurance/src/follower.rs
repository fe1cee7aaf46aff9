//! Follows the output log of the channel: dispatches, states of rollouts, how much was answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context as _, Result, bail};
use nixfleet_bus::{Bus, decode_output};
use nixfleet_harness::synthetic_release::host_number;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Outcome, Producer, RolloutId, RolloutState, Verdict};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// Frames read at once.
const BATCH: usize = 64;

/// What the driver has to know.
#[derive(Debug)]
pub enum News {
    /// Hosts that were dispatched in a rollout.
    Dispatched(RolloutId, Vec<usize>),
    /// A rollout came into a state.
    State(RolloutId, RolloutState),
}

/// Counts of agents' events and of everything else.
#[derive(Debug, Default, Clone)]
pub struct Answered {
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
    answered: Answered,
    /// Output sequence of frames that are not everywhere yet, with the agents' events up to each.
    frames: VecDeque<(u64, u64)>,
}

/// The follower.
pub struct Follower {
    shared: Arc<Mutex<Shared>>,
    // Bounded by what the control plane sends: one item per frame.
    news: mpsc::UnboundedReceiver<News>,
    task: JoinHandle<Result<()>>,
}

/// Counts of a running follower.
#[derive(Debug, Clone)]
pub struct Counts(Arc<Mutex<Shared>>);

impl Follower {
    /// Follows from the first frame of the log on.
    pub fn start(bus: &Bus, partition: Partition) -> Self {
        let shared = Arc::new(Mutex::new(Shared::default()));
        let (sender, news) = mpsc::unbounded_channel();
        let task = tokio::spawn(follow(bus.clone(), partition, Arc::clone(&shared), sender));
        Self { shared, news, task }
    }

    /// Its counts.
    pub fn counts(&self) -> Counts {
        Counts(Arc::clone(&self.shared))
    }

    /// The next item.
    ///
    /// # Errors
    /// When the log cannot be followed any more.
    pub async fn next(&mut self) -> Result<News> {
        if let Some(news) = self.news.recv().await {
            return Ok(news);
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

impl Counts {
    fn lock(&self) -> MutexGuard<'_, Shared> {
        lock(&self.0)
    }

    /// What was answered so far.
    pub fn answered(&self) -> Answered {
        self.lock().answered.clone()
    }

    /// Agents' events that the frames up to a sequence answer.
    pub fn events_up_to(&self, output_seq: u64) -> u64 {
        let shared = self.lock();
        let behind = shared.frames.partition_point(|(seq, _)| *seq <= output_seq);
        behind
            .checked_sub(1)
            .map_or(0, |place| shared.frames[place].1)
    }

    /// Nobody asks for less than this sequence any more.
    pub fn forget_before(&self, output_seq: u64) {
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
    news: mpsc::UnboundedSender<News>,
) -> Result<()> {
    let mut reader = bus.reader(&bus.names().output_stream(partition), 1);
    loop {
        for message in reader.next_batch(BATCH).await? {
            let frame = decode_output(&message)?;
            let found = read(&frame.outcomes)?;
            {
                let mut shared = lock(&shared);
                shared.answered.add(&frame.outcomes);
                let events = shared.answered.events;
                shared.frames.push_back((message.seq, events));
            }
            for item in found {
                if news.send(item).is_err() {
                    return Ok(());
                }
            }
        }
    }
}

impl Answered {
    fn add(&mut self, outcomes: &[Outcome]) {
        self.outcomes += outcomes.len() as u64;
        for outcome in outcomes {
            if outcome.subject.producer != Some(Producer::Agent) {
                continue;
            }
            self.events += 1;
            match &outcome.verdict {
                Verdict::Accepted(_) => self.accepted += 1,
                Verdict::Rejected(_) => {
                    let reason = outcome.verdict.name().to_owned();
                    *self.rejected.entry(reason).or_default() += 1;
                }
            }
        }
    }
}

/// Dispatches and states of rollouts, in the order of the log.
fn read(outcomes: &[Outcome]) -> Result<Vec<News>> {
    let mut news = Vec::new();
    for outcome in outcomes {
        let Verdict::Accepted(accepted) = &outcome.verdict else {
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
            match news.last_mut() {
                Some(News::Dispatched(last, numbers)) if last == rollout_id => numbers.push(number),
                Some(News::Dispatched(..) | News::State(..)) | None => {
                    news.push(News::Dispatched(rollout_id.clone(), vec![number]));
                }
            }
        }
        for record in &accepted.rollouts {
            news.push(News::State(record.rollout_id.clone(), record.state));
        }
    }
    Ok(news)
}
