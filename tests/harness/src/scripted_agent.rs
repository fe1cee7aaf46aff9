//! A scripted agent over HTTPS: it polls for dispatches, reports events and counts the replies of the
//! gateway.
//!
//! It retries an event until the gateway has stored it, as real agents do; it verifies nothing and runs no
//! probes. `nixfleet-swarm` simulates a fleet of real agents.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use nixfleet_proto::wire::{
    Dispatch, ErrorBody, EventAnswer, EventRequest, PROTOCOL_HEADER, PROTOCOL_VERSION, WireEvent,
};
use nixfleet_proto::{ClosureHash, HostEventBody, Hostname, RolloutId, Timestamp};

use crate::operator::client;
use crate::pki::{Pair, Pki};

/// Pause before a refused request is retried.
const RETRY: Duration = Duration::from_millis(200);
/// Timeout of retries.
const TIMEOUT: Duration = Duration::from_secs(90);
/// Seconds for which the gateway holds a poll.
const POLL_SECONDS: u64 = 2;

/// A response that refuses an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// HTTP status.
    pub status: u16,
    /// The code of the error.
    pub code: String,
}

/// An agent with the certificate of its host.
#[derive(Debug)]
pub struct ScriptedAgent {
    http: reqwest::Client,
    base: String,
    hostname: Hostname,
    running: ClosureHash,
    /// Events that were stored, by rollout: their sequences are 1 to that number.
    stored: BTreeMap<RolloutId, u64>,
    /// The rollout of the last dispatch and its closure.
    current: Option<(RolloutId, ClosureHash)>,
    refusals: BTreeMap<String, u64>,
}

impl ScriptedAgent {
    /// An agent of the gateway at `base` with its own certificate.
    ///
    /// # Errors
    /// When the certificate cannot be issued.
    pub fn new(
        base: &str,
        authority: &Pair,
        hostname: Hostname,
        running: ClosureHash,
    ) -> Result<Self> {
        let identity = Pki::open(authority)?.agent(hostname.as_str())?;
        Ok(Self {
            http: client(authority, &identity)?,
            base: base.to_owned(),
            hostname,
            running,
            stored: BTreeMap::new(),
            current: None,
            refusals: BTreeMap::new(),
        })
    }

    /// The host.
    pub fn hostname(&self) -> &Hostname {
        &self.hostname
    }

    /// Number of events acknowledged with 204, by rollout.
    pub fn stored(&self) -> &BTreeMap<RolloutId, u64> {
        &self.stored
    }

    /// Refusals by code.
    pub fn refusals(&self) -> &BTreeMap<String, u64> {
        &self.refusals
    }

