//! Group commit.

use std::collections::{BTreeMap, BTreeSet};

use nixfleet_bus::{AppendError, Bus, BusConfig, Message, decode_input};
use nixfleet_harness::proxy::ProxyMode;
use nixfleet_harness::unique_prefix;
use nixfleet_harness::{Nats, incompressible_text, shared_nats, wait_for};
use nixfleet_proto::{EntryBody, Position};

use super::{SOON, config, connect_through_proxy, entry, entry_with_closure, p0, read, ready};

const ROLLOUTS: [&str; 3] = ["stable@aa", "stable@bb", "edge@cc"];

/// Content of the log: position, host and number of each entry.
pub(super) fn entries(messages: &[Message]) -> Vec<(Position, String, usize)> {
    let mut all = Vec::new();
    for message in messages {
        let frame = decode_input(message).unwrap();
        for (index, entry) in (0_u32..).zip(frame.entries) {
            let EntryBody::RecoveryCandidate {
                hostname,
                current_closure,
                ..
            } = entry.body
            else {
                panic!("another entry: {:?}", entry.body);
            };
            let position = Position {
                seq: message.seq,
                index,
            };
            let number = current_closure.as_str().parse().unwrap();
            all.push((position, hostname.to_string(), number));
        }
    }
    all
}

pub(super) async fn whole_log(bus: &Bus) -> Vec<Message> {
    let stream = bus.names().input_stream(p0());
    let last = bus.stream_identity(&stream).await.unwrap().last_seq;
    read(&mut bus.reader(&stream, 1), last as usize).await
}

/// Hosts that send each event after the response to the previous one.
async fn run_hosts(bus: &Bus, hosts: usize, events: usize) -> Vec<(Position, String, usize)> {
    let input = bus.input();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..hosts {
        let input = input.clone();
        tasks.spawn(async move {
            let host = format!("host-{number}");
            let rollout = ROLLOUTS[number % ROLLOUTS.len()];
            let mut positions = Vec::new();
            for event in 0..events {
                let position = input.append(p0(), entry(rollout, &host, event)).await;
                positions.push((position.unwrap(), host.clone(), event));
            }
            positions
        });
    }
    let mut all: Vec<_> = tasks.join_all().await.into_iter().flatten().collect();
    all.sort();
    all
}

#[tokio::test]
async fn entries_share_frames_and_every_host_keeps_its_order() {
    let bus = super::bus("framing").await;
    let told = run_hosts(&bus, 60, 20).await;
    let messages = whole_log(&bus).await;
    let stored = entries(&messages);
    // Acknowledged positions equal stored positions, entry by entry.
    assert_eq!(stored, told);
    assert!(
        messages.len() * 3 < stored.len(),
        "{} messages for {} entries",
        messages.len(),
        stored.len()
    );
    let mut next: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, host, number) in &stored {
        let expected = next.entry(host).or_default();
        assert_eq!(number, expected, "{host}");
        *expected += 1;
    }
    for message in &messages {
        let frame = decode_input(message).unwrap();
        let rollouts: BTreeSet<_> = frame.entries.iter().map(|e| e.body.rollout_id()).collect();
        assert_eq!(rollouts.len(), 1, "a frame belongs to one subject");
    }
    bus.close().await;
}

#[tokio::test]
async fn many_entries_are_appended_in_order_and_split_into_frames() {
    let bus = super::bus("appendall").await;
    let entries_in: Vec<_> = (0..2_000).map(|n| entry("stable@aa", "h", n)).collect();
    let positions = bus.input().append_all(p0(), entries_in).await.unwrap();
    assert!(positions.is_sorted() && positions.len() == 2_000);
    let numbers: Vec<_> = entries(&whole_log(&bus).await)
        .into_iter()
        .map(|(_, _, number)| number)
        .collect();
    assert_eq!(numbers, (0..2_000).collect::<Vec<_>>());
    bus.close().await;
}

