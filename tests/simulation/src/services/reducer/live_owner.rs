//! An owner after its takeover: reads, folds, publishes and answers heartbeats with the real [`Owner`] and
//! [`Recovery`].

mod heartbeat_recovery;

use std::time::Duration;

use nixfleet_bus::{LogWriter, MessageIds};
use nixfleet_core::partition::PartitionState;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::{Checkpoints, Position};
use nixfleet_reducer::batch_decoding::decode;
use nixfleet_reducer::{
    HydratedPartition, LogBytes, ManifestFetch, Owner, OwnerConfig, OwnershipEnd, Readiness,
    Recovery, StepResult,
};

use super::checkpoint_writer::{CheckpointWriter, WriteProgress};
use super::read_error::read_fault;
use crate::addressing::{Caller, Incarnation, Route};
use crate::engine::Time;
use crate::scenario::LogLimits;
use crate::services::input_publisher::InputPublisher;
use crate::services::output_publish::{OutputPublish, PublishResult};
use crate::services::reader::Reader;
use crate::simulated_console;
use crate::simulated_servers::{CallResult, LogId, ServerReply};
use crate::simulation::environment::Environment;

/// How often a full output log is checked.
const LOG_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Small limits, so that frames are split and hashes are frequent.
fn owner_config(logs: LogLimits) -> OwnerConfig {
    OwnerConfig {
        turn_entries: 5,
        frame_bytes: logs.frame_bytes(),
        reserve_bytes: logs.reserve_bytes(),
        hash_every_entries: 40,
        checkpoints: logs.checkpoints(),
    }
}

/// The call of a gateway that waits for a reply.
#[derive(Debug, Clone, Copy)]
struct Waiter {
    caller: Caller,
    deadline: Time,
}

/// Entries of a recovery that are being appended.
#[derive(Debug)]
struct PendingAppends {
    /// Entries without a result.
    remaining: usize,
    /// Positions of the appended entries.
    positions: Vec<Position>,
}

/// A frame in flight.
#[derive(Debug)]
struct InFlightFrame {
    fenced: OutputPublish,
    outcomes: usize,
    /// Checkpoints that it announces.
    announces: Option<Checkpoints>,
}

/// An owner at work.
#[derive(Debug)]
pub struct LiveOwner {
    partition: Partition,
    /// Number of the ownership within the process.
    number: u64,
    writer: LogWriter,
    owner: Owner,
    reader: Reader,
    recovery: Recovery<Waiter>,
    publishing: Option<InFlightFrame>,
    checkpoints: CheckpointWriter,
    /// Timer of the next check of a full output log.
    log_check_timer: Option<u64>,
    tail_call: Option<u64>,
    /// Last sequence of the input log when the recovery read it.
    tail_seq: u64,
    appending: Option<PendingAppends>,
    is_stopping: bool,
}

/// What an append belongs to.
#[derive(Debug, Clone, Copy)]
pub struct AppendTicket {
    ownership: u64,
}

/// What a live owner works with.
pub struct OwnerContext<'a> {
    /// The process.
    pub me: Incarnation,
    /// Its publishers.
    pub publisher: &'a mut InputPublisher<AppendTicket>,
    /// Its message ids.
    pub ids: &'a MessageIds,
    /// Whether the partition counts as ready.
    pub readiness: &'a mut Readiness,
    /// Everything else.
    pub env: &'a mut Environment,
}

