//! Traces: one span a call, under the caller's own if it sent one, and parts below it.
//!
//! Without a [`Tracer`] nothing here runs. A span names the RPC, how the call ended, and the request id, by which the audit
//! trail has the rest: no key, field, tenant or identity is in it. Spans wait in a bounded queue; what does not fit is
//! counted and forgotten, so that a collector never delays a call.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use fieldkeep_crypto::random;
use http::HeaderMap;
use prometheus::IntCounter;
use tokio::sync::mpsc;

/// Spans that wait for the exporter; about 5 MiB.
const QUEUE: usize = 16 * 1024;
/// Parts of one span, at most; a call has three.
const PARTS: usize = 16;
/// The header with the caller's span (W3C Trace Context, section 3.2).
const PARENT_HEADER: &str = "traceparent";

/// The span of a call that ended.
#[derive(Debug)]
pub struct Span {
    /// The trace that it belongs to.
    pub trace_id: [u8; 16],
    /// Its own id.
    pub span_id: [u8; 8],
    /// The caller's span; `None` begins a trace.
    pub parent: Option<[u8; 8]>,
    /// The RPC, for example `fieldkeep.v1.FieldService/Encrypt`.
    pub rpc: &'static str,
    /// The call's id, as in its audit record.
    pub request_id: [u8; 16],
    /// The `google.rpc.Code` of the reply.
    pub code: i32,
    /// When the call came in.
    pub started: Instant,
    /// When its reply was ready.
    pub ended: Instant,
    /// What is known besides.
    pub notes: Notes,
}

/// What the service adds to a call's span on the way.
#[derive(Debug, Default)]
pub struct Notes {
    /// What took its time.
    pub parts: Vec<Part>,
    /// The items of a batch that succeeded and failed.
    pub items: Option<(u32, u32)>,
    /// The stable reason of a failure, for example `KEY_DISABLED`.
    pub reason: Option<&'static str>,
}

/// A part of a call.
#[derive(Debug)]
pub struct Part {
    /// What it was, for example `audit`.
    pub name: &'static str,
    /// When it began.
    pub started: Instant,
    /// When it ended.
    pub ended: Instant,
}

/// Begins spans, and hands those that ended to the exporter.
#[derive(Clone, Debug)]
pub struct Tracer {
    spans: mpsc::Sender<Span>,
    dropped: IntCounter,
    /// Of a million traces that begin here, so many are kept.
    sample_per_million: u32,
}

impl Tracer {
    /// A tracer that keeps `sample_per_million` of the traces that begin here, and where its spans come out. `dropped` counts
    /// those that did not fit.
    #[must_use]
    pub fn new(sample_per_million: u32, dropped: IntCounter) -> (Self, mpsc::Receiver<Span>) {
        let (spans, ended) = mpsc::channel(QUEUE);
        let tracer = Self {
            spans,
            dropped,
            sample_per_million,
        };
        (tracer, ended)
    }

    /// Begins the span of a call, if its trace is kept: the caller decides for its own traces, the ratio for others.
    #[must_use]
    pub fn begin(&self, headers: &HeaderMap) -> Option<Arc<CallTrace>> {
        let parent = headers
            .get(PARENT_HEADER)
            .and_then(|value| Parent::parse(value.as_bytes()));
        let mut drawn = [0; 24];
        // Without random numbers there is no trace; the call itself decides what that means for it.
        random::fill(&mut drawn).ok()?;
        let (&span_id, drawn) = drawn.split_first_chunk::<8>()?;
        let (trace_id, parent) = match parent {
            Some(Parent { sampled: false, .. }) => return None,
            Some(parent) => (parent.trace_id, Some(parent.span_id)),
            None => {
                let (&lottery, _) = drawn.split_first_chunk::<8>()?;
                if u64::from_be_bytes(lottery) % 1_000_000 >= u64::from(self.sample_per_million) {
                    return None;
                }
                (*drawn.first_chunk::<16>()?, None)
            }
        };
        Some(Arc::new(CallTrace {
            tracer: self.clone(),
            trace_id,
            span_id,
            parent,
            notes: Mutex::default(),
        }))
    }
}

