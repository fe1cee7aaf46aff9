//! A reader with the behavior of the reader in the shell of `libs/bus`: its own position, fetches and retries.

use std::rc::Rc;

use nixfleet_bus::{Arrival, LastRead, ReadPosition, SequenceGaps, StreamIdentity};
use nixfleet_proto::Timestamp;

use crate::addressing::{Incarnation, Route};
use crate::simulated_servers::stream::StoredMessage;
use crate::simulated_servers::{LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// Most messages of a fetch.
const BATCH: usize = 64;
/// Replies "no such stream" until the stream counts as missing.
const MISSING_MAX: u32 = 3;
/// Deliveries with the same gap until it counts as a gap of the log.
const GAPS_MAX: u32 = 3;

/// Why a reader cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// The stream does not exist.
    Missing,
    /// The stream was deleted and created again.
    Replaced,
    /// The next message was trimmed; the sequence of the first message.
    Trimmed(u64),
    /// The stream ends before what was read.
    Regressed,
    /// The stream lost messages that were read, and has others in their place.
    Rewritten,
    /// Messages are missing in the middle.
    Gap,
}

/// A reader.
#[derive(Debug)]
pub struct Reader {
    log: LogId,
    route: Route,
    position: ReadPosition,
    created: Option<Timestamp>,
    call: Option<u64>,
    missing: u32,
    gaps: u32,
    last_read: LastRead,
}

impl Reader {
    /// A reader whose first message is the one with `from`.
    pub fn new(log: LogId, route: Route, from: u64) -> Self {
        Self {
            log,
            route,
            position: ReadPosition::new(from, SequenceGaps::Forbidden),
            created: None,
            call: None,
            missing: 0,
            gaps: 0,
            last_read: LastRead::default(),
        }
    }

    /// Sets the last message that was read, to recognize the log.
    #[must_use]
    pub fn with_last_read(mut self, last_read: LastRead) -> Self {
        self.last_read = last_read;
        self
    }

    /// The first sequence not delivered yet.
    pub fn next_seq(&self) -> u64 {
        self.position.next()
    }

    /// Fetches the next messages, unless a fetch is pending.
    pub fn ask(&mut self, me: Incarnation, env: &mut Environment) {
        if self.call.is_none() {
            let request = ServerRequest::Fetch {
                log: self.log,
                from: self.position.next(),
                max: BATCH,
            };
            self.call = Some(env.call(me, self.route, request));
        }
    }

    /// Processes a reply or a timeout, and gives the new messages.
    ///
    /// # Errors
    /// [`ReadFault`]; the reader cannot be used afterwards.
    pub fn take(
        &mut self,
        call: u64,
        reply: Option<ServerReply>,
    ) -> Result<Vec<Rc<StoredMessage>>, ReadFault> {
        if self.call != Some(call) {
            return Ok(Vec::new());
        }
        self.call = None;
        match reply {
            Some(ServerReply::Messages {
                messages,
                identity,
                previous,
            }) => {
                self.missing = 0;
                self.check(&identity, previous.as_deref())?;
                self.accept(messages)
            }
            Some(ServerReply::StreamMissing) => {
                self.missing += 1;
                if self.missing >= MISSING_MAX {
                    return Err(ReadFault::Missing);
                }
                Ok(Vec::new())
            }
            _ => Ok(Vec::new()),
        }
    }

    fn check(
        &mut self,
        identity: &StreamIdentity,
        before: Option<&StoredMessage>,
    ) -> Result<(), ReadFault> {
        let created = *self.created.get_or_insert(identity.created);
        if created != identity.created {
            return Err(ReadFault::Replaced);
        }
        if self.position.is_trimmed(identity.first_seq) {
            return Err(ReadFault::Trimmed(identity.first_seq));
        }
        if self.position.is_ahead_of(identity.last_seq) {
            return Err(ReadFault::Regressed);
        }
        let before =
            before.filter(|m| Some(m.seq) == self.last_read.seq_to_verify(identity.first_seq));
        if self
            .last_read
            .is_replaced(before.map(|message| message.msg_id.as_str()))
        {
            return Err(ReadFault::Rewritten);
        }
        Ok(())
    }

    fn accept(
        &mut self,
        messages: Vec<Rc<StoredMessage>>,
    ) -> Result<Vec<Rc<StoredMessage>>, ReadFault> {
        let mut taken = Vec::new();
        for message in messages {
            match self.position.observe(message.seq) {
                Arrival::Next => {
                    self.gaps = 0;
                    self.last_read.record(message.seq, Some(&message.msg_id));
                    taken.push(message);
                }
                Arrival::Duplicate => {}
                Arrival::Gap => {
                    self.gaps += 1;
                    if self.gaps > GAPS_MAX {
                        return Err(ReadFault::Gap);
                    }
                    break;
                }
            }
        }
        Ok(taken)
    }
}
