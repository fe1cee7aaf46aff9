//! Logs and traces: structured logs on standard error, and spans to an OTLP collector when one is
//! configured.
//!
//! Without a collector a process passes the trace context of its callers on unchanged, and starts no
//! traces.

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing::level_filters::LevelFilter;
use tracing::{Level, Metadata};
use tracing_subscriber::filter::FilterFn;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::Faults;

/// The NATS client writes server addresses with their passwords into debug events.
const NEVER_DEBUGGED: &str = "async_nats=info";

/// Timeout of one export; a slow collector must not hold spans in memory for longer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Logs and traces of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetryConfig {
    /// Log filter in the directive syntax of `tracing`: `info,nixfleet_bus=debug`.
    pub log_filter: String,
    /// Format of log lines.
    pub log_format: LogFormat,
    /// Traces endpoint of a collector that speaks OTLP over HTTP, for example
    /// `http://collector:4318/v1/traces`; `None` records no spans.
    pub otlp_endpoint: Option<String>,
    /// Ratio of new traces to record, 0 to 1; the caller's sampling decision is followed.
    pub trace_sample_ratio: f64,
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// Plain text.
    Text,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            log_filter: "info".to_owned(),
            log_format: LogFormat::Json,
            otlp_endpoint: None,
            trace_sample_ratio: 1.0,
        }
    }
}

impl TelemetryConfig {
    /// Adds the faults of this section, whose dotted key is `section`.
    pub fn validate(&self, section: &str, faults: &mut Faults) {
        if let Err(error) = EnvFilter::try_new(&self.log_filter) {
            faults.add(format!("{section}.log_filter"), error.to_string());
        }
        let key = format!("{section}.trace_sample_ratio");
        faults.require_range(&key, self.trace_sample_ratio, 0.0..=1.0);
        if let Some(endpoint) = &self.otlp_endpoint
            && !endpoint.starts_with("http://")
            && !endpoint.starts_with("https://")
        {
            faults.add(
                format!("{section}.otlp_endpoint"),
                "must begin with http:// or https://",
            );
        }
    }
}

/// Keeps the exporter alive; [`Telemetry::close`] sends the spans that are still in memory.
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Sends the remaining spans. Blocks; call it outside the async runtime.
    pub fn close(self) {
        if let Some(Err(error)) = self.provider.map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}

/// Starts logging and tracing for the whole process.
///
/// Call it outside the async runtime, because the exporter has a blocking HTTP client.
///
/// # Errors
/// When the filter or the endpoint is invalid, or when it was started before.
pub fn init(
    config: &TelemetryConfig,
    service: &'static str,
    version: &'static str,
    instance: &str,
) -> anyhow::Result<Telemetry> {
    let endpoint = config.otlp_endpoint.as_deref();
    let provider = endpoint
        .map(|endpoint| tracer_provider(config, endpoint, service, version, instance))
        .transpose()?;
    let traces = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(service))
            .with_threads(false)
            .with_location(false)
            .with_filter(FilterFn::new(is_traced).with_max_level_hint(LevelFilter::DEBUG))
    });
    let logs = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let logs = match config.log_format {
        LogFormat::Json => logs
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .boxed(),
        LogFormat::Text => logs.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    let filter = EnvFilter::try_new(&config.log_filter)?.add_directive(NEVER_DEBUGGED.parse()?);
    tracing_subscriber::registry()
        .with(logs.with_filter(filter))
        .with(traces)
        .try_init()?;
    Ok(Telemetry { provider })
}

/// Selects what a collector gets, independently of the log filter: spans of this workspace, and its log
/// lines from INFO on.
fn is_traced(metadata: &Metadata<'_>) -> bool {
    let least = if metadata.is_span() {
        Level::DEBUG
    } else {
        Level::INFO
    };
    metadata.target().starts_with("nixfleet") && *metadata.level() <= least
}

fn tracer_provider(
    config: &TelemetryConfig,
    endpoint: &str,
    service: &'static str,
    version: &'static str,
    instance: &str,
) -> anyhow::Result<SdkTracerProvider> {
    let resource = Resource::builder()
        .with_service_name(service)
        .with_attributes([
            KeyValue::new("service.version", version),
            KeyValue::new("service.instance.id", instance.to_owned()),
        ])
        .build();
    let ratio = Sampler::TraceIdRatioBased(config.trace_sample_ratio);
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    Ok(SdkTracerProvider::builder()
        .with_resource(resource)
        .with_max_links_per_span(crate::trace_context::MAX_LINKS as u32)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)))
        .with_batch_exporter(exporter)
        .build())
}
