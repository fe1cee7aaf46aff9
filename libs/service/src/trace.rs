//! W3C trace context as text, so that it can travel inside data and headers.
//!
//! Source: W3C Trace Context, traceparent header.

use std::collections::HashMap;

use opentelemetry::Context;
use opentelemetry::propagation::TextMapPropagator as _;
use opentelemetry::trace::{SpanContext, TraceContextExt as _};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;

/// Name of the header.
pub const TRACEPARENT: &str = "traceparent";

/// Most links on one span: a turn may have hundreds of parents, a few dozen already tell the story.
pub const MAX_LINKS: usize = 64;

/// Length of a `traceparent` of version 00.
const LENGTH: usize = 55;

/// Reads a `traceparent`; `None` when it is malformed or all zero.
pub fn parse(traceparent: &str) -> Option<SpanContext> {
    if traceparent.len() != LENGTH || !traceparent.starts_with("00-") {
        return None;
    }
    let carrier = HashMap::from([(TRACEPARENT.to_owned(), traceparent.to_owned())]);
    let context = TraceContextPropagator::new().extract_with_context(&Context::new(), &carrier);
    let span = context.span().span_context().clone();
    span.is_valid().then_some(span)
}

/// The context a span may take as its parent; empty when the text is malformed.
pub fn parent_of(traceparent: &str) -> Context {
    parse(traceparent).map_or_else(Context::new, |span| {
        Context::new().with_remote_span_context(span)
    })
}

/// Makes `traceparent` the parent of a span that was not entered yet. True when it did.
pub fn set_parent(span: &Span, traceparent: &str) -> bool {
    parse(traceparent).is_some_and(|parent| {
        span.set_parent(Context::new().with_remote_span_context(parent))
            .is_ok()
    })
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

/// The `traceparent` of a span; `None` when tracing is off.
pub fn traceparent_of(span: &Span) -> Option<String> {
    let context = span.context();
    let span = context.span();
    let span = span.span_context();
    span.is_valid().then(|| {
        format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        )
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
    fn malformed_contexts_are_no_parents() {
        assert!(parse(PARENT).is_some());
        let zero = "00-00000000000000000000000000000000-00f067aa0ba902b7-01";
        for text in ["", "00", "nonsense", zero, &PARENT[..54]] {
            assert!(parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_span_goes_on_with_the_trace_of_its_parent() {
        let provider = opentelemetry_sdk::trace::SdkTracerProvider::builder().build();
        let layer = tracing_opentelemetry::layer().with_tracer(provider.tracer("test"));
        let subscriber = tracing_subscriber::registry().with(layer);
        tracing::subscriber::with_default(subscriber, || {
            let span = tracing::info_span!("request");
            assert!(set_parent(&span, PARENT));
            let own = span.in_scope(current_traceparent).unwrap();
            assert_eq!(own[..36], PARENT[..36], "same trace");
            assert_ne!(own[36..52], PARENT[36..52], "another span");
        });
    }

    #[test]
    fn without_a_span_there_is_no_context() {
        assert_eq!(current_traceparent(), None);
    }
}
