//! JSON that is small to send and dear to read.

use std::time::{Duration, Instant};

use base64::Engine as _;
use reqwest::Method;

use super::super::gateways::gateway_process::{Client, Gateway};
use super::{EVENTS, serves};

/// The most a body may have, a little less.
const BYTES: usize = 255 * 1024;

/// As many copies of `item` as fit, between `open` and `close`.
fn filled(open: &str, item: &str, close: &str) -> String {
    let count = (BYTES - open.len() - close.len()) / item.len();
    format!("{open}{}{close}", item.repeat(count))
}

fn event_with(field: &str) -> String {
    format!(
        r#"{{"hostname":"web-1","rolloutId":"stable@4f1c","event":{{"kind":"DispatchAck","seq":1,
        "currentClosureAtDispatch":"old","receivedAt":"2026-01-01T00:00:00Z"{field}}}}}"#
    )
}

fn bombs() -> Vec<String> {
    let huge = "9".repeat(100_000);
    let nested = "[".repeat(BYTES / 2);
    vec![
        filled("[", "1,", "1]"),
        filled("[", "[],", "[]]"),
        filled("[", "{},", "{}]"),
        filled("{", r#""":0,"#, r#""":0}"#),
        filled("{", r#""a":{},"#, r#""a":{}}"#),
        filled("", "[", ""),
        filled("", r#"{"a":"#, ""),
        filled("", r#"[{"#, ""),
        filled("\"", "\\u0000", "\""),
        filled("", " ", ""),
        filled("", "\u{feff}", ""),
        event_with(&format!(r#","seq":{huge}"#)),
        event_with(r#","seq":1e400"#),
        event_with(r#","seq":2"#),
        event_with(r#","kind":"Converged""#),
        event_with(&filled(r#","x":"#, "[", "")),
        event_with(&format!(r#","x":{nested}"#)),
        event_with(&filled(r#","receivedAt":["#, "1,", "1]")),
        event_with(&filled(r#","seq":{"#, r#""b":1,"#, r#""b":1}"#)),
        event_with(r#","currentClosureAtDispatch":"\ud800""#),
    ]
}

async fn post(client: &Client, body: String) -> (u16, String) {
    let request = client.request(Method::POST, EVENTS);
    let request = request.header("content-type", "application/json");
    let answer = client.send(request.body(body)).await;
    if answer.status == 200 {
        // An array: every item of it was refused.
        let items = answer.json();
        let items = items.as_array().unwrap();
        assert!(items.iter().all(|item| item["status"] != 204), "{items:?}");
        return (200, String::new());
    }
    answer.refusal()
}

#[tokio::test]
async fn bombs_are_refused_cheaply_and_nothing_else_notices() {
    let gateway = Gateway::start("bombs", &[]).await;
    let (agent, honest) = (gateway.agent("web-1"), gateway.agent("lab-1"));
    serves(&gateway, &honest, 1).await;
    let before = gateway.resident_kib();
    for (number, bomb) in bombs().into_iter().enumerate() {
        let begins: String = bomb.chars().take(40).collect();
        let started = Instant::now();
        let (refusal, ()) = futures::join!(
            post(&agent, bomb),
            serves(&gateway, &honest, number as u64 + 2)
        );
        let took = started.elapsed();
        println!("{begins}: {refusal:?} in {took:?}");
        assert!(
            matches!(refusal.0, 200 | 400 | 413),
            "{begins}: {refusal:?}"
        );
        // Unoptimised, on a busy machine.
        assert!(took < Duration::from_secs(5), "{begins}: {took:?}");
    }
    let grown = gateway.resident_kib().saturating_sub(before);
    println!("{grown} KiB more");
    assert!(grown < 128 * 1024, "{grown} KiB more");
    let of_honest = gateway.logged().await.len();
    assert_eq!(of_honest, bombs().len() + 1, "nothing else is in the log");
}

/// What nobody has signed costs a small multiple of its size, wherever its faults are: in the request, or in an
/// artifact of it.
#[tokio::test]
async fn an_unsigned_release_costs_at_most_a_few_times_its_size() {
    const RELEASE_BYTES: usize = 32 * 1024 * 1024;
    let gateway = Gateway::start_console("releasebomb", &[]).await;
    let pipeline = gateway.person("pipeline", "ci");
    let many = |open: &str, item: &str, close: &str, bytes: usize| {
        let count = (bytes - open.len() - close.len()) / item.len();
        format!("{open}{}{close}", item.repeat(count))
    };
    // A space in front, as the form of stored artifacts has none.
    let artifact = |item: &str| {
        let artifact = many(" [", item, "1]", RELEASE_BYTES / 4 * 3 - 1024);
        let artifact = base64::engine::general_purpose::STANDARD.encode(artifact);
        let signature = base64::engine::general_purpose::STANDARD.encode([7; 64]);
        format!(
            r#"{{"fleet":{{"artifact":"{artifact}","signature":"{signature}"}},"rollouts":{{}}}}"#
        )
    };
    let rollout = r#""%":{"artifact":"","signature":""},"#;
    let bombs = [
        artifact("[],"),
        artifact(r#"{"b":0,"":0},"#),
        many("[", "[],", "[]]", RELEASE_BYTES),
        many(r#"{"fleet":{},"x":["#, "{},", "{}]}", RELEASE_BYTES),
        many(r#"{"rollouts":{"#, rollout, r#""":0}}"#, RELEASE_BYTES),
    ];
    let before = gateway.resident_kib();
    for bomb in bombs {
        let begins: String = bomb.chars().take(40).collect();
        let bytes = bomb.len() as u64;
        let request = pipeline.request(Method::PUT, "/v1/manifests");
        let request = request.header("content-type", "application/json");
        let answer = pipeline.send(request.body(bomb)).await;
        assert!(matches!(answer.status, 400 | 422), "{begins}: {answer:?}");
        let grown = gateway.peak_kib().saturating_sub(before) * 1024;
        println!(
            "{begins}: {:.1} bytes per byte",
            grown as f64 / bytes as f64
        );
        // The body, what is decoded of it, and what reading that takes.
        assert!(grown <= 6 * bytes, "{begins}: {grown} bytes for {bytes}");
    }
}
