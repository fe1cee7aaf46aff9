//! Requests to the gateway.

use std::sync::Arc;
use std::time::Duration;

use nixfleet_proto::RolloutId;
use nixfleet_proto::bounded_reply::Bounded;
use nixfleet_proto::wire::{Dispatch, EventRequest, HeartbeatRequest};

use super::{Agent, AgentError, Counter, FinishedJob};
use crate::core::Input;
use crate::shell::client::ClientError;

/// Timeout of the first heartbeat; without a response the agent starts nevertheless.
const FIRST_HEARTBEAT_TIMEOUT: Duration = Duration::from_secs(30);
/// Pause between long-polls that return immediately.
const POLL_PAUSE: Duration = Duration::from_secs(1);

impl Agent {
    /// Sends events of one rollout.
    pub(super) fn send(&self, requests: Vec<EventRequest>) {
        let Some(rollout_id) = requests.first().map(|request| request.rollout_id.clone()) else {
            return;
        };
        let client = Arc::clone(&self.parts.client);
        self.jobs.push(Box::pin(async move {
            let answers = client.send_events(&requests).await;
            let seqs = requests.iter().map(|request| request.event.seq);
            FinishedJob::Input(Box::new(Input::EventsAnswered {
                rollout_id,
                answers: seqs.zip(answers).collect(),
            }))
        }));
    }

    pub(super) fn heartbeat(&mut self, request: HeartbeatRequest) {
        let timeout = (!self.first_heartbeat_sent).then_some(FIRST_HEARTBEAT_TIMEOUT);
        self.first_heartbeat_sent = true;
        let client = Arc::clone(&self.parts.client);
        self.jobs.push(Box::pin(async move {
            FinishedJob::Heartbeat(client.heartbeat(&request, timeout).await)
        }));
    }

    pub(super) fn fetch(&self, rollout_id: RolloutId) {
        let client = Arc::clone(&self.parts.client);
        let fetcher = Arc::clone(&self.parts.fetcher);
        let activator = Arc::clone(&self.parts.activator);
        self.jobs.push(Box::pin(async move {
            let fetched = fetcher.fetch_release(&client, &rollout_id).await;
            let input = Box::new(match fetched {
                Ok(release) => Input::ReleaseVerified {
                    rollout_id,
                    release,
                },
                Err(fault) => Input::ReleaseRefused { rollout_id, fault },
            });
            FinishedJob::Observed(input, activator.current_closure().await)
        }));
    }

    pub(super) fn poll(&self) {
        let client = Arc::clone(&self.parts.client);
        self.jobs.push(Box::pin(async move {
            let started = tokio::time::Instant::now();
            let result = client.dispatch().await;
            FinishedJob::Polled(result, started.elapsed())
        }));
    }

    pub(super) fn take_poll(
        &mut self,
        result: Result<Option<Bounded<Dispatch>>, ClientError>,
        lasted: Duration,
    ) -> Result<(), AgentError> {
        let pause = match &result {
            Ok(_) => {
                self.poll_failures = 0;
                POLL_PAUSE.saturating_sub(lasted)
            }
            Err(error) => {
                self.count_failure("dispatch", error);
                self.poll_failures = self.poll_failures.saturating_add(1);
                let salt = crate::core::config::salt(self.core.hostname().as_str());
                let pause = self.parts.config.backoff(self.poll_failures, salt);
                pause.to_std().unwrap_or(POLL_PAUSE)
            }
        };
        self.jobs.push(Box::pin(async move {
            tokio::time::sleep(pause).await;
            FinishedJob::PollAgain
        }));
        match result {
            Ok(Some(dispatch)) => self.step_core(Input::DispatchReceived(dispatch)),
            Ok(None) | Err(_) => Ok(()),
        }
    }

    pub(super) fn count_failure(&self, what: &'static str, error: &ClientError) {
        self.parts.observer.count(Counter::NetworkError);
        tracing::debug!(
            host = %self.core.hostname(),
            what,
            error = error as &dyn std::error::Error,
            "request failed"
        );
    }
}
