//! The lease task of one service: passes events to the core and executes its commands.

mod signals;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use async_nats::jetstream::kv;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt as _, StreamExt as _};
use nixfleet_proto::Timestamp;
use tokio::sync::{mpsc, oneshot};
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::super::core::{Answer, Command, Identity, LeaseCore, Signal};
use super::super::record::InstanceId;
use super::super::{Loss, Timing};
use super::bucket::Bucket;
use super::lease::{Lease, Request, WorkEnd};
use super::membership::Membership;
use crate::Bus;

/// Events processed before the core is polled again, so that a burst costs one poll.
const EVENTS_PER_POLL: usize = 256;

/// Workers that wait for a key, and the lease that one of them holds.
#[derive(Default)]
struct KeyWaiters {
    waiting: VecDeque<oneshot::Sender<Lease>>,
    held: Option<HeldLease>,
}

/// The task's side of a [`Lease`].
struct HeldLease {
    number: u64,
    lost: CancellationToken,
    recalled: CancellationToken,
    /// Ends the wait of a release, however the lease ends.
    _done: DropGuard,
}

/// Channels between the task, the workers and the process.
pub(super) struct TaskChannels {
    pub(super) sender: mpsc::UnboundedSender<Request>,
    pub(super) requests: mpsc::UnboundedReceiver<Request>,
    pub(super) stop: CancellationToken,
}

enum Watch {
    Closed,
    Opening(BoxFuture<'static, Result<Box<kv::Watch>, String>>),
    Open(Box<kv::Watch>),
}

pub(super) struct LeaseTask {
    bus: Bus,
    service: String,
    writer: InstanceId,
    core: LeaseCore,
    bucket: Bucket,
    origin: Instant,
    requests: mpsc::UnboundedReceiver<Request>,
    sender: mpsc::UnboundedSender<Request>,
    answers: FuturesUnordered<BoxFuture<'static, (u64, Answer)>>,
    watch: Watch,
    waiters: BTreeMap<String, KeyWaiters>,
    stop: CancellationToken,
    last_number: u64,
}

enum Event {
    Request(Request),
    Answer(u64, Answer),
    Opened(Result<Box<kv::Watch>, String>),
    Entry(Option<Result<kv::Entry, kv::WatcherError>>),
    Stop,
    Close,
    Due,
}

impl LeaseTask {
    pub(super) fn new(bus: Bus, member: Membership<'_>, channels: TaskChannels) -> Self {
        let writer = InstanceId {
            instance: member.instance.to_owned(),
            // Two memberships of one process are two writers.
            process: bus.ids().next(),
        };
        let me = Identity {
            writer: writer.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            since: Timestamp::from(std::time::SystemTime::now()),
        };
        let timing = Timing::from(member.config);
        let service = member.service.to_owned();
        let waiters = member
            .keys
            .iter()
            .map(|key| (key.clone(), KeyWaiters::default()));
        Self {
            core: LeaseCore::new(me, member.keys, timing, Duration::ZERO),
            bucket: Bucket::new(bus.clone(), service.clone(), timing.ttl),
            origin: Instant::now(),
            requests: channels.requests,
            sender: channels.sender,
            answers: FuturesUnordered::new(),
            watch: Watch::Closed,
            waiters: waiters.collect(),
            stop: channels.stop,
            last_number: 0,
            writer,
            service,
            bus,
        }
    }

    /// Runs until the process stops and everything is released.
    pub(super) async fn run(mut self) {
        let mut stopping = false;
        let mut closing = false;
        loop {
            let now = self.now();
            for command in self.core.poll(now) {
                self.execute(command);
            }
            self.report_waiters();
            if self.core.is_ended() {
                break;
            }
            let event = self.next(stopping, closing).await;
            stopping |= matches!(event, Event::Stop);
            closing |= matches!(event, Event::Close);
            self.take(event);
            for _ in 0..EVENTS_PER_POLL {
                let Some(event) = self.ready() else { break };
                self.take(event);
            }
        }
        self.bus.set_membership_fault(&self.service, None);
    }

    fn now(&self) -> Duration {
        self.origin.elapsed()
    }

