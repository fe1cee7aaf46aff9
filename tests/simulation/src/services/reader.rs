//! A reader as the shell of the bus has it: its own position, fetches that wait, new attempts.

use std::rc::Rc;

use nixfleet_bus::{Arrival, LastRead, ReadPosition, SequenceGaps, StreamIdentity};
use nixfleet_proto::Timestamp;

use crate::addressing::{Incarnation, Route};
use crate::model::stream::StoredMessage;
use crate::model::{Log, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// Messages that one fetch brings.
const BATCH: usize = 64;
/// Answers "no such stream" before it counts as gone.
const MISSING_MAX: u32 = 3;
/// Deliveries that may show the same hole before it counts as real.
const GAPS_MAX: u32 = 3;

/// Why a reader cannot go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFault {
    /// There is no such stream.
    Missing,
    /// Another stream of the same name is there.
    Replaced,
    /// The next message is not held any more; the first one is this.
    Trimmed(u64),
    /// The stream ends before what was read.
    Regressed,
    /// The stream ended before what was read, and went on with other messages.
    Rewritten,
    /// There is a hole.
    Gap,
}

/// A reader.
#[derive(Debug)]
pub struct Reader {
    log: Log,
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
    pub fn new(log: Log, route: Route, from: u64) -> Self {
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

    /// Knows the log by a message that was taken before.
    #[must_use]
    pub fn with_last_read(mut self, last_read: LastRead) -> Self {
        self.last_read = last_read;
        self
    }

    /// The first sequence not delivered yet.
    pub fn next_seq(&self) -> u64 {
        self.position.next()
    }

    /// Asks for more, unless it is asking.
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

    /// Takes an answer, or that none came; what it brings may be nothing.
    ///
    /// # Errors
    /// [`ReadFault`]; the reader must then be thrown away.
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
