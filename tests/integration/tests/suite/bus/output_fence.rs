//! The output log belongs to one writer.

use nixfleet_bus::{Bus, PublishError};
use nixfleet_harness::nats::Nats;
use nixfleet_harness::proxy::ProxyMode;
use nixfleet_harness::wait_for;
use nixfleet_proto::OutputFrame;

use super::{SOON, bus, config, connect_through_proxy, p0, ready, second};

#[tokio::test]
async fn the_second_writer_is_fenced() {
    let one = bus("fence").await;
    let two = second(&one).await;
    assert_eq!(one.output(p0()).last().await.unwrap(), None);
    assert_eq!(
        one.output(p0()).publish(&OutputFrame::new(1), 0).await,
        Ok(1)
    );
    let last = two.output(p0()).last().await.unwrap().unwrap();
    assert_eq!((last.seq, last.frame.epoch), (1, 1));
    assert_eq!(
        two.output(p0()).publish(&OutputFrame::new(2), 1).await,
        Ok(2)
    );
    // The first one has not noticed yet.
    let fenced = one.output(p0()).publish(&OutputFrame::new(1), 1).await;
    let expected = PublishError::Fenced {
        expected: 1,
        last: 2,
    };
    assert_eq!(fenced, Err(expected));
    let last = one.output(p0()).last().await.unwrap().unwrap();
    assert_eq!((last.seq, last.frame.epoch), (2, 2));
    one.close().await;
    two.close().await;
}

#[tokio::test]
async fn exactly_one_of_many_concurrent_writers_succeeds() {
    let one = bus("race").await;
    let mut tasks = tokio::task::JoinSet::new();
    for epoch in 0..8 {
        let log = one.output(p0());
        tasks.spawn(async move { log.publish(&OutputFrame::new(epoch), 0).await });
    }
    let answers = tasks.join_all().await;
    let won = answers.iter().filter(|answer| answer.is_ok()).count();
    let fenced = answers
        .iter()
        .filter(|answer| matches!(answer, Err(PublishError::Fenced { .. })))
        .count();
    assert_eq!((won, fenced), (1, 7));
    one.close().await;
}

#[tokio::test]
async fn a_stored_frame_with_a_lost_acknowledgement_is_recognised_by_its_writer() {
    let direct = bus("mine").await;
    let (through, proxy) = connect_through_proxy(direct.config()).await;
    let owner = Bus::connect(through, "test/owner").await.unwrap();
    let log = owner.output(p0());
    assert_eq!(log.publish(&OutputFrame::new(1), 0).await, Ok(1));

    proxy.set(ProxyMode::HoldReplies);
    let publish = tokio::spawn(async move { log.publish(&OutputFrame::new(1), 1).await });
    let stream = direct.names().output_stream(p0());
    wait_for("the frame to be stored", SOON, || async {
        let identity = direct.stream_identity(&stream).await?;
        Ok((identity.last_seq == 2).then_some(()))
    })
    .await
    .unwrap();
    proxy.reconnect();
    assert_eq!(publish.await.unwrap(), Ok(2));
    let identity = direct.stream_identity(&stream).await.unwrap();
    assert_eq!(identity.last_seq, 2, "stored once");
    owner.close().await;
    direct.close().await;
}

#[tokio::test]
async fn a_lost_acknowledgement_and_another_writer_is_fenced() {
    let direct = bus("notmine").await;
    let (through, proxy) = connect_through_proxy(direct.config()).await;
    let owner = Bus::connect(through, "test/owner").await.unwrap();
    proxy.set(ProxyMode::Cut);
    let log = owner.output(p0());
    let publish = tokio::spawn(async move { log.publish(&OutputFrame::new(1), 0).await });
    assert_eq!(
        direct.output(p0()).publish(&OutputFrame::new(2), 0).await,
        Ok(1)
    );
    proxy.set(ProxyMode::Pass);
    let fenced = PublishError::Fenced {
        expected: 0,
        last: 1,
    };
    assert_eq!(publish.await.unwrap(), Err(fenced));
    owner.close().await;
    direct.close().await;
}

#[tokio::test]
async fn a_reused_sequence_fences_its_first_writer() {
    let mut nats = Nats::start("fencereused").unwrap();
    let one = ready(config(&nats.url(), "fleet")).await;
    let old = one.output(p0());
    assert_eq!(old.publish(&OutputFrame::new(1), 0).await, Ok(1));
    nats.stop().unwrap();
    nats.back_up().unwrap();
    nats.restart().unwrap();
    assert_eq!(old.publish(&OutputFrame::new(1), 1).await, Ok(2));

    // The log loses its second message, and another writer publishes a different one.
    nats.kill().unwrap();
    nats.erase().unwrap();
    nats.restore().unwrap();
    nats.restart().unwrap();
    let new = one.output(p0());
    assert_eq!(new.last().await.unwrap().unwrap().seq, 1);
    assert_eq!(new.publish(&OutputFrame::new(2), 1).await, Ok(2));

    let fenced = PublishError::Fenced {
        expected: 2,
        last: 2,
    };
    assert_eq!(old.publish(&OutputFrame::new(1), 2).await, Err(fenced));
    assert_eq!(new.publish(&OutputFrame::new(2), 2).await, Ok(3));
    one.close().await;
}

#[tokio::test]
async fn a_writer_continues_after_a_restart_without_loss() {
    let mut nats = Nats::start("fencerestart").unwrap();
    let one = ready(config(&nats.url(), "fleet")).await;
    let first = one.output(p0());
    assert_eq!(first.publish(&OutputFrame::new(1), 0).await, Ok(1));
    let second = one.output(p0());
    assert_eq!(second.last().await.unwrap().unwrap().seq, 1);
    nats.kill().unwrap();
    nats.restart().unwrap();
    // After another writer's frame, and after its own.
    assert_eq!(second.publish(&OutputFrame::new(2), 1).await, Ok(2));
    nats.kill().unwrap();
    nats.restart().unwrap();
    assert_eq!(second.publish(&OutputFrame::new(2), 2).await, Ok(3));
    one.close().await;
}

#[tokio::test]
async fn a_frame_over_the_limit_is_too_large() {
    let one = bus("large").await;
    let mut large = OutputFrame::new(1);
    large.state_hash = Some("x".repeat(nixfleet_bus::MAX_OUTPUT_FRAME_BYTES));
    let refused = one.output(p0()).publish(&large, 0).await;
    assert!(matches!(refused, Err(PublishError::TooLarge { .. })));
    one.close().await;
}