impl LiveOwner {
    /// Starts after a takeover.
    pub fn start(
        (partition, number): (Partition, u64),
        writer: LogWriter,
        taken: HydratedPartition,
        context: &mut OwnerContext<'_>,
    ) -> Self {
        let held = |log| context.env.broker.usage(log).map_or(0, |usage| usage.bytes);
        let held = LogBytes {
            input: held(LogId::Input(partition)),
            output: held(LogId::Output(partition)),
        };
        let owner = Owner::new(taken, held, owner_config(context.env.shape.log_limits));
        let (log, route) = (LogId::Input(partition), Route::Reader(partition));
        let next = owner.next();
        let reader = Reader::new(log, route, next.seq).with_last_read(owner.last_read());
        let mut live = Self {
            partition,
            number,
            writer,
            owner,
            reader,
            recovery: Recovery::new(64, next),
            publishing: None,
            checkpoints: CheckpointWriter::new(partition),
            log_check_timer: None,
            tail_call: None,
            tail_seq: 0,
            appending: None,
            is_stopping: false,
        };
        live.check_logs(context);
        // A due checkpoint is written before the first frame, which may not fit.
        live.proceed(context);
        live
    }

    /// The state, with everything folded so far.
    pub fn state(&self) -> &PartitionState {
        self.owner.state()
    }

    /// The first position that is not folded.
    pub fn next(&self) -> Position {
        self.owner.next()
    }

    /// True when everything read is folded and published.
    pub fn is_idle(&self) -> bool {
        self.owner.may_read() && !self.owner.publish_queue().is_publishing()
    }

    /// Stops the ownership; true when no frame is in flight.
    pub fn stop(&mut self) -> bool {
        self.is_stopping = true;
        self.publishing.is_none()
    }

    /// Processes messages of the reader.
    ///
    /// # Errors
    /// [`OwnershipEnd`].
    pub fn read(
        &mut self,
        answer: CallResult,
        context: &mut OwnerContext<'_>,
    ) -> Result<(), OwnershipEnd> {
        let messages = self
            .reader
            .take(answer.call, answer.reply)
            .map_err(read_fault)?;
        if self.is_stopping {
            return Ok(());
        }
        if !messages.is_empty() {
            let messages = messages.iter().map(|message| message.message()).collect();
            let stream = context.env.broker.names().input_stream(self.partition);
            let mut decoded = decode(&stream, messages, self.owner.next());
            decoded.check_commands(simulated_console::check);
            for dead in &decoded.dead {
                let (partition, seq) = (self.partition, dead.seq);
                context
                    .env
                    .trace(format_args!("dead letter {seq} of {partition}"));
            }
            self.owner.take(decoded.items, decoded.bytes);
            while let Some(hash) = self.owner.missing_manifest().cloned() {
                let fetched = match context.env.pinned.get(&hash) {
                    Some(pinned) => ManifestFetch::Pinned(pinned.clone()),
                    None => ManifestFetch::Missing(hash.clone()),
                };
                self.owner.add_manifest(hash, fetched)?;
            }
        }
        self.proceed(context);
        Ok(())
    }

    /// Processes a reply or a timer.
    ///
    /// # Errors
    /// [`OwnershipEnd`].
    pub fn take(
        &mut self,
        answer: CallResult,
        context: &mut OwnerContext<'_>,
    ) -> Result<(), OwnershipEnd> {
        if self.tail_call == Some(answer.call) {
            self.tail_call = None;
            let progress = match answer.reply {
                Some(ServerReply::Identity(identity)) => {
                    self.tail_seq = identity.last_seq;
                    StepResult::Tail(identity.last_seq)
                }
                _ => StepResult::Failed,
            };
            self.recovery.step_done(progress);
            self.proceed(context);
            return Ok(());
        }
        let call = answer.call;
        if self.log_check_timer == Some(call) {
            self.log_check_timer = None;
            self.check_logs(context);
            self.proceed(context);
            return Ok(());
        }
        if let Some(written) =
            self.checkpoints
                .take(call, answer.reply.as_ref(), context.me, context.env)
        {
            self.written(written, context);
            return Ok(());
        }
        let Some(mut sent) = self.publishing.take() else {
            return Ok(());
        };
        match sent.fenced.take(answer, context.me, context.env) {
            Some(result) => self.published(sent, result, context),
            None => {
                self.publishing = Some(sent);
                Ok(())
            }
        }
    }

