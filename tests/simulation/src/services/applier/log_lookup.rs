//! Looks up where the logs of a partition stand, and decides whether its rows start from a checkpoint.

use nixfleet_applier::{PartitionLogs, TurnBuilder, needs_checkpoint};
use nixfleet_proto::snapshot::Cursor;
use nixfleet_proto::subject::Partition;

use super::checkpoint_restore::CheckpointRestore;
use super::{Applier, Located, Work};
use crate::addressing::Route;
use crate::simulated_servers::{LogId, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

impl Applier {
    pub(super) fn locate(
        &mut self,
        partition: Partition,
        cursor: Option<Cursor>,
        env: &mut Environment,
    ) {
        let input = LogId::Input(partition);
        let request = match cursor.as_ref().and_then(|cursor| cursor.input) {
            Some(mark) => ServerRequest::MessageIdAt(input, mark.seq),
            None => ServerRequest::Identity(input),
        };
        let located = Located {
            cursor,
            ..Located::default()
        };
        let call = self.ask(partition, request, env);
        self.work
            .insert(partition, Work::Locating(call, Box::new(located)));
    }

    pub(super) fn located(
        &mut self,
        partition: Partition,
        reply: Option<ServerReply>,
        env: &mut Environment,
    ) {
        let (me, route) = (self.me, Route::Work(partition));
        let Some(Work::Locating(call, located)) = self.work.get_mut(&partition) else {
            return;
        };
        match (reply, located.input) {
            (Some(ServerReply::MessageId(msg_id)), _) => {
                located.msg_id = msg_id;
                *call = env.call(me, route, ServerRequest::Identity(LogId::Input(partition)));
            }
            (Some(ServerReply::Identity(input)), None) => {
                located.input = Some(input);
                *call = env.call(me, route, ServerRequest::Identity(LogId::Output(partition)));
            }
            (Some(ServerReply::Identity(output)), Some(input)) => {
                let logs = PartitionLogs {
                    input,
                    output,
                    msg_id: located.msg_id.take(),
                };
                let cursor = located.cursor.take();
                if needs_checkpoint(cursor.as_ref(), &logs) {
                    let restoring = CheckpointRestore::start((partition, cursor), logs, me, env);
                    let work = Work::Restoring(Box::new(restoring));
                    self.work.insert(partition, work);
                    return;
                }
                self.start_at_cursor(partition, (cursor, &logs), env);
            }
            _ => self.recreate_streams(partition, env),
        }
    }

    pub(super) fn start_at_cursor(
        &mut self,
        partition: Partition,
        (cursor, logs): (Option<Cursor>, &PartitionLogs),
        env: &mut Environment,
    ) {
        match TurnBuilder::start(cursor, logs) {
            Ok((builder, _)) => self.follow(partition, builder, env),
            Err(error) => self.stop_with_error(partition, &error.to_string(), env),
        }
    }
}
