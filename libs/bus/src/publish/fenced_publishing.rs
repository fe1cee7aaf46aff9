//! Fenced publishing: a message is sent until it is known whether the log holds it.

use tokio::time::Instant;

use crate::Bus;
use crate::bus::backoff::{pause_before, pauses};
use crate::publish::error::PublishError;
use crate::publish::log_writer::Fence;
use crate::publish::outgoing_message::OutgoingMessage;
use crate::publish::publish_reply::{FenceCheck, FencedDecision, FencedPublish, LastMessage};

pub(crate) struct Fenced<'a> {
    pub(crate) bus: &'a Bus,
    pub(crate) stream: &'a str,
    /// Filter for the subjects among which the last message is read.
    pub(crate) log: &'a str,
    pub(crate) id: &'a str,
    pub(crate) fence: &'a Fence,
    pub(crate) generation: u64,
}

impl Fenced<'_> {
    /// Sends the message, and reads the last message through the leader after anything but a plain
    /// acknowledgement.
    pub(crate) async fn publish(&self, message: &OutgoingMessage) -> Result<u64, PublishError> {
        let publish = FencedPublish {
            id: self.id,
            fence: self.fence,
        };
        let deadline = Instant::now() + self.bus.config().append_deadline();
        let mut pauses = pauses();
        loop {
            self.check_generation(deadline).await?;
            let reply = message.attempt(&self.bus.connections().publish_js).await;
            let error = match publish.decide(reply) {
                FencedDecision::Stored(seq) => return Ok(seq),
                FencedDecision::Refused(refusal) => {
                    return Err(self.bus.refused(message, &refusal));
                }
                FencedDecision::CheckLast(reason) => PublishError::Unavailable(reason),
                FencedDecision::Full => PublishError::Full(self.stream.to_owned()),
            };
            match self.check_last(&publish).await? {
                FenceCheck::Stored(seq) => return Ok(seq),
                FenceCheck::Retry => {}
                FenceCheck::Fenced(last) => {
                    let expected = self.fence.seq;
                    return Err(PublishError::Fenced { expected, last });
                }
            }
            let log = if self.stream.contains("_OUT_") {
                "output"
            } else {
                "manifest"
            };
            metrics::counter!("nixfleet_bus_publish_retries_total", "log" => log).increment(1);
            if !pause_before(deadline, &mut pauses).await {
                return Err(error);
            }
        }
    }

    /// A writer that began in streams which are gone does not own the streams that replaced them, even
    /// where the sequences match.
    async fn check_generation(&self, deadline: Instant) -> Result<(), PublishError> {
        let settled = self.bus.wait_verified(deadline).await;
        settled.map_err(PublishError::Unavailable)?;
        if self.bus.known_streams().generation() == self.generation {
            return Ok(());
        }
        let (expected, last) = (self.fence.seq, 0);
        Err(PublishError::Fenced { expected, last })
    }

    async fn check_last(&self, publish: &FencedPublish<'_>) -> Result<FenceCheck, PublishError> {
        let last = self
            .bus
            .last_by_subject(self.stream, self.log)
            .await
            .map_err(|error| PublishError::Unavailable(error.to_string()))?;
        let last = last.as_ref().map(|last| LastMessage {
            seq: last.seq,
            subject: &last.subject,
            msg_id: last.msg_id.as_deref(),
        });
        Ok(publish.check_last(last))
    }
}
