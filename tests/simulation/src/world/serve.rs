//! The servers at work: a call arrives, something happens at once, an answer leaves.

mod retained;

use std::rc::Rc;

use nixfleet_bus::lease::Content;

use super::env::Env;
use super::event::{Caller, Event};
use crate::engine::Time;
use crate::model::broker::Waiting;
use crate::model::kv::{Changed, Key, content, ttl};
use crate::model::log::{Publish, Refused, Stored, Stream};
use crate::model::{Log, Op, Reply, Server, Turn};
use crate::world::detail::Detail;

use retained::{archive, restore_rows, retention};

/// Lets a server take a call.
pub fn serve(env: &mut Env, caller: Caller, op: &Op) {
    let server = op.server();
    let is_down = match server {
        Server::Publishing | Server::Reading | Server::Leasing => env.now < env.broker_back_at,
        Server::Database => env.now < env.database_back_at,
    };
    if is_down {
        return;
    }
    if let Some(reply) = answer(env, caller, op) {
        env.reply(caller, server, reply);
    }
}

/// What a server answers, unless it is silent for now.
fn answer(env: &mut Env, caller: Caller, op: &Op) -> Option<Reply> {
    let reply = match op {
        Op::Publish(log, message) => publish(env, caller, (*log, message)),
        Op::Last(log) => match env.broker.stream(*log) {
            Some(stream) => Reply::Last(stream.last().cloned()),
            None => Reply::Missing,
        },
        Op::IdAt(log, seq) => match env.broker.stream(*log) {
            Some(stream) => Reply::IdAt(stream.get(*seq).map(|message| message.msg_id.clone())),
            None => Reply::Missing,
        },
        Op::Identity(log) => match env.broker.identity(*log) {
            Some(identity) => Reply::Identity(identity),
            None => Reply::Missing,
        },
        Op::Fetch(log, from, max) => return fetch(env, *log, (caller, *from, *max)),
        Op::Fills(_)
        | Op::OutputAt(..)
        | Op::Announced(_)
        | Op::Trim(..)
        | Op::PutCheckpoint(..)
        | Op::GetCheckpoint(..)
        | Op::HoldsCheckpoints(..)
        | Op::KeepCheckpoints(..) => retention(env, op)?,
        Op::EnsureLayout(remembered) => {
            env.broker.ensure_layout(remembered, env.now.wall(0));
            Reply::LayoutReady
        }
        Op::AskOwner(partition, heartbeat) => {
            for owner in env.owners.get(partition).cloned().unwrap_or_default() {
                let delay = env.delay(Server::Reading);
                let event = Event::Heartbeat(owner, *partition, heartbeat.clone(), caller);
                env.plan(delay, event);
            }
            return None;
        }
        Op::AnswerOwner(asked, reply) => {
            env.reply(*asked, Server::Publishing, Reply::Owner(reply.clone()));
            return None;
        }
        Op::PutLease(service, key, record, expected) => {
            let key = (*service, key.clone());
            let until = env.now + ttl(record);
            put_lease(env, &key, (content(record), *expected), until)
        }
        Op::DeleteLease(service, key, expected) => {
            let key = (*service, key.clone());
            put_lease(env, &key, (Content::Absent, *expected), env.now)
        }
        Op::ReadLease(service, key) => {
            Reply::LeaseFound(env.broker.leases.read(&(*service, key.clone())))
        }
        Op::WatchLeases(service) => {
            for (key, observed) in env.broker.leases.watch(*service, caller) {
                env.deliver(caller, Server::Leasing, Reply::LeaseSeen(key, observed));
            }
            Reply::LeasesCaughtUp
        }
        Op::Cursor(partition) => Reply::Cursor(env.database.cursor(*partition).cloned()),
        Op::Cursors => Reply::Cursors(env.database.remembered()),
        Op::ArchiveMark(log) => Reply::ArchiveMark(env.database.archive_mark(*log)),
        Op::Archive(log, previous, mark) => archive(env, (*log, *previous), *mark),
        Op::Load(partition) => Reply::Snapshot(Box::new(env.database.load(*partition))),
        Op::Dispatches => Reply::Dispatches(env.database.dispatches(), env.database.cursors()),
        Op::Apply(turn) => Reply::Applied(apply(env, turn)),
        Op::Restore(restore) => Reply::Applied(restore_rows(env, restore)),
    };
    Some(reply)
}

