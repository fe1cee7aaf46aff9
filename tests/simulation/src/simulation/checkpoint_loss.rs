//! Loss and corruption of checkpoint objects.

use bytes::Bytes;
use chrono::TimeDelta;
use nixfleet_checkpoint::{Checkpoint, CheckpointIdentity, encode};
use nixfleet_proto::CheckpointRef;
use nixfleet_proto::subject::Partition;

use super::environment::Environment;
use crate::scenario::CheckpointLoss;
use crate::simulated_servers::LogId;

/// Attempts to find other bytes of the same size.
const ATTEMPTS: i64 = 64;

/// Part of a log up to which an object may be missing, in percent: until two more checkpoints are announced
/// nothing is trimmed.
const FILLED_PERCENT: u64 = 40;

/// Damages the newest announced checkpoint of a partition, unless the one before it is damaged: with both
/// gone nothing would be left to restore.
pub fn damage(partition: Partition, loss: CheckpointLoss, env: &mut Environment) {
    let Some((_, announced)) = env.broker.announced(partition) else {
        return;
    };
    let (Some(last), Some(previous)) = (announced.last, announced.previous) else {
        return;
    };
    if !env.invariants.is_intact(&previous.hash) {
        return;
    }
    let mut logs = [LogId::Input(partition), LogId::Output(partition)].into_iter();
    let is_filled = |log| {
        let usage = env.broker.usage(log);
        usage.is_some_and(|usage| usage.percent() > FILLED_PERCENT)
    };
    if loss == CheckpointLoss::Missing && logs.any(is_filled) {
        return;
    }
    let objects = &env.broker.checkpoints;
    let Some(bytes) = objects.get(partition, &last).cloned() else {
        return;
    };
    let bytes = match loss {
        CheckpointLoss::Missing => None,
        CheckpointLoss::Changed => Some(changed(partition, &bytes, &last)),
    };
    let hash = &last.hash;
    env.trace(format_args!(
        "checkpoint {} of {partition}: {loss:?}",
        &hash[..8]
    ));
    env.broker.checkpoints.damage(partition, hash, bytes);
    env.invariants.checkpoint_lost(hash);
}

/// A well-formed checkpoint of another state with the state hash of the original; when none has the same size,
/// bytes that are no checkpoint.
fn changed(partition: Partition, bytes: &Bytes, named: &CheckpointRef) -> Bytes {
    let number = partition.number();
    let other = Checkpoint::decode(bytes, number, named)
        .ok()
        .and_then(|read| {
            let other = |step: i64| {
                let mut rows = read.rows.clone();
                let cursor = rows.cursor.as_mut()?;
                cursor.clock = Some(cursor.clock? + TimeDelta::milliseconds(step * 37));
                let identity = CheckpointIdentity {
                    partition: number,
                    output_created: read.output_created,
                    state_hash: read.state_hash.clone(),
                };
                let encoded = encode(&rows, identity).ok()?;
                (encoded.bytes.len() == bytes.len()).then_some(encoded.bytes)
            };
            (1..ATTEMPTS).find_map(other)
        });
    other.map_or_else(
        || {
            let mut broken = bytes.to_vec();
            if let Some(byte) = broken.last_mut() {
                *byte ^= 1;
            }
            Bytes::from(broken)
        },
        Bytes::from,
    )
}