#[tokio::test]
async fn an_entry_whose_acknowledgement_is_lost_is_stored_once() {
    let direct = super::bus("retryonce").await;
    let (through, proxy) = connect_through_proxy(direct.config()).await;
    let bus = Bus::connect(through, "test/proxied").await.unwrap();
    let stream = bus.names().input_stream(p0());
    let input = bus.input();
    input
        .append(p0(), entry("stable@aa", "h", 0))
        .await
        .unwrap();

    proxy.set(ProxyMode::HoldReplies);
    let append = tokio::spawn(async move { input.append(p0(), entry("stable@aa", "h", 1)).await });
    wait_for("the entry to be stored", SOON, || async {
        let identity = direct.stream_identity(&stream).await?;
        Ok((identity.last_seq == 2).then_some(()))
    })
    .await
    .unwrap();
    proxy.reconnect();
    let position = append.await.unwrap().unwrap();
    assert_eq!(position, Position { seq: 2, index: 0 });
    assert_eq!(entries(&whole_log(&direct).await).len(), 2);
    bus.close().await;
    direct.close().await;
}

#[tokio::test]
async fn a_killed_server_neither_loses_nor_duplicates_acknowledged_entries() {
    let mut nats = Nats::start("framing").unwrap();
    let bus = ready(config(&nats.url(), &unique_prefix("kill"))).await;
    let running = {
        let bus = bus.clone();
        tokio::spawn(async move { run_hosts(&bus, 20, 60).await })
    };
    let stream = bus.names().input_stream(p0());
    wait_for("some entries", SOON, || async {
        Ok((bus.stream_identity(&stream).await?.last_seq > 10).then_some(()))
    })
    .await
    .unwrap();
    nats.kill().unwrap();
    nats.restart().unwrap();
    let told = running.await.unwrap();
    assert_eq!(entries(&whole_log(&bus).await), told);
    bus.close().await;
}

#[tokio::test]
async fn a_full_log_refuses_and_an_entry_over_the_limit_is_too_large() {
    let small = BusConfig {
        input_max_bytes: 2 * 1024 * 1024,
        ..config(&shared_nats().unwrap().url(), &unique_prefix("full"))
    };
    let bus = ready(small).await;
    let input = bus.input();
    let big = |bytes: usize| {
        entry_with_closure("stable@aa", "h", &incompressible_text(bytes, bytes as u64))
    };
    let refused = input.append(p0(), big(600 * 1024)).await.unwrap_err();
    assert!(matches!(refused, AppendError::TooLarge { .. }), "{refused}");

    let mut stored = 0;
    let full = loop {
        match input.append(p0(), big(300 * 1024)).await {
            Ok(_) => stored += 1,
            Err(error) => break error,
        }
        assert!(stored < 10);
    };
    assert_eq!(full, AppendError::Full("00".to_owned()));
    let stream = bus.names().input_stream(p0());
    assert_eq!(bus.stream_identity(&stream).await.unwrap().last_seq, stored);
    // The other partition continues.
    let other = nixfleet_proto::subject::Partition::new(1);
    input.append(other, big(10)).await.unwrap();
    bus.close().await;
}

#[tokio::test]
async fn closing_acknowledges_every_accepted_entry() {
    let bus = super::bus("drain").await;
    let input = bus.input();
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..200 {
        let input = input.clone();
        tasks.spawn(async move { input.append(p0(), entry("stable@aa", "h", number)).await });
    }
    tokio::task::yield_now().await;
    let names = bus.names().clone();
    let direct = super::second(&bus).await;
    bus.close().await;
    let answers = tasks.join_all().await;
    let stored: BTreeSet<_> = answers.into_iter().filter_map(Result::ok).collect();
    let last = direct.stream_identity(&names.input_stream(p0())).await;
    assert!(last.unwrap().last_seq >= stored.last().map_or(0, |position| position.seq));
    let logged = entries(&whole_log(&direct).await);
    let logged: BTreeSet<_> = logged.into_iter().map(|(position, ..)| position).collect();
    assert_eq!(logged, stored, "what was answered is what is stored");
    let late = input.append(p0(), entry("stable@aa", "h", 999)).await;
    assert!(matches!(late, Err(AppendError::Unavailable(_))));
    direct.close().await;
}
