//! Logs and traces: structured logs on standard error, spans to an OTLP collector when one is
//! configured.
//!
//! Spans get W3C ids with or without a collector, because the ids travel with the data and the next
//! process may have one.

use std::io::IsTerminal as _;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::propagation::TraceContextPropagator;
use opentelemetry_sdk::trace::{Sampler, SdkTracerProvider};
use serde::{Deserialize, Serialize};
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;
use tracing_subscriber::{EnvFilter, Layer as _};

use crate::config::Faults;

/// The NATS client writes server addresses with their passwords into its debug events.
const NEVER_DEBUGGED: &str = "async_nats=info";

/// Time for one export; a slow collector must not hold spans in memory for longer.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(10);

/// Logs and traces of a process.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TelemetryConfig {
    /// What is logged, in the directive language of `tracing`: `info,nixfleet_bus=debug`.
    pub log_filter: String,
    /// How it looks.
    pub log_format: LogFormat,
    /// Traces endpoint of a collector that speaks OTLP over HTTP, for example
    /// `http://collector:4318/v1/traces`; `None` exports nothing.
    pub otlp_endpoint: Option<String>,
    /// Share of new traces to record, 0 to 1; a caller's decision is followed.
    pub trace_sample_ratio: f64,
}

/// Shape of a log line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One line for people.
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
        if !(0.0..=1.0).contains(&self.trace_sample_ratio) {
            faults.add(
                format!("{section}.trace_sample_ratio"),
                "must be between 0 and 1",
            );
        }
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

/// Keeps the exporter alive; spans still in memory are sent by [`Telemetry::close`].
#[derive(Debug)]
#[must_use]
pub struct Telemetry {
    provider: SdkTracerProvider,
}

impl Telemetry {
    /// Sends what is left. Blocks; call it outside the async runtime.
    pub fn close(self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!(%error, "the last spans may not have reached the collector");
        }
    }
}

/// Starts logging and tracing for the whole process.
///
/// Call it outside the async runtime: the exporter has a blocking HTTP client of its own.
///
/// # Errors
/// When the filter or the endpoint cannot be used, or when it was started before.
pub fn init(
    config: &TelemetryConfig,
    service: &'static str,
    version: &'static str,
    instance: &str,
) -> anyhow::Result<Telemetry> {
    opentelemetry::global::set_text_map_propagator(TraceContextPropagator::new());
    let provider = tracer_provider(config, service, version, instance)?;
    let traces = tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service))
        .with_threads(false)
        .with_location(false);
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
        .with(filter)
        .with(logs)
        .with(traces)
        .try_init()?;
    Ok(Telemetry { provider })
}

fn tracer_provider(
    config: &TelemetryConfig,
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
    let builder = SdkTracerProvider::builder()
        .with_resource(resource)
        .with_max_links_per_span(crate::trace::MAX_LINKS as u32)
        .with_sampler(Sampler::ParentBased(Box::new(ratio)));
    let Some(endpoint) = &config.otlp_endpoint else {
        return Ok(builder.build());
    };
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()?;
    Ok(builder.with_batch_exporter(exporter).build())
}
