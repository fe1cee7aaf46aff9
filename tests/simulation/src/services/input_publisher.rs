//! The input publishers of a process, with the behavior of those in `libs/bus`: one message per partition
//! is in flight, and is sent again with the same id until its result is known or a deadline passed.

use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;

use nixfleet_bus::{
    AppendError, EntryBatch, Frame, FrameBuffer, FrameLimits, MessageIds, PublishDecision,
    PublishRefusal, PublishReply,
};
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Entry, Position};

use crate::addressing::{Incarnation, Route};
use crate::engine::Time;
use crate::simulated_servers::stream::{AppendRefusal, NewMessage};
use crate::simulated_servers::{CallResult, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// How long a message is retried.
const DEADLINE: Duration = Duration::from_secs(10);
/// First pause before a retry; doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The result of an append with the ticket of its caller.
pub type AppendResult<W> = (W, Result<Position, AppendError>);

/// The publishers of a process, one per partition.
#[derive(Debug)]
pub struct InputPublisher<W> {
    partitions: BTreeMap<Partition, PartitionPublisher<W>>,
    ids: Rc<MessageIds>,
}

#[derive(Debug)]
struct PartitionPublisher<W> {
    partition: Partition,
    buffer: FrameBuffer<W>,
    in_flight: Option<InFlightMessage<W>>,
}

#[derive(Debug)]
struct InFlightMessage<W> {
    frame: Frame<W>,
    publish: NewMessage,
    call: u64,
    /// True while the next attempt waits for its pause.
    is_waiting: bool,
    pause: Duration,
    deadline: Time,
    /// Why it is not sent.
    refused: Option<AppendError>,
}

impl<W> InputPublisher<W> {
    /// Publishers without messages.
    pub fn new(partitions: u16, ids: Rc<MessageIds>) -> Self {
        let partitions = Partition::all(partitions).map(|partition| {
            let publisher = PartitionPublisher {
                partition,
                buffer: FrameBuffer::new(FrameLimits::default()),
                in_flight: None,
            };
            (partition, publisher)
        });
        Self {
            partitions: partitions.collect(),
            ids,
        }
    }

    /// Appends entries of one subject in one message.
    pub fn push(
        &mut self,
        partition: Partition,
        (entries, waiter): (&[Entry], W),
        me: Incarnation,
        env: &mut Environment,
    ) {
        let Some(first) = entries.first() else {
            return;
        };
        let subject = env.broker.names().input(partition, &first.body);
        let mut batch = EntryBatch::default();
        for entry in entries {
            batch.append(&EntryBatch::of(entry).expect("an entry has text keys only"));
        }
        let publisher = self.partitions.get_mut(&partition);
        let publisher = publisher.expect("entries go to partitions of the fleet");
        publisher.buffer.push(subject, batch, waiter);
        publisher.start(&self.ids, me, env);
    }

    /// Takes an answer or a timer of a lane.
    pub fn take(
        &mut self,
        partition: Partition,
        CallResult { call, reply }: CallResult,
        me: Incarnation,
        env: &mut Environment,
    ) -> Vec<AppendResult<W>> {
        let Some(publisher) = self.partitions.get_mut(&partition) else {
            return Vec::new();
        };
        let answers = publisher.take(call, reply, me, env);
        publisher.start(&self.ids, me, env);
        answers
    }

    /// True when nothing waits and nothing is in flight.
    pub fn is_idle(&self) -> bool {
        self.partitions
            .values()
            .all(|publisher| publisher.in_flight.is_none())
    }
}

impl<W> PartitionPublisher<W> {
    fn start(&mut self, ids: &MessageIds, me: Incarnation, env: &mut Environment) {
        if self.in_flight.is_some() {
            return;
        }
        let Some(frame) = self.buffer.take() else {
            return;
        };
        let publish = NewMessage {
            msg_id: ids.next(),
            subject: frame.subject.clone(),
            payload: frame.body(),
            fence: None,
        };
        let mut in_flight = InFlightMessage {
            frame,
            publish,
            call: 0,
            is_waiting: false,
            pause: PAUSE,
            deadline: env.now + DEADLINE,
            refused: None,
        };
        // The model gives the broker's time exactly.
        match in_flight.frame.check_clock(env.now.wall(0)) {
            Ok(()) => in_flight.send(self.partition, me, env),
            Err(offset) => {
                in_flight.refused = Some(AppendError::Clock(offset));
                let route = Route::InputPublisher(self.partition);
                in_flight.call = env.start_timer(me, route, Duration::ZERO);
            }
        }
        self.in_flight = Some(in_flight);
    }

    fn take(
        &mut self,
        call: u64,
        reply: Option<ServerReply>,
        me: Incarnation,
        env: &mut Environment,
    ) -> Vec<AppendResult<W>> {
        let Some(in_flight) = self
            .in_flight
            .as_mut()
            .filter(|in_flight| in_flight.call == call)
        else {
            return Vec::new();
        };
        if let Some(refused) = in_flight.refused.take() {
            return self.finish(Err(refused));
        }
        if in_flight.is_waiting {
            in_flight.send(self.partition, me, env);
            return Vec::new();
        }
        let error = match PublishDecision::of(answered(reply)) {
            PublishDecision::Stored(seq) if in_flight.frame.was_stored_in_time(env.now.wall(0)) => {
                return self.finish(Ok(seq));
            }
            PublishDecision::Stored(_) => AppendError::Unavailable("acknowledged late".to_owned()),
            PublishDecision::Refused(PublishRefusal::Full) => {
                AppendError::Full(self.partition.to_string())
            }
            PublishDecision::Refused(refusal) => AppendError::Unavailable(refusal.to_string()),
            PublishDecision::Retry(reason) => {
                if env.now + in_flight.pause < in_flight.deadline {
                    in_flight.is_waiting = true;
                    in_flight.call =
                        env.start_timer(me, Route::InputPublisher(self.partition), in_flight.pause);
                    in_flight.pause = (in_flight.pause * 2).min(PAUSE_MAX);
                    return Vec::new();
                }
                AppendError::Unavailable(reason)
            }
        };
        self.finish(Err(error))
    }

    fn finish(&mut self, result: Result<u64, AppendError>) -> Vec<AppendResult<W>> {
        self.buffer.finish_in_flight();
        let in_flight = self.in_flight.take();
        in_flight.map_or_else(Vec::new, |in_flight| {
            in_flight.frame.answers(result).collect()
        })
    }
}

impl<W> InFlightMessage<W> {
    fn send(&mut self, partition: Partition, me: Incarnation, env: &mut Environment) {
        self.is_waiting = false;
        let request = ServerRequest::Publish(LogId::Input(partition), self.publish.clone());
        self.call = env.call(me, Route::InputPublisher(partition), request);
    }
}

/// The reply as the client library reports it; a timeout is unknown.
pub fn answered(reply: Option<ServerReply>) -> PublishReply {
    match reply {
        Some(ServerReply::Published(Ok(ack))) => PublishReply::Stored {
            seq: ack.seq,
            duplicate: ack.duplicate,
        },
        Some(ServerReply::Published(Err(AppendRefusal::LastSequence(_)))) => {
            PublishReply::Refused(PublishRefusal::LastSequence)
        }
        Some(ServerReply::Published(Err(AppendRefusal::Full))) => {
            PublishReply::Refused(PublishRefusal::Full)
        }
        Some(ServerReply::StreamMissing) => {
            PublishReply::Refused(PublishRefusal::Unknown("no stream answers".to_owned()))
        }
        _ => PublishReply::Refused(PublishRefusal::Unknown("timed out".to_owned())),
    }
}
