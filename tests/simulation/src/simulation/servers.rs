//! The servers: each call is processed when it arrives, and its reply is sent.

mod retention;

use std::rc::Rc;

use nixfleet_bus::lease::Content;
use nixfleet_proto::subject::Partition;
use nixfleet_proto::wire::OwnerHeartbeat;

use super::environment::Environment;
use super::event::SimulationEvent;
use crate::addressing::{Caller, Service};
use crate::engine::Time;
use crate::simulated_servers::broker::PendingFetch;
use crate::simulated_servers::lease_bucket::{KeyChange, LeaseKey, content, ttl};
use crate::simulated_servers::stream::{AppendRefusal, NewMessage, StoredMessage, Stream};
use crate::simulated_servers::{Connection, LogId, ServerReply, ServerRequest, Turn};
use crate::simulation::entry_summary::EntrySummary;
use retention::{archive, restore_rows, retention};

/// Processes a call.
pub fn serve(env: &mut Environment, caller: Caller, request: &ServerRequest) {
    let server = request.server();
    let is_down = match server {
        Connection::Publishing | Connection::Reading | Connection::Leasing => {
            env.now < env.broker_down_until
        }
        Connection::Database => env.now < env.database_down_until,
    };
    if is_down {
        return;
    }
    if let Some(reply) = answer(env, caller, request) {
        env.reply(caller, server, reply);
    }
}

/// The reply of a server; absent when it comes later or not at all.
fn answer(env: &mut Environment, caller: Caller, request: &ServerRequest) -> Option<ServerReply> {
    let reply = match request {
        ServerRequest::Publish(log, message) => publish(env, caller, (*log, message)),
        ServerRequest::LastMessage(log) => match env.broker.stream(*log) {
            Some(stream) => ServerReply::LastMessage(stream.last().cloned()),
            None => ServerReply::StreamMissing,
        },
        ServerRequest::MessageIdAt(log, seq) => match env.broker.stream(*log) {
            Some(stream) => {
                ServerReply::MessageId(stream.get(*seq).map(|message| message.msg_id.clone()))
            }
            None => ServerReply::StreamMissing,
        },
        ServerRequest::Identity(log) => match env.broker.identity(*log) {
            Some(identity) => ServerReply::Identity(identity),
            None => ServerReply::StreamMissing,
        },
        ServerRequest::Fetch { log, from, max } => {
            return fetch(env, *log, PendingFetch::new(caller, *from, *max));
        }
        ServerRequest::LogUsage(_)
        | ServerRequest::OutputMessageAt(..)
        | ServerRequest::AnnouncedCheckpoints(_)
        | ServerRequest::Trim(..)
        | ServerRequest::PutCheckpoint(..)
        | ServerRequest::GetCheckpoint(..)
        | ServerRequest::AreCheckpointsStored(..)
        | ServerRequest::DeleteObsoleteCheckpoints(..) => retention(env, request)?,
        ServerRequest::EnsureLayout(recorded) => {
            env.broker.ensure_layout(recorded, env.now.wall(0));
            ServerReply::LayoutReady
        }
        ServerRequest::AskOwner(partition, heartbeat) => {
            ask_owner(env, caller, (*partition, heartbeat.clone()));
            return None;
        }
        ServerRequest::AnswerOwner(asked, reply) => {
            env.reply(
                *asked,
                Connection::Publishing,
                ServerReply::OwnerReply(reply.clone()),
            );
            return None;
        }
        ServerRequest::PutLease(service, key, record, expected) => {
            let key = (*service, key.clone());
            let until = env.now + ttl(record);
            put_lease(env, &key, (content(record), *expected), until)
        }
        ServerRequest::DeleteLease(service, key, expected) => {
            let key = (*service, key.clone());
            put_lease(env, &key, (Content::Absent, *expected), env.now)
        }
        ServerRequest::ReadLease(service, key) => {
            ServerReply::LeaseFound(env.broker.leases.read(&(*service, key.clone())))
        }
        ServerRequest::WatchLeases(service) => {
            watch_leases(env, caller, *service);
            ServerReply::LeasesCaughtUp
        }
        ServerRequest::Cursor(_)
        | ServerRequest::Cursors
        | ServerRequest::ArchiveMark(_)
        | ServerRequest::Archive(..)
        | ServerRequest::LoadRows(_)
        | ServerRequest::Dispatches
        | ServerRequest::Apply(_)
        | ServerRequest::Restore(_) => database(env, request)?,
    };
    Some(reply)
}