    fn published(
        &mut self,
        sent: InFlightFrame,
        result: PublishResult,
        context: &mut OwnerContext<'_>,
    ) -> Result<(), OwnershipEnd> {
        if let Ok(seq) = result {
            self.writer.stored(seq);
        }
        self.owner.publish_queue().published(result)?;
        self.owner.appended(sent.fenced.bytes());
        if let Some(kept) = sent.announces {
            self.checkpoints
                .delete_others(kept, context.me, context.env);
        }
        let was_ready = context.readiness.check().is_ok();
        if !self.owner.is_output_full() {
            context.readiness.appended(sent.outcomes);
        }
        if !was_ready {
            self.reported_ready(context);
        }
        if self.is_stopping {
            return Err(OwnershipEnd::Released);
        }
        self.proceed(context);
        Ok(())
    }

    /// Checks whether the output log was trimmed, and whether it can be.
    fn check_logs(&mut self, context: &mut OwnerContext<'_>) {
        let Some(output) = context.env.broker.usage(LogId::Output(self.partition)) else {
            return;
        };
        let objects = &context.env.broker.checkpoints;
        let mut known = self.owner.checkpoints().newest_first();
        let are_stored = known.all(|named| objects.holds(self.partition, named));
        drop(known);
        self.owner.observe_log(&output, are_stored);
        let was_ready = context.readiness.check().is_ok();
        context
            .readiness
            .observe_log(&output, self.owner.check_output_capacity());
        if !was_ready {
            self.reported_ready(context);
        }
    }

    /// Reports readiness to the invariants.
    fn reported_ready(&self, context: &mut OwnerContext<'_>) {
        if context.readiness.check().is_ok()
            && let Some(output) = context.env.broker.usage(LogId::Output(self.partition))
        {
            context
                .env
                .invariants
                .reported_ready(context.me, self.partition, &output);
        }
    }

    /// Announces a stored checkpoint in the next frame.
    fn written(&mut self, written: WriteProgress, context: &mut OwnerContext<'_>) {
        match written {
            WriteProgress::Stored(reference) if !self.is_stopping => {
                self.owner.checkpoint_stored(reference);
            }
            WriteProgress::Stored(_) | WriteProgress::Rested => {}
            WriteProgress::Failed => self.owner.checkpoint_failed(),
        }
        if !self.is_stopping {
            self.proceed(context);
        }
    }

    /// Folds, publishes, answers and reads as far as possible.
    fn proceed(&mut self, context: &mut OwnerContext<'_>) {
        loop {
            self.owner.write();
            self.publish(context);
            if self.owner.fold().is_none() {
                break;
            }
            self.owner.add_hash();
        }
        if self.owner.is_checkpoint_due()
            && self.checkpoints.is_idle()
            && !self.is_stopping
            && let Some(unwritten) = self.owner.begin_checkpoint()
        {
            self.checkpoints.write(&unwritten, context.me, context.env);
        }
        if self.owner.is_output_full() && self.log_check_timer.is_none() {
            let timer = context.env.start_timer(
                context.me,
                Route::Work(self.partition),
                LOG_CHECK_INTERVAL,
            );
            self.log_check_timer = Some(timer);
        }
        self.recover(context);
        if self.owner.may_take() && !self.is_stopping {
            self.reader.ask(context.me, context.env);
        }
    }

    fn publish(&mut self, context: &mut OwnerContext<'_>) {
        if let Some(publish) = self.owner.publish_queue().publish() {
            let place = (publish.expected, context.ids.next());
            let frame = &publish.built.frame;
            let writer = (self.partition, &self.writer);
            self.publishing = Some(InFlightFrame {
                fenced: OutputPublish::start(writer, frame, place, context.me, context.env),
                outcomes: publish.built.entries,
                announces: frame.checkpoints.clone(),
            });
        }
    }
}
