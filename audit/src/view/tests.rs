use fieldkeep_proto::v1::AuditRecord;
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::sample;

/// What the view has, taken from the message.
fn assert_same(view: &RecordView<'_>, record: &AuditRecord) {
    let expected = RecordView {
        time_us: record.time_us,
        request_id: &record.request_id,
        principal: &record.principal,
        authentication: &record.authentication,
        address: &record.address,
        rpc: &record.rpc,
        action: &record.action,
        decision: record.decision,
        rule: &record.rule,
        code: record.code,
        reason: &record.reason,
        duration_us: record.duration_us,
        context_hash: &record.context_hash,
        items_ok: record.items_ok,
        items_failed: record.items_failed,
        store_revision: record.store_revision,
        part: record.part,
        parts: record.parts,
        detail: &record.detail,
        credential: &record.credential,
        phase: record.phase,
        operation_id: &record.operation_id,
        summarised: record.summarised,
        resources: view.resources,
    };
    assert_eq!(*view, expected);
    let used: Vec<_> = view.resources().collect();
    let expected: Vec<_> = record
        .resources
        .iter()
        .map(|used| ResourceView {
            name: &used.name,
            version: used.version,
            field: &used.field,
            items: used.items,
            item_hashes: &used.item_hashes,
        })
        .collect();
    assert_eq!(used, expected);
}

/// Reads the bytes both ways.
fn compare(bytes: &[u8]) {
    match (RecordView::parse(bytes), AuditRecord::decode(bytes)) {
        (Ok(view), Ok(record)) => assert_same(&view, &record),
        (Err(NoRecord), Err(_)) => {}
        (view, record) => panic!("{view:?}, but prost: {record:?}"),
    }
}

proptest! {
    #[test]
    fn it_reads_what_prost_reads(record in sample::record()) {
        let bytes = record.encode_to_vec();
        assert_same(&RecordView::parse(&bytes).unwrap(), &record);
    }

    #[test]
    fn it_takes_and_refuses_the_damaged_records_that_prost_does(
        record in sample::record(),
        changes in vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
        cut in option::weighted(0.3, any::<prop::sample::Index>()),
    ) {
        let mut bytes = record.encode_to_vec();
        if bytes.is_empty() {
            return Ok(());
        }
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()));
        }
        compare(&bytes);
    }

    #[test]
    fn parts_of_records_in_any_order_are_read_as_prost_reads_them(
        records in vec(sample::record(), 2..4),
        unknown in vec(any::<u8>(), 0..12),
    ) {
        // Concatenated messages are one message, of which the last value of each field counts (protobuf's encoding, "last one wins").
        let mut bytes = Vec::new();
        for record in records {
            bytes.extend_from_slice(&record.encode_to_vec());
            bytes.extend_from_slice(&unknown);
        }
        compare(&bytes);
    }

    #[test]
    fn any_bytes_are_read_as_prost_reads_them(bytes in vec(any::<u8>(), 0..40)) {
        compare(&bytes);
    }
}

#[test]
fn malformed_records_are_refused() {
    let cases: &[(&str, &[u8])] = &[
        ("tag_zero", &[0x00, 0x00]),
        ("tag_truncated", &[0x80]),
        ("wire_type_unknown", &[0x0e, 0x00]),
        ("wire_type_of_another", &[0x0a, 0x00]),
        ("number_truncated", &[0x08, 0x80]),
        (
            "number_of_eleven_bytes",
            &[
                0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x01,
            ],
        ),
        (
            "number_beyond_64_bits",
            &[
                0x08, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x02,
            ],
        ),
        ("text_truncated", &[0x1a, 0x02, b'a']),
        (
            "text_longer_than_memory",
            &[
                0x1a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01,
            ],
        ),
        ("text_not_utf8", &[0x1a, 0x01, 0xff]),
        ("resource_truncated", &[0x6a, 0x03, 0x0a, 0x02, b'a']),
        (
            "resource_text_beyond_its_end",
            &[0x6a, 0x02, 0x0a, 0x02, b'a', b'b'],
        ),
        ("change_truncated", &[0x92, 0x01, 0x02, 0x0a, 0x05]),
        ("group_without_end", &[0xf3, 0x01]),
        ("group_with_another_end", &[0xf3, 0x01, 0xfc, 0x02]),
        ("end_without_group", &[0xf4, 0x01]),
    ];
    for (name, bytes) in cases {
        assert_eq!(RecordView::parse(bytes), Err(NoRecord), "{name}");
        compare(bytes);
    }
}

#[test]
fn groups_lie_as_deep_in_one_another_as_prost_allows() {
    for depth in 95..105 {
        // Groups of the unknown field 30, by themselves and in a resource.
        let groups: Vec<u8> = [[0xf3, 0x01].repeat(depth), [0xf4, 0x01].repeat(depth)].concat();
        compare(&groups);
        let mut resource = vec![
            0x6a,
            0x80 | (groups.len() & 0x7f) as u8,
            (groups.len() >> 7) as u8,
        ];
        resource.extend_from_slice(&groups);
        compare(&resource);
        let mut change = vec![0x92, 0x01];
        change.extend_from_slice(&resource[1..]);
        compare(&change);
    }
}