/// The replies of the database.
fn database(env: &mut Environment, request: &ServerRequest) -> Option<ServerReply> {
    let reply = match request {
        ServerRequest::Cursor(partition) => {
            ServerReply::Cursor(env.database.cursor(*partition).cloned())
        }
        ServerRequest::Cursors => ServerReply::Cursors(env.database.recorded()),
        ServerRequest::ArchiveMark(log) => {
            ServerReply::ArchiveMark(env.database.archive_mark(*log))
        }
        ServerRequest::Archive(log, previous, mark) => archive(env, (*log, *previous), *mark),
        ServerRequest::LoadRows(partition) => {
            ServerReply::Rows(Box::new(env.database.load(*partition)))
        }
        ServerRequest::Dispatches => {
            ServerReply::Dispatches(env.database.dispatches(), env.database.cursors())
        }
        ServerRequest::Apply(turn) => ServerReply::Applied(apply(env, turn)),
        ServerRequest::Restore(restore) => ServerReply::Applied(restore_rows(env, restore)),
        ServerRequest::Publish(..)
        | ServerRequest::LastMessage(_)
        | ServerRequest::MessageIdAt(..)
        | ServerRequest::Identity(_)
        | ServerRequest::Fetch { .. }
        | ServerRequest::LogUsage(_)
        | ServerRequest::OutputMessageAt(..)
        | ServerRequest::AnnouncedCheckpoints(_)
        | ServerRequest::Trim(..)
        | ServerRequest::PutCheckpoint(..)
        | ServerRequest::GetCheckpoint(..)
        | ServerRequest::AreCheckpointsStored(..)
        | ServerRequest::DeleteObsoleteCheckpoints(..)
        | ServerRequest::EnsureLayout(_)
        | ServerRequest::AskOwner(..)
        | ServerRequest::AnswerOwner(..)
        | ServerRequest::PutLease(..)
        | ServerRequest::DeleteLease(..)
        | ServerRequest::ReadLease(..)
        | ServerRequest::WatchLeases(_) => return None,
    };
    Some(reply)
}

/// Passes a heartbeat on to everyone who serves the partition.
fn ask_owner(
    env: &mut Environment,
    caller: Caller,
    (partition, heartbeat): (Partition, Box<OwnerHeartbeat>),
) {
    for owner in env.owners.get(&partition).cloned().unwrap_or_default() {
        let delay = env.delay(Connection::Reading);
        let event = SimulationEvent::HeartbeatArrives {
            to: owner,
            partition,
            heartbeat: heartbeat.clone(),
            caller,
        };
        env.schedule(delay, event);
    }
}

/// Sends the records of a service, and from then on every change of them.
fn watch_leases(env: &mut Environment, caller: Caller, service: Service) {
    for (key, observed) in env.broker.leases.watch(service, caller) {
        let reply = ServerReply::LeaseChanged(key, observed);
        env.deliver(caller, Connection::Leasing, reply);
    }
}

fn publish(
    env: &mut Environment,
    caller: Caller,
    (log, message): (LogId, &NewMessage),
) -> ServerReply {
    let now = env.now.wall(0);
    if env.is_full(log) {
        let stream = env.broker.stream(log);
        if stream.is_some_and(|stream| !stream.has_id(&message.msg_id)) {
            return ServerReply::Published(Err(AppendRefusal::Full));
        }
    }
    let Some(result) = env.broker.publish(log, message.clone(), now) else {
        return ServerReply::StreamMissing;
    };
    if result == Err(AppendRefusal::Full) {
        env.trace(format_args!("{log} is full"));
        env.invariants.refused(caller.process, log);
    }
    if let Ok(ack) = result
        && !ack.duplicate
    {
        stored(env, log, ack.seq);
        let message = env
            .broker
            .stream(log)
            .and_then(|stream| stream.get(ack.seq));
        let frame = message.and_then(|message| message.output());
        if let LogId::Output(partition) = log
            && frame.is_some_and(|frame| !frame.outcomes.is_empty())
        {
            env.invariants.appended(caller.process, partition);
        }
    }
    ServerReply::Published(result)
}

fn put_lease(
    env: &mut Environment,
    key: &LeaseKey,
    what: (Content, u64),
    until: Time,
) -> ServerReply {
    let (written, changed) = env.broker.leases.write(key, what, until);
    if let Some(changed) = changed {
        if until > env.now {
            let event = SimulationEvent::LeaseExpires(key.clone(), changed.observed.revision);
            env.schedule_at(until, event);
        }
        show(env, changed);
    }
    ServerReply::LeaseWritten(written)
}