fn publish(env: &mut Env, caller: Caller, (log, message): (Log, &Publish)) -> Reply {
    let now = env.now.wall(0);
    let Some(result) = env.broker.publish(log, message.clone(), now) else {
        return Reply::Missing;
    };
    if result == Err(Refused::Full) {
        env.trace(format_args!("{log} is full"));
        env.checks.refused(caller.process, log);
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
        if let Log::Output(partition) = log
            && frame.is_some_and(|frame| !frame.outcomes.is_empty())
        {
            env.checks.appended(caller.process, partition);
        }
    }
    Reply::Published(result)
}

fn put_lease(env: &mut Env, key: &Key, what: (Content, u64), until: Time) -> Reply {
    let (written, changed) = env.broker.leases.write(key, what, until);
    if let Some(changed) = changed {
        if until > env.now {
            let event = Event::LeaseOver(key.clone(), changed.observed.revision);
            env.plan_at(until, event);
        }
        show(env, changed);
    }
    Reply::LeaseWritten(written)
}

/// Whoever watches sees what changed, unless his watch falls silent.
pub fn show(env: &mut Env, changed: Changed) {
    for watcher in changed.watchers {
        if env.strikes(env.noise.lost_reply) {
            env.broker.leases.silence(watcher);
            continue;
        }
        let reply = Reply::LeaseSeen(changed.key.clone(), changed.observed.clone());
        env.deliver(watcher, Server::Leasing, reply);
    }
}

fn apply(env: &mut Env, turn: &Turn) -> bool {
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
    env.checks.committed(partition, cursors, snapshot);
    true
}

/// A message is there: whoever waits for it gets it, and the invariants see it.
pub fn stored(env: &mut Env, log: Log, seq: u64) {
    let message = env.broker.stream(log).and_then(|stream| stream.get(seq));
    let Some(message) = message.cloned() else {
        return;
    };
    match log {
        Log::Input(partition) => {
            trace_input(env, log, &message);
            env.checks.input_stored(partition, &message);
        }
        Log::Output(partition) => {
            trace_output(env, log, &message);
            let input = env.broker.stream(Log::Input(partition));
            let begins = input.map_or(1, Stream::first_seq);
            let objects = &env.broker.checkpoints;
            env.checks
                .output_stored((partition, begins), &message, objects);
        }
    }
    for waiting in env.broker.wake(log) {
        let asked = (waiting.caller, waiting.from, waiting.max);
        if let Some(reply) = fetch(env, log, asked) {
            env.reply(waiting.caller, Server::Reading, reply);
        }
    }
}

/// Messages from a position on; without any, the fetch waits. Under noise a delivery may begin too
/// early or miss its first message, as those of a lost consumer do.
fn fetch(env: &mut Env, log: Log, (caller, from, max): (Caller, u64, usize)) -> Option<Reply> {
    let Some(identity) = env.broker.identity(log) else {
        return Some(Reply::Missing);
    };
    if identity.last_seq + 1 == from {
        let waiting = Waiting { caller, from, max };
        env.broker.wait(log, waiting);
        return None;
    }
    let start = if env.strikes(env.noise.redelivery) {
        from.saturating_sub(env.net.range(1, 3))
            .max(identity.first_seq)
    } else {
        from
    };
    let mut messages = env.broker.read(log, start, max);
    if env.strikes(env.noise.gap) && messages.len() > 1 {
        messages.remove(0);
    }
    let stream = env.broker.stream(log);
    let before = stream.and_then(|stream| stream.get(from.checked_sub(1)?).cloned());
    Some(Reply::Messages(messages, identity, before))
}

fn trace_input(env: &mut Env, log: Log, message: &Rc<Stored>) {
    let Some(frame) = message.input().cloned() else {
        let seq = message.seq;
        return env.trace(format_args!("{log:?} {seq}: cannot be read"));
    };
    for (index, entry) in frame.entries.iter().enumerate() {
        let detail = Detail(&entry.body);
        env.trace(format_args!("{log} {}.{index}: {detail}", message.seq));
    }
}

fn trace_output(env: &mut Env, log: Log, message: &Rc<Stored>) {
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