    /// Polls once for a dispatch of a new rollout.
    ///
    /// # Errors
    /// When the gateway is unreachable.
    pub async fn poll(&mut self) -> Result<Option<Dispatch>> {
        let url = format!("{}/v1/agent/dispatch?wait={POLL_SECONDS}", self.base);
        let request = self
            .http
            .get(&url)
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION);
        let answer = request.send().await.context("polling for a dispatch")?;
        match answer.status().as_u16() {
            200 => {
                let dispatch: Dispatch = answer.json().await.context("reading a dispatch")?;
                let is_known = self.stored.contains_key(&dispatch.rollout_id);
                if is_known {
                    // The gateway returns the dispatch again until the reducer has folded the
                    // acknowledgement.
                    tokio::time::sleep(RETRY).await;
                }
                Ok((!is_known).then_some(dispatch))
            }
            204 => Ok(None),
            _ => {
                self.refused(answer).await?;
                tokio::time::sleep(RETRY).await;
                Ok(None)
            }
        }
    }

    /// Reports an activation of the dispatched closure.
    ///
    /// # Errors
    /// As [`ScriptedAgent::report`].
    pub async fn activate(&mut self, dispatch: Dispatch, now: Timestamp) -> Result<()> {
        let events =
            crate::agent_event_sequence::activation(&dispatch.target_closure, &self.running, now);
        self.running = dispatch.target_closure.clone();
        self.follow(dispatch, events).await
    }

    /// Reports an activation of the dispatched closure that fails, and the rollback.
    ///
    /// # Errors
    /// As [`ScriptedAgent::report`].
    pub async fn roll_back(&mut self, dispatch: Dispatch, now: Timestamp) -> Result<()> {
        let events =
            crate::agent_event_sequence::rollback(&dispatch.target_closure, &self.running, now);
        self.follow(dispatch, events).await
    }

    async fn follow(&mut self, dispatch: Dispatch, events: Vec<HostEventBody>) -> Result<()> {
        self.current = Some((dispatch.rollout_id, dispatch.target_closure));
        self.report(&events).await
    }

    /// Reports one round of probes of the last rollout.
    ///
    /// # Errors
    /// As [`ScriptedAgent::report`], and when there was no dispatch.
    pub async fn probe(&mut self, now: Timestamp) -> Result<()> {
        let events = self.probe_round(now)?;
        self.report(&events).await
    }

    /// Reports one round of probes once and does not repeat what is refused.
    ///
    /// # Errors
    /// When the gateway is unreachable, or there has been no dispatch.
    pub async fn probe_once(&mut self, now: Timestamp) -> Result<Option<Refusal>> {
        let events = self.probe_round(now)?;
        Ok(self.send(&events).await?.1)
    }

    fn probe_round(&self, now: Timestamp) -> Result<Vec<HostEventBody>> {
        let (_, closure) = self.current.as_ref().context("no dispatch")?;
        Ok(crate::agent_event_sequence::probe_round(closure, now))
    }

    /// Sends events of the last rollout until each of them is stored.
    ///
    /// # Errors
    /// When the gateway is unreachable, refuses an event permanently, or refuses one until the timeout.
    pub async fn report(&mut self, events: &[HostEventBody]) -> Result<()> {
        let (mut rest, start) = (events, Instant::now());
        while !rest.is_empty() {
            let (stored, refusal) = self.send(rest).await?;
            rest = &rest[stored..];
            if let Some(refusal) = refusal {
                let is_temporary = matches!(refusal.status, 429 | 503);
                let may_retry = is_temporary && start.elapsed() < TIMEOUT;
                ensure!(may_retry, "{}: {refusal:?}", self.hostname);
                tokio::time::sleep(RETRY).await;
            }
        }
        Ok(())
    }

    /// Sends events once; how many of them were stored, and why the next one was not.
    async fn send(&mut self, events: &[HostEventBody]) -> Result<(usize, Option<Refusal>)> {
        let (rollout_id, _) = self.current.clone().context("no dispatch")?;
        let before = self.stored.get(&rollout_id).copied().unwrap_or(0);
        let numbered = (before + 1..).zip(events);
        let body: Vec<EventRequest> = numbered
            .map(|(seq, event)| EventRequest {
                hostname: self.hostname.clone(),
                rollout_id: rollout_id.clone(),
                event: WireEvent {
                    seq,
                    body: event.clone(),
                },
            })
            .collect();
        let url = format!("{}/v1/agent/events", self.base);
        let request = self
            .http
            .post(&url)
            .header(PROTOCOL_HEADER, PROTOCOL_VERSION);
        let answer = request.json(&body).send().await;
        let answer = answer.with_context(|| format!("reporting events of {}", self.hostname))?;
        if answer.status().as_u16() != 200 {
            return Ok((0, Some(self.refused(answer).await?)));
        }
        let answers: Vec<EventAnswer> = answer.json().await.context("reading results")?;
        ensure!(answers.len() == events.len(), "an event has no result");
        let stored = answers.iter().take_while(|answer| answer.status == 204);
        let stored = stored.count();
        *self.stored.entry(rollout_id).or_default() += stored as u64;
        let refusal = match answers.get(stored) {
            None => None,
            Some(answer) => {
                let error = answer.error.as_ref().context("a refusal has no code")?;
                Some(self.count(answer.status, error.code.to_string()))
            }
        };
        Ok((stored, refusal))
    }

    async fn refused(&mut self, answer: reqwest::Response) -> Result<Refusal> {
        let status = answer.status().as_u16();
        let text = answer.text().await.context("reading a refusal")?;
        match serde_json::from_str::<ErrorBody>(&text) {
            Ok(error) => Ok(self.count(status, error.code.to_string())),
            Err(_) => bail!("the gateway responded {status}: {text}"),
        }
    }

    fn count(&mut self, status: u16, code: String) -> Refusal {
        *self.refusals.entry(code.clone()).or_default() += 1;
        Refusal { status, code }
    }
}
