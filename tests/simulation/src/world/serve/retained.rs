//! Calls that keep the logs within their limits: checkpoints and trimming.

use crate::model::{ArchiveMark, Log, Op, Reply, Restore};
use crate::world::env::Env;

/// What keeps the logs within their limits: checkpoints and trimming.
pub(super) fn retention(env: &mut Env, op: &Op) -> Option<Reply> {
    let reply = match op {
        Op::Fills(partition) => {
            let input = env.broker.fill(Log::Input(*partition));
            let output = env.broker.fill(Log::Output(*partition));
            match (input, output) {
                (Some(input), Some(output)) => Reply::Fills(input, output),
                _ => Reply::Missing,
            }
        }
        Op::OutputAt(partition, seq) => match env.broker.stream(Log::Output(*partition)) {
            Some(stream) => Reply::At(stream.get(*seq).cloned()),
            None => Reply::Missing,
        },
        Op::Announced(partition) => match env.broker.announced(*partition) {
            Some((first_seq, announced)) => Reply::Announced(first_seq, announced),
            None => Reply::Missing,
        },
        Op::Trim(log, first_kept) => trim(env, *log, *first_kept),
        Op::PutCheckpoint(partition, named, bytes) => {
            let hash = &named.hash[..8];
            let (out_seq, size) = (named.out_seq, named.bytes);
            env.trace(format_args!(
                "checkpoint {hash} of {partition} at {out_seq} is stored, {size} bytes"
            ));
            let objects = &mut env.broker.checkpoints;
            objects.put(*partition, named, bytes.clone());
            Reply::CheckpointDone
        }
        Op::GetCheckpoint(partition, named) => {
            Reply::Checkpoint(env.broker.checkpoints.get(*partition, named).cloned())
        }
        Op::HoldsCheckpoints(partition, announced) => {
            let objects = &env.broker.checkpoints;
            let mut named = announced.newest_first();
            Reply::HoldsCheckpoints(named.all(|named| objects.holds(*partition, named)))
        }
        Op::KeepCheckpoints(partition, kept) => {
            env.broker.checkpoints.delete_obsolete(*partition, kept);
            env.checks.deleted(*partition, &env.broker.checkpoints);
            Reply::CheckpointDone
        }
        Op::Publish(..)
        | Op::Last(_)
        | Op::IdAt(..)
        | Op::Identity(_)
        | Op::Fetch(..)
        | Op::EnsureLayout(_)
        | Op::AskOwner(..)
        | Op::AnswerOwner(..)
        | Op::PutLease(..)
        | Op::DeleteLease(..)
        | Op::ReadLease(..)
        | Op::WatchLeases(_)
        | Op::Cursor(_)
        | Op::Cursors
        | Op::ArchiveMark(_)
        | Op::Archive(..)
        | Op::Load(_)
        | Op::Dispatches
        | Op::Apply(_)
        | Op::Restore(_) => return None,
    };
    Some(reply)
}

fn trim(env: &mut Env, log: Log, first_kept: u64) -> Reply {
    let Some(count) = env.broker.trim(log, first_kept) else {
        return Reply::Missing;
    };
    env.trace(format_args!("{log} loses {count} before {first_kept}"));
    if count > 0 {
        env.checks.trimmed(log, first_kept);
    }
    Reply::Trimmed(count)
}

/// Writes the rows of a checkpoint.
pub(super) fn restore_rows(env: &mut Env, restore: &Restore) -> bool {
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
    env.checks
        .restored(partition, (before.as_ref(), cursor), snapshot);
    true
}

/// Moves the mark of the archive.
pub(super) fn archive(env: &mut Env, (log, previous): (Log, u64), mark: ArchiveMark) -> Reply {
    let is_archived = env.database.archive(log, previous, mark);
    if is_archived {
        env.checks.archived(log, mark.seq);
    }
    Reply::Applied(is_archived)
}