/// A call's span while the call runs.
#[derive(Debug)]
pub struct CallTrace {
    tracer: Tracer,
    trace_id: [u8; 16],
    span_id: [u8; 8],
    parent: Option<[u8; 8]>,
    notes: Mutex<Notes>,
}

impl CallTrace {
    /// The span of another call of the same stream: in the same trace, below the same span of the caller.
    #[must_use]
    pub fn next(&self) -> Option<Arc<Self>> {
        let mut span_id = [0; 8];
        random::fill(&mut span_id).ok()?;
        Some(Arc::new(Self {
            tracer: self.tracer.clone(),
            trace_id: self.trace_id,
            span_id,
            parent: self.parent,
            notes: Mutex::default(),
        }))
    }

    /// Notes a part that lasts until what this returns is dropped.
    #[must_use]
    pub fn part(trace: Option<&Arc<Self>>, name: &'static str) -> Option<RunningPart> {
        trace.map(|trace| RunningPart {
            trace: Arc::clone(trace),
            name,
            started: Instant::now(),
        })
    }

    /// Notes how the items of a batch ended.
    pub fn items(&self, ok: u32, failed: u32) {
        self.note(|notes| notes.items = Some((ok, failed)));
    }

    /// Notes why the call failed.
    pub fn reason(&self, reason: &'static str) {
        self.note(|notes| notes.reason = Some(reason));
    }

