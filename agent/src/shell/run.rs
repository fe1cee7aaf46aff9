//! The loop of one agent: a single task that owns everything it starts.

mod activation_jobs;
mod gateway_jobs;

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use nixfleet_proto::bounded_reply::Bounded;
use nixfleet_proto::wire::{Dispatch, HeartbeatReply};
use nixfleet_proto::{ClosureHash, Hostname, Timestamp};
use tokio_util::sync::CancellationToken;

use super::client::{Client, ClientError};
use super::release_fetcher::ReleaseFetcher;
use crate::activation_guard::ActivationGuard;
use crate::activator::Activator;
use crate::core::{AgentConfig, AgentCore, Command, Input, Notification};
use crate::journal_store::{JournalStore, JournalStoreError};

/// Shortest pause before a timer fires: a deadline in the past must not make the loop spin.
const PAUSE_MIN: Duration = Duration::from_millis(5);
/// Longest sleep; the wall clock may be set during a sleep.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// Sees what an agent does; must not block.
pub trait Observer: Send + Sync + 'static {
    /// Receives a notification.
    fn note(&self, note: &Notification, now: Timestamp);
    /// The core processed an input.
    fn observe(&self, core: &AgentCore);
    /// Increments a counter.
    fn count(&self, counter: Counter);
}

/// Counters besides notifications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counter {
    /// A heartbeat got a response.
    Heartbeat,
    /// A request failed.
    NetworkError,
}

/// Components of an agent.
#[expect(missing_docs, reason = "most fields say what they are")]
pub struct AgentParts {
    pub hostname: Hostname,
    pub config: AgentConfig,
    pub activator: Arc<dyn Activator>,
    pub journals: Arc<dyn JournalStore>,
    pub client: Arc<Client>,
    /// Fetcher of artifacts, shared by the agents of the process.
    pub fetcher: Arc<ReleaseFetcher>,
    pub observer: Arc<dyn Observer>,
}

/// Error that stops an agent.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Without its journals an agent could use a sequence twice.
    #[error("the journal store failed")]
    JournalStore(#[from] JournalStoreError),
}

/// An agent before its start.
pub struct Agent {
    parts: AgentParts,
    core: AgentCore,
    guard: ActivationGuard,
    /// What the machine said last; the core's word is not asked.
    running: ClosureHash,
    jobs: FuturesUnordered<BoxFuture<'static, FinishedJob>>,
    first_heartbeat_sent: bool,
    poll_failures: u32,
}

/// A job that ended.
enum FinishedJob {
    /// An input for the core.
    Input(Box<Input>),
    /// A walk may begin or go on; what the machine runs now: a switch that an earlier process started may have
    /// ended meanwhile.
    Observed(Box<Input>, ClosureHash),
    /// A heartbeat ended.
    Heartbeat(Result<Bounded<HeartbeatReply>, ClientError>),
    /// A long-poll ended, after this long.
    Polled(Result<Option<Bounded<Dispatch>>, ClientError>, Duration),
    /// The pause after a long-poll ended.
    PollAgain,
}

impl Agent {
    /// Loads the journals.
    ///
    /// # Errors
    /// The journals cannot be read.
    pub fn new(parts: AgentParts) -> Result<Self, AgentError> {
        let saved = parts.journals.load()?;
        let observations = parts.journals.load_observations()?;
        Ok(Self {
            core: AgentCore::new(parts.hostname.clone(), parts.config.clone(), saved),
            guard: ActivationGuard::new(parts.hostname.clone(), observations),
            running: ClosureHash::from(""),
            parts,
            jobs: FuturesUnordered::new(),
            first_heartbeat_sent: false,
            poll_failures: 0,
        })
    }

    /// Runs until `shutdown`, and then drops all pending work, as a crash does.
    ///
    /// # Errors
    /// The journal store failed.
    pub async fn run(mut self, shutdown: CancellationToken) -> Result<(), AgentError> {
        let current_closure = self.parts.activator.current_closure().await;
        self.running = current_closure.clone();
        self.step_core(Input::Started { current_closure })?;
        loop {
            let pause = self.pause();
            tokio::select! {
                () = shutdown.cancelled() => return Ok(()),
                Some(done) = self.jobs.next() => self.take(done)?,
                () = tokio::time::sleep(pause) => self.step_core(Input::Tick)?,
            }
        }
    }

