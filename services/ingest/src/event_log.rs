//! Appending events of agents to the input logs. It takes admitted events alone: nothing else of an agent gets
//! into a log.

use nixfleet_bus::{AppendError, Bus, InputPublisher};
use nixfleet_http::{ApiError, not_appended};
use nixfleet_proto::Position;

use crate::admission::{AdmittedEvent, AdmittedEvents};
use crate::log_capacity::LogCapacity;

pub struct EventLog {
    input: InputPublisher,
    pub capacity: LogCapacity,
}

impl EventLog {
    /// The one publisher of this process.
    pub fn new(bus: &Bus) -> Self {
        Self {
            input: bus.input(),
            capacity: LogCapacity::new(bus.partitions()),
        }
    }

    /// Says how many hosts report, by which frames are sized.
    pub fn expect_hosts(&self, hosts: usize) {
        self.input.expect_clients(hosts);
    }

    /// Queues an event; gives its position once it is durable.
    ///
    /// # Errors
    /// 503 when the log has no room for agents.
    pub fn append(
        &self,
        event: AdmittedEvent,
    ) -> Result<impl Future<Output = Result<Position, AppendError>> + use<>, ApiError> {
        let (partition, entry, bytes) = event.into_parts();
        self.capacity.take(partition, bytes)?;
        let appended = self.input.append(partition, entry);
        Ok(async move {
            let at = appended.await?;
            tracing::debug!(%partition, seq = at.seq, index = at.index, "appended");
            Ok(at)
        })
    }

    /// Appends the events of one rollout; gives the refusal of each that is not stored. An event is stored
    /// only when those before it are, or were refused for good: a later one would make an earlier one stale.
    pub async fn append_in_order(&self, events: &AdmittedEvents) -> Vec<Option<ApiError>> {
        let (partition, entries) = (events.partition(), events.entries());
        if let Err(refusal) = self.capacity.take(partition, events.bytes()) {
            return vec![Some(refusal); entries.len()];
        }
        let mut refusals = Vec::with_capacity(entries.len());
        while let Some(rest @ [_, ..]) = entries.get(refusals.len()..) {
            let appended = self.input.append_in_order(partition, rest).await;
            refusals.extend(appended.positions.iter().map(|_| None));
            let Some(error) = appended.stopped else {
                break;
            };
            let refusal = not_appended(&error);
            if refusal.retry_after_seconds().is_some() {
                refusals.resize(entries.len(), Some(refusal));
            } else {
                refusals.push(Some(refusal));
            }
        }
        refusals
    }
}
