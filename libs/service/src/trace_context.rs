//! W3C trace context as text, for data and headers.
//!
//! Source: W3C Trace Context, traceparent header.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::Registry;
use tracing_subscriber::registry::{LookupSpan as _, SpanRef};

/// Name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Most links of one span: a turn may have hundreds of parents, and a few dozen links are enough.
pub const MAX_LINKS: usize = 64;

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// Parses a `traceparent`; `None` when it is malformed or all zero.
pub fn parse(traceparent: &str) -> Option<SpanContext> {
    if traceparent.len() != LENGTH || !traceparent.starts_with("00-") {
        return None;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

/// Trace context of a caller, stored in a span of a process that records no spans.
struct Caller(String);

/// Makes `traceparent` the parent of a span that was not entered yet; a malformed text is ignored.
pub fn set_parent(span: &Span, traceparent: &str) {
    let Some(parent) = parse(traceparent) else {
        return;
    };
    let parent = Context::new().with_remote_span_context(parent);
    if span.set_parent(parent).is_err() {
        in_registry(span, |span| {
            let caller = Caller(traceparent.to_owned());
            span.extensions_mut().replace(caller);
        });
    }
}

/// Calls `f` with the registry's view of a span; `None` when the span is disabled or there is no registry.
fn in_registry<T>(span: &Span, f: impl FnOnce(SpanRef<'_, Registry>) -> T) -> Option<T> {
    span.with_subscriber(|(id, dispatch)| {
        let registry = dispatch.downcast_ref::<Registry>()?;
        registry.span(id).map(f)
    })?
}

/// Links a span to another trace; a malformed text is ignored.
pub fn link(span: &Span, traceparent: &str) {
    if let Some(parent) = parse(traceparent) {
        span.add_link(parent);
    }
}

/// Links a span to the first [`MAX_LINKS`] different traces.
pub fn link_all<'t>(span: &Span, traceparents: impl IntoIterator<Item = &'t str>) {
    let mut seen = std::collections::BTreeSet::new();
    for traceparent in traceparents {
        if seen.len() == MAX_LINKS {
            break;
        }
        if seen.insert(traceparent) {
            link(span, traceparent);
        }
    }
}

/// The `traceparent` of a span: its own when spans are recorded, otherwise that of the caller, unchanged.
/// `None` when there is neither.
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let recorded = context.span();
    let recorded = recorded.span_context();
    if !recorded.is_valid() {
        return in_registry(span, caller).flatten();
    }
    Some(format!(
        "00-{}-{}-{:02x}",
        recorded.trace_id(),
        recorded.span_id(),
        recorded.trace_flags().to_u8()
    ))
}

fn caller(span: SpanRef<'_, Registry>) -> Option<String> {
    let mut scope = span.scope();
    scope.find_map(|span| {
        span.extensions()
            .get::<Caller>()
            .map(|caller| caller.0.clone())
    })
}

/// The `traceparent` of the current span; `None` outside any span.
pub fn current_traceparent() -> Option<String> {
    traceparent_of(&Span::current())
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::TracerProvider as _;
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn malformed_contexts_are_rejected() {
        assert!(parse(PARENT).is_some());
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for text in ["", "00", "nonsense", zero, &PARENT[..54]] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_span_continues_the_trace_of_its_parent() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            set_parent(&span, PARENT);
            let own = span.in_scope(current_traceparent).unwrap();
            assert_eq!(own[..36], PARENT[..36], "same trace");
            assert_ne!(own[36..52], PARENT[36..52], "another span");
        });
    }

    #[test]
    fn without_a_collector_the_context_of_the_caller_is_passed_on() {
        let filter = tracing_subscriber::EnvFilter::new("info");
        let subscriber = tracing_subscriber::registry().with(filter);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            assert_eq!(span.in_scope(current_traceparent), None, "none is begun");
            set_parent(&span, "nonsense");
            assert_eq!(span.in_scope(current_traceparent), None);
            set_parent(&span, PARENT);
            let inner = span.in_scope(|| tracing::info_span!("inner"));
            let passed = inner.in_scope(current_traceparent);
            assert_eq!(passed.as_deref(), Some(PARENT));
        });
    }

    #[test]
    fn without_a_span_there_is_no_context() {
        assert_eq!(current_traceparent(), None);
    }
}