    fn pause(&self) -> Duration {
        self.core.next_deadline().map_or(PAUSE_MAX, |deadline| {
            (deadline - chrono::Utc::now())
                .to_std()
                .unwrap_or(Duration::ZERO)
                .clamp(PAUSE_MIN, PAUSE_MAX)
        })
    }

    fn take(&mut self, done: FinishedJob) -> Result<(), AgentError> {
        match done {
            FinishedJob::Input(input) => self.step_core(*input),
            FinishedJob::Observed(input, running) => {
                if let Input::ReleaseVerified { release, .. } = &*input {
                    self.guard.take_release(release);
                }
                self.running = running.clone();
                self.step_core(Input::MachineObserved {
                    current_closure: running,
                })?;
                self.step_core(*input)
            }
            FinishedJob::Heartbeat(Ok(reply)) => {
                self.parts.observer.count(Counter::Heartbeat);
                self.step_core(Input::HeartbeatAnswered(reply))
            }
            FinishedJob::Heartbeat(Err(error)) => {
                self.count_failure("heartbeat", &error);
                self.step_core(Input::HeartbeatFailed)
            }
            FinishedJob::Polled(result, lasted) => self.take_poll(result, lasted),
            FinishedJob::PollAgain => {
                self.poll();
                Ok(())
            }
        }
    }

    /// Steps the core with an input and executes its commands.
    fn step_core(&mut self, input: Input) -> Result<(), AgentError> {
        let mut next = Some(input);
        while let Some(input) = next.take() {
            let now = chrono::Utc::now();
            for command in self.core.step(input, now) {
                if let Command::Switch { rollout_id, .. } = &command {
                    next = Some(Input::SwitchStarted {
                        rollout_id: rollout_id.clone(),
                        method: self.parts.activator.switch_method().to_owned(),
                    });
                }
                self.execute(command, now)?;
            }
        }
        self.parts.observer.observe(&self.core);
        Ok(())
    }

    fn execute(&mut self, command: Command, now: Timestamp) -> Result<(), AgentError> {
        match command {
            Command::Save(journal) => self.parts.journals.save(&journal)?,
            Command::Remember(memory) => self.parts.journals.save_memory(&memory)?,
            Command::Forget { rollout_id } => {
                self.parts.journals.remove(&rollout_id)?;
                if self.guard.forget(&rollout_id) {
                    self.save_observations()?;
                }
            }
            Command::Listen => self.poll(),
            Command::FetchRelease { rollout_id } => self.fetch(rollout_id),
            Command::Switch {
                rollout_id,
                closure,
            } => self.switch(rollout_id, closure)?,
            Command::Rollback {
                rollout_id,
                closure,
            } => self.roll_back(rollout_id, closure),
            Command::ListProbes {
                rollout_id,
                generation,
            } => self.start(move |activator| async move {
                Input::ProbesListed {
                    rollout_id,
                    generation,
                    probes: activator.probes().await,
                }
            }),
            Command::RunProbe {
                rollout_id,
                generation,
                probe_name,
            } => self.start(move |activator| async move {
                let reading = activator.probe(&probe_name).await;
                Input::ProbeRan {
                    rollout_id,
                    generation,
                    probe_name,
                    reading,
                }
            }),
            Command::Send(requests) => self.send(requests),
            Command::Heartbeat(request) => self.heartbeat(request),
            Command::Notify(note) => self.note(&note, now),
        }
        Ok(())
    }

    fn start<F>(&self, job: impl FnOnce(Arc<dyn Activator>) -> F)
    where
        F: Future<Output = Input> + Send + 'static,
    {
        let work = job(Arc::clone(&self.parts.activator));
        self.jobs
            .push(Box::pin(async { FinishedJob::Input(Box::new(work.await)) }));
    }

    fn note(&self, note: &Notification, now: Timestamp) {
        self.parts.observer.note(note, now);
        let host = self.core.hostname();
        match note {
            Notification::Transition {
                rollout_id,
                from,
                to,
                ..
            }
            | Notification::Recovered {
                rollout_id,
                from,
                to,
            } => tracing::debug!(%host, rollout = %rollout_id, ?from, ?to, "host state changed"),
            Notification::Refused { .. }
            | Notification::EventRefused { .. }
            | Notification::Dropped { .. }
            | Notification::OutOfSequences { .. }
            | Notification::RollbackFailed { .. }
            | Notification::Unexpected { .. } => {
                tracing::warn!(%host, ?note, "the agent reports a fault")
            }
            Notification::DispatchHeld { .. } | Notification::Delivered { .. } => {
                tracing::debug!(%host, ?note, "control plane");
            }
        }
    }
}
