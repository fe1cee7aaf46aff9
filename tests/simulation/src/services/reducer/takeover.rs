//! Drives a takeover: calls the servers for each request of the real [`Takeover`].

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nixfleet_bus::{LastFrame, LogWriter, Message, MessageIds, StreamIdentity};
use nixfleet_checkpoint::{Checkpoint, CheckpointError};
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::subject::Partition;
use nixfleet_reducer::{
    HydratedPartition, ManifestFetch, OwnershipEnd, PartitionLogs, Takeover, TakeoverRequest,
    TakeoverResponse,
};

use super::read_error::read_fault;
use crate::addressing::{Incarnation, Route};
use crate::engine::Time;
use crate::services::output_publish::OutputPublish;
use crate::services::reader::Reader;
use crate::simulated_servers::{CallResult, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// Longest wait for frames that were stored.
const FRAMES_TIMEOUT: Duration = Duration::from_secs(30);

/// A takeover in progress.
#[derive(Debug)]
pub struct TakeoverDriver {
    partition: Partition,
    /// The writer of the ownership.
    writer: LogWriter,
    takeover: Takeover,
    pending: PendingRequest,
    reader: Option<Reader>,
    /// When reading frames times out.
    frames_by: Time,
    /// When it began.
    pub begun: Time,
}

/// The pending call.
#[derive(Debug)]
enum PendingRequest {
    Call(u64),
    Logs {
        call: u64,
        wanted: BTreeSet<u64>,
        ids: BTreeMap<u64, String>,
        input: Option<StreamIdentity>,
    },
    Checkpoint(u64, CheckpointRef),
    Barrier(Box<OutputPublish>),
    Frames,
}

/// State of a takeover after a step.
pub enum TakeoverProgress {
    /// A call is pending.
    Waits,
    /// The partition is owned, with this writer.
    Done(Box<HydratedPartition>, LogWriter),
}

fn failed(what: &str) -> OwnershipEnd {
    OwnershipEnd::failed(std::io::Error::other(format!("{what} did not answer")))
}

impl TakeoverDriver {
    /// Starts a takeover.
    ///
    /// # Errors
    /// [`OwnershipEnd`].
    pub fn start(
        partition: Partition,
        ids: &MessageIds,
        me: Incarnation,
        env: &mut Environment,
    ) -> Result<Self, OwnershipEnd> {
        let subject = env.broker.names().output(partition, &ids.next());
        let mut driver = Self {
            partition,
            writer: LogWriter::new(subject),
            takeover: Takeover::new(),
            pending: PendingRequest::Frames,
            reader: None,
            frames_by: env.now,
            begun: env.now,
        };
        driver.ask(ids, me, env)?;
        Ok(driver)
    }

    /// Starts the next call; true when the takeover is complete.
    fn ask(
        &mut self,
        ids: &MessageIds,
        me: Incarnation,
        env: &mut Environment,
    ) -> Result<bool, OwnershipEnd> {
        let (partition, route) = (self.partition, Route::Work(self.partition));
        loop {
            self.pending = match self.takeover.next_request() {
                TakeoverRequest::Cursor => {
                    PendingRequest::Call(env.call(me, route, ServerRequest::Cursor(partition)))
                }
                TakeoverRequest::LastFrame => PendingRequest::Call(env.call(
                    me,
                    route,
                    ServerRequest::LastMessage(LogId::Output(partition)),
                )),
                TakeoverRequest::Announcement(seq) => PendingRequest::Call(env.call(
                    me,
                    route,
                    ServerRequest::OutputMessageAt(partition, seq),
                )),
                TakeoverRequest::Checkpoint(named) => {
                    let request = ServerRequest::GetCheckpoint(partition, named.clone());
                    PendingRequest::Checkpoint(env.call(me, route, request), named)
                }
                TakeoverRequest::Logs(wanted) => self.ask_logs(wanted, me, env),
                TakeoverRequest::Barrier { frame, expected } => {
                    let place = (expected, ids.next());
                    let writer = (partition, &self.writer);
                    let fenced = OutputPublish::start(writer, &frame, place, me, env);
                    PendingRequest::Barrier(Box::new(fenced))
                }
                TakeoverRequest::Snapshot => {
                    PendingRequest::Call(env.call(me, route, ServerRequest::LoadRows(partition)))
                }
                TakeoverRequest::Manifest(hash) => {
                    let fetched = match env.pinned.get(&hash) {
                        Some(pinned) => ManifestFetch::Pinned(pinned.clone()),
                        None => ManifestFetch::Missing(hash),
                    };
                    self.takeover.give(TakeoverResponse::Manifest(fetched))?;
                    continue;
                }
                TakeoverRequest::Frames { from, .. } => {
                    self.frames_by = env.now + FRAMES_TIMEOUT;
                    let reader = self.reader.get_or_insert_with(|| {
                        Reader::new(LogId::Output(partition), Route::Reader(partition), from)
                    });
                    reader.ask(me, env);
                    PendingRequest::Frames
                }
                TakeoverRequest::Done => return Ok(true),
            };
            return Ok(false);
        }
    }

    fn ask_logs(
        &self,
        wanted: BTreeSet<u64>,
        me: Incarnation,
        env: &mut Environment,
    ) -> PendingRequest {
        let input = LogId::Input(self.partition);
        let request = match wanted.first() {
            Some(seq) => ServerRequest::MessageIdAt(input, *seq),
            None => ServerRequest::Identity(input),
        };
        PendingRequest::Logs {
            call: env.call(me, Route::Work(self.partition), request),
            wanted,
            ids: BTreeMap::new(),
            input: None,
        }
    }

    /// Processes a reply or a timeout.
    ///
    /// # Errors
    /// [`OwnershipEnd`].
    pub fn take(
        mut self,
        CallResult { call, reply }: CallResult,
        ids: &MessageIds,
        me: Incarnation,
        env: &mut Environment,
    ) -> Result<(Self, TakeoverProgress), OwnershipEnd> {
        let answer = match &mut self.pending {
            PendingRequest::Call(asked) if *asked == call => {
                if let Some(ServerReply::LastMessage(Some(last))) = &reply {
                    self.writer.observed(last.seq, &last.subject);
                }
                Some(simple(reply)?)
            }
            PendingRequest::Checkpoint(asked, named) if *asked == call => {
                Some(checkpoint(self.partition, named, reply)?)
            }
            PendingRequest::Logs { call: asked, .. } if *asked == call => {
                self.logs(reply, me, env)?
            }
            PendingRequest::Barrier(fenced) => {
                let result = fenced.take(CallResult { call, reply }, me, env);
                if let Some(Ok(seq)) = result {
                    self.writer.stored(seq);
                }
                result.map(TakeoverResponse::Barrier)
            }
            PendingRequest::Call(_) | PendingRequest::Checkpoint(..) => None,
            PendingRequest::Logs { .. } | PendingRequest::Frames => None,
        };
        self.give(answer, ids, (me, env))
    }

    /// Processes messages of the reader.
    ///
    /// # Errors
    /// [`OwnershipEnd`].
    pub fn read(
        mut self,
        CallResult { call, reply }: CallResult,
        ids: &MessageIds,
        me: Incarnation,
        env: &mut Environment,
    ) -> Result<(Self, TakeoverProgress), OwnershipEnd> {
        let Some(reader) = &mut self.reader else {
            return Ok((self, TakeoverProgress::Waits));
        };
        let messages = reader.take(call, reply).map_err(read_fault)?;
        if messages.is_empty() {
            if env.now >= self.frames_by {
                return Err(failed("the log before the barrier"));
            }
            reader.ask(me, env);
            return Ok((self, TakeoverProgress::Waits));
        }
        let messages: Vec<Message> = messages.iter().map(|message| message.message()).collect();
        self.give(Some(TakeoverResponse::Frames(messages)), ids, (me, env))
    }

    fn give(
        mut self,
        answer: Option<TakeoverResponse>,
        ids: &MessageIds,
        (me, env): (Incarnation, &mut Environment),
    ) -> Result<(Self, TakeoverProgress), OwnershipEnd> {
        let Some(answer) = answer else {
            return Ok((self, TakeoverProgress::Waits));
        };
        self.takeover.give(answer)?;
        if !self.ask(ids, me, env)? {
            return Ok((self, TakeoverProgress::Waits));
        }
        let takeover = std::mem::take(&mut self.takeover);
        let taken = takeover.finish().ok_or_else(|| failed("the takeover"))?;
        let writer = self.writer.clone();
        Ok((self, TakeoverProgress::Done(Box::new(taken), writer)))
    }

    fn logs(
        &mut self,
        reply: Option<ServerReply>,
        me: Incarnation,
        env: &mut Environment,
    ) -> Result<Option<TakeoverResponse>, OwnershipEnd> {
        let (partition, route) = (self.partition, Route::Work(self.partition));
        let PendingRequest::Logs {
            call,
            wanted,
            ids,
            input,
        } = &mut self.pending
        else {
            return Ok(None);
        };
        let request = match reply {
            Some(ServerReply::MessageId(id)) => {
                if let (Some(seq), Some(id)) = (wanted.pop_first(), id) {
                    ids.insert(seq, id);
                }
                match wanted.first() {
                    Some(seq) => ServerRequest::MessageIdAt(LogId::Input(partition), *seq),
                    None => ServerRequest::Identity(LogId::Input(partition)),
                }
            }
            Some(ServerReply::Identity(identity)) => match input {
                None => {
                    *input = Some(identity);
                    ServerRequest::Identity(LogId::Output(partition))
                }
                Some(input) => {
                    return Ok(Some(TakeoverResponse::Logs(PartitionLogs {
                        input: *input,
                        output: identity,
                        ids: std::mem::take(ids),
                    })));
                }
            },
            _ => return Err(failed("the broker")),
        };
        *call = env.call(me, route, request);
        Ok(None)
    }
}

/// A missing or unusable checkpoint is no failure: the one before it may be usable.
fn checkpoint(
    partition: Partition,
    named: &CheckpointRef,
    reply: Option<ServerReply>,
) -> Result<TakeoverResponse, OwnershipEnd> {
    let Some(ServerReply::Checkpoint(found)) = reply else {
        return Err(failed("the object store"));
    };
    let found = found.ok_or(CheckpointError::Missing);
    let read = found.and_then(|bytes| Checkpoint::decode(&bytes, partition.number(), named));
    let read = read.map(Box::new).map_err(|error| error.to_string());
    Ok(TakeoverResponse::Checkpoint(read))
}

fn simple(reply: Option<ServerReply>) -> Result<TakeoverResponse, OwnershipEnd> {
    match reply {
        Some(ServerReply::Cursor(cursor)) => Ok(TakeoverResponse::Cursor(cursor)),
        Some(ServerReply::Rows(snapshot)) => Ok(TakeoverResponse::Snapshot(*snapshot)),
        Some(ServerReply::OutputMessage(message)) => {
            let frame = message.and_then(|message| message.output().cloned());
            Ok(TakeoverResponse::Announcement(
                frame.map(|frame| frame.as_ref().clone()),
            ))
        }
        Some(ServerReply::LastMessage(None)) => Ok(TakeoverResponse::LastFrame(None)),
        Some(ServerReply::LastMessage(Some(message))) => {
            let frame = message.output().ok_or_else(|| {
                let fault = format!("output {} cannot be read", message.seq);
                OwnershipEnd::halted(std::io::Error::other(fault))
            })?;
            Ok(TakeoverResponse::LastFrame(Some(LastFrame {
                seq: message.seq,
                msg_id: Some(message.msg_id.clone()),
                frame: frame.as_ref().clone(),
            })))
        }
        _ => Err(failed("a server")),
    }
}
