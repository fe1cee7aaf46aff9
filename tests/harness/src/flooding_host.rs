//! A host whose key was stolen: it sends the largest events to all gateways as fast as they answer.
//!
//! Every event repeats a sequence that the host has used or is illegal in its state, so that the fold rejects it and
//! the record of the host stays what its own agent reports.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, Result};
use chrono::Utc;
use nixfleet_proto::wire::{ErrorBody, EventRequest, PROTOCOL_HEADER, PROTOCOL_VERSION, WireEvent};
use nixfleet_proto::{HostEventBody, Hostname, RolloutId};
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::incompressible_text;
use crate::operator::client;
use crate::pki::{Pair, Pki};

/// Length of the text of an event, near the largest that is taken.
const TEXT_BYTES: usize = 60 * 1024;
/// Pause while the host has no rollout, and after a broken connection.
const PAUSE: Duration = Duration::from_millis(20);

/// Answers by their meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FloodAnswers {
    /// Events that were stored.
    pub stored: u64,
    /// Refusals by code.
    pub refused: BTreeMap<String, u64>,
    /// Requests without an answer.
    pub failed: u64,
}

/// The tasks of the host. Dropping it stops them.
pub struct FloodingHost {
    stop: watch::Sender<bool>,
    tasks: JoinSet<FloodAnswers>,
}

impl FloodingHost {
    /// Starts this number of connections to each gateway; each has one request open at a time. A request concerns the
    /// rollout of the moment; without one it waits.
    ///
    /// # Errors
    /// When the certificate cannot be issued.
    pub fn start(
        (gateways, authority): (&[String], &Pair),
        hostname: &Hostname,
        rollout: &watch::Receiver<Option<RolloutId>>,
        connections: usize,
    ) -> Result<Self> {
        let identity = Pki::open(authority)?.agent(hostname.as_str())?;
        let (stop, stopped) = watch::channel(false);
        let mut tasks = JoinSet::new();
        for url in gateways {
            for number in 0..connections {
                let connection = Connection {
                    http: client(authority, &identity)?,
                    url: format!("{url}/v1/agent/events"),
                    hostname: hostname.clone(),
                    text: incompressible_text(TEXT_BYTES, number as u64),
                };
                tasks.spawn(connection.flood(rollout.clone(), stopped.clone()));
            }
        }
        Ok(Self { stop, tasks })
    }

    /// Ends the flood.
    ///
    /// # Errors
    /// When a task panicked.
    pub async fn finish(mut self) -> Result<FloodAnswers> {
        self.stop.send_replace(true);
        let mut total = FloodAnswers::default();
        while let Some(answers) = self.tasks.join_next().await {
            let answers = answers.context("a connection of the flooding host")?;
            total.stored += answers.stored;
            total.failed += answers.failed;
            for (code, count) in answers.refused {
                *total.refused.entry(code).or_default() += count;
            }
        }
        Ok(total)
    }
}

struct Connection {
    http: reqwest::Client,
    url: String,
    hostname: Hostname,
    text: String,
}

impl Connection {
    async fn flood(
        self,
        rollout: watch::Receiver<Option<RolloutId>>,
        stopped: watch::Receiver<bool>,
    ) -> FloodAnswers {
        let mut answers = FloodAnswers::default();
        while !*stopped.borrow() {
            let rollout_id = rollout.borrow().clone();
            let Some(rollout_id) = rollout_id else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            match self.send(rollout_id).await {
                Ok(None) => answers.stored += 1,
                Ok(Some(code)) => *answers.refused.entry(code).or_default() += 1,
                Err(_) => {
                    answers.failed += 1;
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
        answers
    }

    /// The code of the refusal, unless the event was stored.
    async fn send(&self, rollout_id: RolloutId) -> Result<Option<String>> {
        let body = EventRequest {
            hostname: self.hostname.clone(),
            rollout_id,
            event: WireEvent {
                seq: 1,
                body: HostEventBody::ActivationFailed {
                    exit_code: 1,
                    stderr_tail: self.text.clone(),
                    failed_at: Utc::now(),
                },
            },
        };
        let request = self.http.post(&self.url).json(&body);
        let answer = request
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION)
            .send()
            .await?;
        if answer.status().is_success() {
            return Ok(None);
        }
        let status = answer.status();
        let error: Option<ErrorBody> = answer.json().await.ok();
        Ok(Some(error.map_or_else(
            || status.to_string(),
            |error| error.code.to_string(),
        )))
    }
}
