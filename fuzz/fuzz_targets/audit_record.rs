//! Any bytes as an audit record: the borrowed view reads what prost reads, and a filter says the same about both.

#![no_main]

use fieldkeep_audit::filter::{Filter, PrincipalFilter};
use fieldkeep_audit::view::RecordView;
use fieldkeep_proto::v1::{AuditRecord, Decision};
use libfuzzer_sys::fuzz_target;
use prost::Message as _;

fuzz_target!(|data: &[u8]| {
    let (view, record) = match (RecordView::parse(data), AuditRecord::decode(data)) {
        (Ok(view), Ok(record)) => (view, record),
        (view, record) => {
            assert_eq!(view.is_ok(), record.is_ok());
            return;
        }
    };
    assert_eq!(view.time_us, record.time_us);
    assert_eq!(view.request_id, record.request_id);
    assert_eq!(view.principal, record.principal);
    assert_eq!((view.rpc, view.action), (&*record.rpc, &*record.action));
    assert_eq!((view.decision, view.code), (record.decision, record.code));
    assert_eq!((view.rule, view.detail), (&*record.rule, &*record.detail));
    assert_eq!((view.part, view.parts), (record.part, record.parts));
    let used: Vec<_> = view
        .resources()
        .map(|used| (used.name, used.version, used.field, used.items))
        .collect();
    let expected: Vec<_> = record
        .resources
        .iter()
        .map(|used| (&*used.name, used.version, &*used.field, used.items))
        .collect();
    assert_eq!(used, expected);

    let first = record.resources.first().cloned().unwrap_or_default();
    for filter in [
        Filter {
            key: Some(first.name),
            field: Some(first.field.chars().take(1).chain(['*']).collect()),
            ..Filter::default()
        },
        Filter {
            tenant: Some("t".to_owned()),
            only_failed: true,
            ..Filter::default()
        },
        Filter {
            principal: Some(PrincipalFilter::Exact(record.principal.clone())),
            decision: Some(Decision::Refused),
            ..Filter::default()
        },
    ] {
        assert_eq!(filter.accepts_view(&view), filter.accepts(&record));
    }
});
