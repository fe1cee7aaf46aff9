//! Spans that reach a collector.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use nixfleet_harness::wait_for;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message as _;
use reqwest::Method;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{TcpListener, TcpStream};

use super::gateways::gateway_process::{Gateway, SOON, event};
use super::hostile::{EVENTS, serves};

/// A span as the collector saw it.
#[derive(Debug, Clone)]
struct Seen {
    service: String,
    name: String,
    trace: String,
    parent: String,
}

/// A collector of OTLP over HTTP, as small as it can be.
struct Collector {
    port: u16,
    seen: Arc<Mutex<Vec<Seen>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Collector {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let seen = Arc::new(Mutex::default());
        let collected = Arc::clone(&seen);
        let task = tokio::spawn(async move {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                connections.spawn(collect(stream, Arc::clone(&collected)));
            }
        });
        Self { port, seen, task }
    }

    fn spans(&self, name: &str) -> Vec<Seen> {
        let seen = self.seen.lock().unwrap();
        seen.iter()
            .filter(|span| span.name == name)
            .cloned()
            .collect()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn collect(stream: TcpStream, seen: Arc<Mutex<Vec<Seen>>>) {
    let mut stream = BufReader::new(stream);
    loop {
        let mut length = 0;
        loop {
            let mut line = String::new();
            if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                return;
            }
            let line = line.trim().to_ascii_lowercase();
            if let Some(value) = line.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap();
            }
            if line.is_empty() {
                break;
            }
        }
        let mut body = vec![0; length];
        stream.read_exact(&mut body).await.unwrap();
        let export = ExportTraceServiceRequest::decode(&body[..]).unwrap();
        seen.lock().unwrap().extend(spans(export));
        let answer = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
        stream.write_all(answer.as_bytes()).await.unwrap();
    }
}

fn spans(export: ExportTraceServiceRequest) -> Vec<Seen> {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut spans = Vec::new();
    for resource in export.resource_spans {
        let attributes = resource.resource.unwrap().attributes;
        let service = attributes.iter().find(|known| known.key == "service.name");
        let service = format!("{:?}", service.unwrap().value);
        for span in resource
            .scope_spans
            .into_iter()
            .flat_map(|scope| scope.spans)
        {
            spans.push(Seen {
                service: service.clone(),
                trace: hex(&span.trace_id),
                parent: hex(&span.parent_span_id),
                name: span.name,
            });
        }
    }
    spans
}

#[tokio::test(flavor = "multi_thread")]
async fn every_request_is_a_span_of_its_callers_trace() {
    let collector = Collector::start().await;
    let endpoint = format!(
        "telemetry.otlp_endpoint=\"http://127.0.0.1:{}/v1/traces\"",
        collector.port
    );
    let gateway = Gateway::start("export", &[&endpoint]).await;
    let agent = gateway.agent("web-1");
    for seq in 1..=20_u64 {
        let parent = format!("00-{:032x}-{:016x}-01", 0xabc0 + seq, seq);
        let request = agent.request(Method::POST, EVENTS);
        let request = request.header("traceparent", parent);
        assert_eq!(
            agent.send(request.json(&event("web-1", seq))).await.status,
            204
        );
    }
    let spans = wait_for("every request was exported", SOON, async || {
        let mut spans = collector.spans("request");
        // The test itself waited for the release, without a trace.
        spans.retain(|span| !span.parent.is_empty());
        Ok((spans.len() >= 20).then_some(spans))
    });
    let spans = spans.await.unwrap();
    assert_eq!(spans.len(), 20);
    assert!(
        spans.iter().all(|span| span.service.contains("ingest")),
        "{spans:?}"
    );
    let known: BTreeSet<(String, String)> = spans
        .into_iter()
        .map(|span| (span.trace, span.parent))
        .collect();
    let expected =
        (1..=20_u64).map(|seq| (format!("{:032x}", 0xabc0 + seq), format!("{seq:016x}")));
    assert_eq!(known, expected.collect());
    for entry in gateway.logged().await {
        let traceparent = entry.traceparent.unwrap();
        let same_trace = |(trace, _): &&(String, String)| traceparent[3..35] == **trace;
        let (_, parent) = known.iter().find(same_trace).unwrap();
        assert_ne!(traceparent[36..52], **parent, "the span of the request");
    }
}

#[tokio::test]
async fn a_collector_that_is_away_holds_nobody_up() {
    let endpoint = "telemetry.otlp_endpoint=\"http://127.0.0.1:9/v1/traces\"";
    let gateway = Gateway::start("nocollector", &[endpoint]).await;
    let agent = gateway.agent("lab-1");
    for seq in 1..=5 {
        serves(&gateway, &agent, seq).await;
    }
    assert_eq!(gateway.logged().await.len(), 5);
}
