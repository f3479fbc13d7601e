//! The W3C trace context of the caller, passed on with a call (<https://www.w3.org/TR/trace-context/>).

use opentelemetry::{Context, trace::TraceContextExt as _};
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

/// Adds `traceparent`, and `tracestate` if there is one, of the current OpenTelemetry context; nothing without a valid span.
pub(crate) fn inject(metadata: &mut MetadataMap) {
    Context::map_current(|context| {
        let span = context.span();
        let span = span.span_context();
        if !span.is_valid() {
            return;
        }
        let parent = format!(
            "00-{}-{}-{:02x}",
            span.trace_id(),
            span.span_id(),
            span.trace_flags().to_u8()
        );
        let state = span.trace_state().header();
        for (name, value) in [("traceparent", parent), ("tracestate", state)] {
            if let (false, Ok(value)) = (value.is_empty(), value.parse::<MetadataValue<Ascii>>()) {
                metadata.insert(name, value);
            }
        }
    });
}