    fn note(&self, write: impl FnOnce(&mut Notes)) {
        write(&mut self.notes.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Hands the span to the exporter, or drops it if too many wait.
    pub fn end(&self, rpc: &'static str, request_id: [u8; 16], code: i32, started: Instant) {
        let mut notes = Notes::default();
        self.note(|noted| notes = std::mem::take(noted));
        let span = Span {
            trace_id: self.trace_id,
            span_id: self.span_id,
            parent: self.parent,
            rpc,
            request_id,
            code,
            started,
            ended: Instant::now(),
            notes,
        };
        if self.tracer.spans.try_send(span).is_err() {
            self.tracer.dropped.inc();
        }
    }
}

/// A part of a call that ends when this is dropped.
#[derive(Debug)]
pub struct RunningPart {
    trace: Arc<CallTrace>,
    name: &'static str,
    started: Instant,
}

impl Drop for RunningPart {
    fn drop(&mut self) {
        let part = Part {
            name: self.name,
            started: self.started,
            ended: Instant::now(),
        };
        self.trace.note(|notes| {
            if notes.parts.len() < PARTS {
                notes.parts.push(part);
            }
        });
    }
}

/// The caller's span.
#[derive(Debug, PartialEq, Eq)]
struct Parent {
    trace_id: [u8; 16],
    span_id: [u8; 8],
    sampled: bool,
}

impl Parent {
    /// `version-trace id-span id-flags` in lowercase hex. Of a later version the same parts are read and the rest is not
    /// (W3C Trace Context, section 4.3). What is malformed counts as absent.
    fn parse(value: &[u8]) -> Option<Self> {
        let (value, rest) = value.split_at_checked(55)?;
        let mut parts = value.split(|byte| *byte == b'-');
        let [version] = hex::<1>(parts.next()?)?;
        let parent = Self {
            trace_id: hex(parts.next()?)?,
            span_id: hex(parts.next()?)?,
            sampled: hex::<1>(parts.next()?)?.first()? & 1 == 1,
        };
        let whole = match version {
            0 => rest.is_empty(),
            0xff => false,
            _ => rest.is_empty() || rest.starts_with(b"-"),
        };
        let named = parent.trace_id != [0; 16] && parent.span_id != [0; 8];
        (whole && named && parts.next().is_none()).then_some(parent)
    }
}

fn hex<const BYTES: usize>(text: &[u8]) -> Option<[u8; BYTES]> {
    data_encoding::HEXLOWER.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn tracer(sample_per_million: u32) -> (Tracer, mpsc::Receiver<Span>, IntCounter) {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let (tracer, spans) = Tracer::new(sample_per_million, dropped.clone());
        (tracer, spans, dropped)
    }

    fn headers(parent: &str) -> HeaderMap {
        [(
            http::HeaderName::from_static(PARENT_HEADER),
            parent.parse().unwrap(),
        )]
        .into_iter()
        .collect()
    }

    #[test]
    fn the_callers_span_is_the_parent() {
        let (tracer, mut spans, _) = tracer(0);
        let trace = tracer.begin(&headers(PARENT)).unwrap();
        drop(CallTrace::part(Some(&trace), "audit"));
        trace.items(3, 1);
        trace.reason("INTERNAL");
        trace.end("test/Rpc", [7; 16], 13, Instant::now());
        let span = spans.try_recv().unwrap();
        assert_eq!(span.trace_id[..2], [0x4b, 0xf9]);
        assert_eq!(span.parent.unwrap()[..2], [0x00, 0xf0]);
        assert_ne!(span.span_id, span.parent.unwrap());
        assert_eq!((span.code, span.notes.items), (13, Some((3, 1))));
        assert_eq!(span.notes.parts.len(), 1);
    }

    #[test]
    fn who_decides_what_is_kept() {
        let (none, ..) = tracer(0);
        let (all, ..) = tracer(1_000_000);
        assert!(none.begin(&HeaderMap::new()).is_none());
        let begun = all.begin(&HeaderMap::new()).unwrap();
        assert_eq!(begun.parent, None);
        let unsampled = headers(&PARENT.replace("-01", "-00"));
        assert!(all.begin(&unsampled).is_none());
        assert!(none.begin(&headers(PARENT)).is_some());
        let (half, ..) = tracer(500_000);
        let kept = (0..1_000)
            .filter(|_| half.begin(&HeaderMap::new()).is_some())
            .count();
        assert!((300..700).contains(&kept), "{kept}");
    }

    #[test]
    fn malformed_parents_count_as_absent() {
        assert!(Parent::parse(PARENT.as_bytes()).is_some());
        let later = format!("{}-more", PARENT.replacen("00", "01", 1));
        assert!(Parent::parse(later.as_bytes()).is_some());
        for malformed in [
            "",
            "00",
            &format!("{PARENT}-more"),
            &format!("{PARENT}0"),
            &PARENT.replacen("00", "ff", 1),
            &PARENT.replace("4bf9", "4BF9"),
            &PARENT.replace("4bf92f3577b34da6a3ce929d0e0e4736", &"0".repeat(32)),
            &PARENT.replace("00f067aa0ba902b7", &"0".repeat(16)),
            &PARENT.replace('-', "_"),
            &PARENT.replace("b7-01", "b7--1"),
        ] {
            assert_eq!(Parent::parse(malformed.as_bytes()), None, "{malformed}");
        }
    }

    #[test]
    fn a_full_queue_delays_nobody() {
        let (tracer, mut spans, dropped) = tracer(1_000_000);
        for _ in 0..QUEUE + 5 {
            let trace = tracer.begin(&HeaderMap::new()).unwrap();
            trace.end("test/Rpc", [0; 16], 0, Instant::now());
        }
        assert_eq!(dropped.get(), 5);
        assert!(spans.try_recv().is_ok());
    }

    #[test]
    fn the_parts_of_a_span_are_bounded() {
        let (tracer, mut spans, _) = tracer(1_000_000);
        let trace = tracer.begin(&HeaderMap::new()).unwrap();
        for _ in 0..100 {
            drop(CallTrace::part(Some(&trace), "audit"));
        }
        trace.end("test/Rpc", [0; 16], 0, Instant::now());
        assert_eq!(spans.try_recv().unwrap().notes.parts.len(), PARTS);
    }
}