/// Sends a change to all watchers; a lost message ends the watch without notice.
pub fn show(env: &mut Environment, changed: KeyChange) {
    for watcher in changed.watchers {
        if env.chance(env.fault_rates.lost_reply) {
            env.broker.leases.silence(watcher);
            continue;
        }
        let reply = ServerReply::LeaseChanged(changed.key.clone(), changed.observed.clone());
        env.deliver(watcher, Connection::Leasing, reply);
    }
}

fn apply(env: &mut Environment, turn: &Turn) -> bool {
    let partition = turn.partition;
    let before = env.database.cursor(partition).cloned();
    if !env.database.apply(turn) {
        return false;
    }
    env.trace(format_args!(
        "rows of {partition} are at {}",
        turn.cursor.out_seq
    ));
    let database = &env.database;
    let snapshot = || database.load(partition);
    let cursors = (before.as_ref(), &turn.cursor);
    env.invariants.committed(partition, cursors, snapshot);
    true
}

/// Passes a stored message to the invariants and to pending fetches.
pub fn stored(env: &mut Environment, log: LogId, seq: u64) {
    let message = env.broker.stream(log).and_then(|stream| stream.get(seq));
    let Some(message) = message.cloned() else {
        return;
    };
    match log {
        LogId::Input(partition) => {
            trace_input(env, log, &message);
            env.invariants.input_stored(partition, &message);
        }
        LogId::Output(partition) => {
            trace_output(env, log, &message);
            let input = env.broker.stream(LogId::Input(partition));
            let begins = input.map_or(1, Stream::first_seq);
            let objects = &env.broker.checkpoints;
            env.invariants
                .output_stored((partition, begins), &message, objects);
        }
    }
    for pending in env.broker.wake(log) {
        if let Some(reply) = fetch(env, log, pending) {
            env.reply(pending.caller, Connection::Reading, reply);
        }
    }
}

/// Messages from a sequence on; without any, the fetch waits. With faults, a delivery begins too early or
/// misses its first message, as after the loss of a consumer.
fn fetch(env: &mut Environment, log: LogId, pending: PendingFetch) -> Option<ServerReply> {
    let PendingFetch { from, max, .. } = pending;
    let Some(identity) = env.broker.identity(log) else {
        return Some(ServerReply::StreamMissing);
    };
    if identity.last_seq + 1 == from {
        env.broker.wait(log, pending);
        return None;
    }
    let start = if env.chance(env.fault_rates.redelivery) {
        from.saturating_sub(env.network_rng.range(1, 3))
            .max(identity.first_seq)
    } else {
        from
    };
    let mut messages = env.broker.read(log, start, max);
    if env.chance(env.fault_rates.gap) && messages.len() > 1 {
        messages.remove(0);
    }
    let stream = env.broker.stream(log);
    let previous = stream.and_then(|stream| stream.get(from.checked_sub(1)?).cloned());
    Some(ServerReply::Messages {
        messages,
        identity,
        previous,
    })
}

fn trace_input(env: &mut Environment, log: LogId, message: &Rc<StoredMessage>) {
    let Some(frame) = message.input().cloned() else {
        let seq = message.seq;
        return env.trace(format_args!("{log:?} {seq}: cannot be read"));
    };
    for (index, entry) in frame.entries.iter().enumerate() {
        let detail = EntrySummary(&entry.body);
        env.trace(format_args!("{log} {}.{index}: {detail}", message.seq));
    }
}

fn trace_output(env: &mut Environment, log: LogId, message: &Rc<StoredMessage>) {
    let Some(frame) = message.output().cloned() else {
        let seq = message.seq;
        return env.trace(format_args!("{log:?} {seq}: cannot be read"));
    };
    let (seq, epoch) = (message.seq, frame.epoch);
    let Some(first) = frame.first_input else {
        let what = match &frame.checkpoints {
            Some(_) => "announces a checkpoint",
            None => "begins",
        };
        return env.trace(format_args!("{log} {seq}: epoch {epoch} {what}"));
    };
    let rejected = frame
        .outcomes
        .iter()
        .filter(|o| o.decision.name() != "accepted");
    let rejected = rejected.count();
    env.trace(format_args!(
        "{log} {seq}: epoch {epoch}, {} outcomes from {}.{}, {rejected} rejected",
        frame.outcomes.len(),
        first.seq,
        first.index
    ));
}
