//! Calls for checkpoints, archiving and trimming.

use crate::simulated_servers::{ArchiveMark, LogId, Restore, ServerReply, ServerRequest};
use crate::simulation::environment::Environment;

/// The reply to a call for checkpoints or trimming; absent for other calls.
pub(super) fn retention(env: &mut Environment, request: &ServerRequest) -> Option<ServerReply> {
    let reply = match request {
        ServerRequest::LogUsage(partition) => {
            let input = env.broker.usage(LogId::Input(*partition));
            let output = env.broker.usage(LogId::Output(*partition));
            match (input, output) {
                (Some(input), Some(output)) => ServerReply::LogUsage { input, output },
                _ => ServerReply::StreamMissing,
            }
        }
        ServerRequest::OutputMessageAt(partition, seq) => {
            match env.broker.stream(LogId::Output(*partition)) {
                Some(stream) => ServerReply::OutputMessage(stream.get(*seq).cloned()),
                None => ServerReply::StreamMissing,
            }
        }
        ServerRequest::AnnouncedCheckpoints(partition) => match env.broker.announced(*partition) {
            Some((first_seq, checkpoints)) => ServerReply::AnnouncedCheckpoints {
                first_seq,
                checkpoints,
            },
            None => ServerReply::StreamMissing,
        },
        ServerRequest::Trim(log, first_kept) => trim(env, *log, *first_kept),
        ServerRequest::PutCheckpoint(partition, named, bytes) => {
            let hash = &named.hash[..8];
            let (out_seq, size) = (named.out_seq, named.bytes);
            env.trace(format_args!(
                "checkpoint {hash} of {partition} at {out_seq} is stored, {size} bytes"
            ));
            let objects = &mut env.broker.checkpoints;
            objects.put(*partition, named, bytes.clone());
            ServerReply::CheckpointDone
        }
        ServerRequest::GetCheckpoint(partition, named) => {
            ServerReply::Checkpoint(env.broker.checkpoints.get(*partition, named).cloned())
        }
        ServerRequest::AreCheckpointsStored(partition, announced) => {
            let objects = &env.broker.checkpoints;
            let mut named = announced.newest_first();
            ServerReply::AreCheckpointsStored(named.all(|named| objects.holds(*partition, named)))
        }
        ServerRequest::DeleteObsoleteCheckpoints(partition, kept) => {
            env.broker.checkpoints.delete_obsolete(*partition, kept);
            env.invariants.deleted(*partition, &env.broker.checkpoints);
            ServerReply::CheckpointDone
        }
        ServerRequest::Publish(..)
        | ServerRequest::LastMessage(_)
        | ServerRequest::MessageIdAt(..)
        | ServerRequest::Identity(_)
        | ServerRequest::Fetch { .. }
        | ServerRequest::EnsureLayout(_)
        | ServerRequest::AskOwner(..)
        | ServerRequest::AnswerOwner(..)
        | ServerRequest::PutLease(..)
        | ServerRequest::DeleteLease(..)
        | ServerRequest::ReadLease(..)
        | ServerRequest::WatchLeases(_)
        | ServerRequest::Cursor(_)
        | ServerRequest::Cursors
        | ServerRequest::ArchiveMark(_)
        | ServerRequest::Archive(..)
        | ServerRequest::LoadRows(_)
        | ServerRequest::Dispatches
        | ServerRequest::Apply(_)
        | ServerRequest::Restore(_) => return None,
    };
    Some(reply)
}

fn trim(env: &mut Environment, log: LogId, first_kept: u64) -> ServerReply {
    let Some(count) = env.broker.trim(log, first_kept) else {
        return ServerReply::StreamMissing;
    };
    env.trace(format_args!("{log} loses {count} before {first_kept}"));
    if count > 0 {
        env.invariants.trimmed(log, first_kept);
    }
    ServerReply::Trimmed(count)
}

/// Writes the rows of a checkpoint.
pub(super) fn restore_rows(env: &mut Environment, restore: &Restore) -> bool {
    let partition = restore.partition;
    let Some(cursor) = &restore.rows.cursor else {
        return false;
    };
    let before = env.database.cursor(partition).cloned();
    if !env.database.restore_rows(restore) {
        return false;
    }
    env.trace(format_args!(
        "rows of {partition} are those of a checkpoint at {}",
        cursor.out_seq
    ));
    let database = &env.database;
    let snapshot = || database.load(partition);
    env.invariants
        .restored(partition, (before.as_ref(), cursor), snapshot);
    true
}

/// Moves the mark of the archive.
pub(super) fn archive(
    env: &mut Environment,
    (log, previous): (LogId, u64),
    mark: ArchiveMark,
) -> ServerReply {
    let is_archived = env.database.archive(log, previous, mark);
    if is_archived {
        env.invariants.archived(log, mark.seq);
    }
    ServerReply::Applied(is_archived)
}