    async fn next(&mut self, stopping: bool, closing: bool) -> Event {
        let due = self.core.due().map(|due| self.origin + due);
        let sleep = async {
            match due {
                Some(due) => tokio::time::sleep_until(due).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            Some(request) = self.requests.recv() => Event::Request(request),
            Some((ticket, answer)) = self.answers.next() => Event::Answer(ticket, answer),
            event = next_of(&mut self.watch) => event,
            () = self.stop.cancelled(), if !stopping => Event::Stop,
            () = self.bus.closing().cancelled(), if !closing => Event::Close,
            () = sleep => Event::Due,
        }
    }

    /// The next event that is ready.
    fn ready(&mut self) -> Option<Event> {
        if let Ok(request) = self.requests.try_recv() {
            return Some(Event::Request(request));
        }
        if let Some(Some((ticket, answer))) = self.answers.next().now_or_never() {
            return Some(Event::Answer(ticket, answer));
        }
        next_of(&mut self.watch).now_or_never()
    }

    fn take(&mut self, event: Event) {
        let now = self.now();
        match event {
            Event::Request(request) => self.take_request(now, request),
            Event::Answer(ticket, answer) => self.core.answered(now, ticket, answer),
            Event::Opened(Ok(watch)) => self.watch = Watch::Open(watch),
            Event::Opened(Err(reason)) => {
                tracing::debug!(service = self.service, reason, "leases cannot be watched");
                self.end_watch(now);
            }
            Event::Entry(Some(Ok(entry))) => {
                if let Some((key, observed)) = Bucket::observed(&entry) {
                    self.core.watched(now, &key, observed);
                }
                if entry.seen_current {
                    self.core.watch_caught_up(now);
                }
            }
            Event::Entry(Some(Err(error))) => {
                tracing::debug!(service = self.service, %error, "the watch over leases failed");
                self.end_watch(now);
            }
            Event::Entry(None) => self.end_watch(now),
            Event::Stop => self.core.stop(now),
            Event::Close => self.core.close(now),
            Event::Due => {}
        }
    }

    fn end_watch(&mut self, now: Duration) {
        self.watch = Watch::Closed;
        self.core.watch_ended(now);
    }

    fn take_request(&mut self, now: Duration, request: Request) {
        match request {
            Request::Want { key, sender } => {
                if let Some(entry) = self.waiters.get_mut(&key) {
                    entry.waiting.push_back(sender);
                }
            }
            Request::CancelWant { key } => {
                let Some(entry) = self.waiters.get_mut(&key) else {
                    return;
                };
                entry.waiting.retain(|waiting| !waiting.is_closed());
                if entry.waiting.is_empty() {
                    self.core.cancel_want(now, &key);
                }
            }
            Request::Release { key, number, end } => {
                let Some(held) = self.held(&key, number) else {
                    return;
                };
                held.lost.cancel();
                match end {
                    WorkEnd::Done => self.core.release(now, &key),
                    WorkEnd::Failed => self.core.give_up(now, &key),
                }
            }
            Request::Progress {
                key,
                number,
                epoch,
                held,
            } => {
                if self.held(&key, number).is_some() {
                    self.core.set_progress(now, &key, (epoch, held));
                }
            }
        }
    }

    fn held(&mut self, key: &str, number: u64) -> Option<&HeldLease> {
        let held = self.waiters.get(key)?.held.as_ref()?;
        (held.number == number).then_some(held)
    }

    fn report_waiters(&mut self) {
        for (key, entry) in &self.waiters {
            if entry.held.is_none() && !entry.waiting.is_empty() {
                self.core.want(key);
            }
        }
    }

    fn execute(&mut self, command: Command) {
        let bucket = self.bucket.clone();
        match command {
            Command::Watch => {
                self.watch =
                    Watch::Opening(async move { bucket.watch().await.map(Box::new) }.boxed());
            }
            Command::Put {
                ticket,
                key,
                record,
                expected,
            } => {
                let put = async move {
                    let written = bucket.put(&key, &record, expected).await;
                    (ticket, Answer::Written(written))
                };
                self.answers.push(put.boxed());
            }
            Command::Delete {
                ticket,
                key,
                expected,
            } => {
                let delete = async move {
                    let written = bucket.delete(&key, expected).await;
                    (ticket, Answer::Written(written))
                };
                self.answers.push(delete.boxed());
            }
            Command::Read { ticket, key } => {
                let read = async move {
                    let found = bucket.read(&key).await;
                    (ticket, found.map_or(Answer::NoAnswer, Answer::Found))
                };
                self.answers.push(read.boxed());
            }
            Command::Signal(signal) => self.signal(signal),
        }
    }
}

async fn next_of(watch: &mut Watch) -> Event {
    match watch {
        Watch::Closed => std::future::pending().await,
        Watch::Opening(opening) => Event::Opened(opening.await),
        Watch::Open(open) => Event::Entry(open.next().await),
    }
}
