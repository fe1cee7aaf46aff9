//! One fenced publish, with the behavior of that in `libs/bus`: retried until its result is known.

use std::time::Duration;

use bytes::Bytes;
use nixfleet_bus::{
    Fence, FenceCheck, FencedDecision, FencedPublish, LastMessage, LogWriter, PublishError,
    PublishRefusal,
};
use nixfleet_proto::OutputFrame;
use nixfleet_proto::subject::Partition;

use super::input_publisher::answered;
use crate::addressing::{Incarnation, Route};
use crate::engine::Time;
use crate::simulated_servers::stream::NewMessage;
use crate::simulated_servers::{CallResult, LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// How long a message is retried.
const DEADLINE: Duration = Duration::from_secs(10);
/// First pause before a retry; doubles.
const PAUSE: Duration = Duration::from_millis(50);
/// Longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A publish without a result.
#[derive(Debug)]
pub struct OutputPublish {
    partition: Partition,
    publish: NewMessage,
    fence: Fence,
    call: u64,
    stage: Stage,
    pause: Duration,
    deadline: Time,
}

#[derive(Debug)]
enum Stage {
    /// The message was sent.
    Sent,
    /// The last message is being read; with the error for when the deadline passed.
    Asking(PublishError),
    /// The next attempt waits for its pause.
    Resting,
}

/// The sequence of the stored message, or the error.
pub type PublishResult = Result<u64, PublishError>;

impl OutputPublish {
    /// Publishes a frame of a writer after the expected sequence.
    pub fn start(
        (partition, writer): (Partition, &LogWriter),
        frame: &OutputFrame,
        (expected, msg_id): (u64, String),
        me: Incarnation,
        env: &mut Environment,
    ) -> Self {
        let payload = serde_json::to_vec(frame).expect("a frame has text keys only");
        let fence = writer.fence(expected);
        let publish = NewMessage {
            msg_id,
            subject: writer.subject().to_owned(),
            payload: Bytes::from(payload),
            fence: Some(fence.clone()),
        };
        let mut fenced = Self {
            partition,
            publish,
            fence,
            call: 0,
            stage: Stage::Sent,
            pause: PAUSE,
            deadline: env.now + DEADLINE,
        };
        fenced.send(me, env);
        fenced
    }

    /// Bytes of the frame.
    pub fn bytes(&self) -> u64 {
        self.publish.payload.len() as u64
    }

    fn send(&mut self, me: Incarnation, env: &mut Environment) {
        self.stage = Stage::Sent;
        let request = ServerRequest::Publish(LogId::Output(self.partition), self.publish.clone());
        self.call = env.call(me, Route::Work(self.partition), request);
    }

    /// Processes a reply or a timer; gives the result once it is known.
    pub fn take(
        &mut self,
        CallResult { call, reply }: CallResult,
        me: Incarnation,
        env: &mut Environment,
    ) -> Option<PublishResult> {
        if self.call != call {
            return None;
        }
        match std::mem::replace(&mut self.stage, Stage::Resting) {
            Stage::Resting => {
                self.send(me, env);
                None
            }
            Stage::Sent => match self.publish_core().decide(answered(reply)) {
                FencedDecision::Stored(seq) => Some(Ok(seq)),
                FencedDecision::Refused(refusal) => Some(Err(unavailable(&refusal))),
                FencedDecision::Full => {
                    let log = LogId::Output(self.partition).to_string();
                    self.ask(PublishError::Full(log), me, env)
                }
                FencedDecision::CheckLast(reason) => {
                    self.ask(PublishError::Unavailable(reason), me, env)
                }
            },
            Stage::Asking(error) => {
                let Some(ServerReply::LastMessage(last)) = reply else {
                    let reason = "the last message is not known".to_owned();
                    return Some(Err(PublishError::Unavailable(reason)));
                };
                let last = last.as_ref().map(|message| LastMessage {
                    seq: message.seq,
                    subject: &message.subject,
                    msg_id: Some(&message.msg_id),
                });
                match self.publish_core().check_last(last) {
                    FenceCheck::Stored(seq) => Some(Ok(seq)),
                    FenceCheck::Fenced(last) => Some(Err(PublishError::Fenced {
                        expected: self.fence.seq,
                        last,
                    })),
                    FenceCheck::Retry => self.again(error, me, env),
                }
            }
        }
    }

    /// Reads the last message, to see whether it is the own one.
    fn ask(
        &mut self,
        error: PublishError,
        me: Incarnation,
        env: &mut Environment,
    ) -> Option<PublishResult> {
        self.stage = Stage::Asking(error);
        let request = ServerRequest::LastMessage(LogId::Output(self.partition));
        self.call = env.call(me, Route::Work(self.partition), request);
        None
    }

    fn again(
        &mut self,
        error: PublishError,
        me: Incarnation,
        env: &mut Environment,
    ) -> Option<PublishResult> {
        if env.now + self.pause >= self.deadline {
            return Some(Err(error));
        }
        self.call = env.start_timer(me, Route::Work(self.partition), self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        None
    }

    fn publish_core(&self) -> FencedPublish<'_> {
        FencedPublish {
            id: &self.publish.msg_id,
            fence: &self.fence,
        }
    }
}

fn unavailable(refusal: &PublishRefusal) -> PublishError {
    PublishError::Unavailable(refusal.to_string())
}
