//! A gateway whose clock is off writes nothing that the fold would reject, and says so.

use chrono::{TimeDelta, Utc};
use nixfleet_harness::{CLOCK_SETTING, TestClock, wait_for};
use serde_json::json;

use super::super::gateways::gateway_process::{Gateway, SOON, event};

/// Waits until the gateway says of its clock what `holds` accepts: the reason, or nothing when it is ready.
async fn wait_clock(gateway: &Gateway, what: &str, holds: impl Fn(Option<&str>) -> bool) {
    wait_for(what, SOON, async || {
        let ready = gateway.ready().await?;
        let clock = &ready["components"]["clock"];
        Ok(holds(clock["reason"].as_str()).then_some(()))
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_gateway_whose_clock_is_off_is_not_ready_and_refuses_events() {
    let clock = TestClock::new("ingest").unwrap();
    let setting = format!("{CLOCK_SETTING}={}", clock.setting());
    let gateway = Gateway::start("wrongclock", &[&setting]).await;
    gateway.publish("4f1c").await;
    let agent = gateway.agent("web-1");
    let events = "/v1/agent/events";
    assert_eq!(agent.post(events, &event("web-1", 1)).await.status, 204);

    for (offset, text) in [
        (TimeDelta::days(1_400), "s ahead of the broker's"),
        (-TimeDelta::seconds(95), "s behind the broker's"),
    ] {
        clock.step(offset).unwrap();
        wait_clock(
            &gateway,
            "the gateway says that its clock is off",
            |reason| reason.is_some_and(|reason| reason.contains(text)),
        )
        .await;
        let off = gateway.metric("nixfleet_clock_offset_seconds").await;
        assert!(off.abs() > 90.0, "{off}");
        let refused = agent.post(events, &event("web-1", 2)).await;
        assert_eq!(refused.refusal(), (503, "clock-off".to_owned()));
        let body = refused.json();
        assert!(body["message"].as_str().unwrap().contains(text), "{body}");
        assert_eq!(body["retryable"], true);
        let many = json!([event("web-1", 2), event("web-1", 3)]);
        let answers = agent.post(events, &many).await.json();
        assert_eq!(answers[0]["status"], 503, "{answers}");
        assert_eq!(answers[0]["code"], "clock-off", "{answers}");
        let beat = json!({ "hostname": "web-1", "current_closure": "old", "at": Utc::now() });
        let refused = agent.post("/v1/agent/heartbeat", &beat).await;
        assert_eq!(refused.refusal(), (503, "clock-off".to_owned()));
    }
    assert_eq!(gateway.logged().await.len(), 1, "nothing was written");

    clock.step(TimeDelta::seconds(5)).unwrap();
    wait_clock(&gateway, "the clock is right", |reason| reason.is_none()).await;
    assert_eq!(agent.post(events, &event("web-1", 2)).await.status, 204);
}

#[tokio::test]
async fn a_command_at_a_gateway_whose_clock_is_off_says_by_how_much() {
    let clock = TestClock::new("console").unwrap();
    let setting = format!("{CLOCK_SETTING}={}", clock.setting());
    let gateway = Gateway::start_console("wrongclockconsole", &[&setting]).await;
    clock.step(TimeDelta::minutes(10)).unwrap();
    wait_clock(
        &gateway,
        "the console says that its clock is off",
        |reason| reason.is_some(),
    )
    .await;
    let cleared = gateway
        .operator()
        .post(
            "/v1/rollouts/stable@4f1c/clearance",
            &json!({ "reason": "checked" }),
        )
        .await;
    assert_eq!(cleared.refusal(), (503, "clock-off".to_owned()));
    let body = cleared.json();
    let message = body["message"].as_str().unwrap();
    let is_named = |seconds| message.contains(&format!("{seconds} s ahead of the broker's"));
    assert!((599..605).any(is_named), "{message}");
    assert!(gateway.logged().await.is_empty());
}
