use std::sync::LazyLock;

use fieldkeep_proto::v1::{AuditRecord, AuditResource};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use prost::Message as _;

use super::*;
use crate::filter::{Filter, PrincipalFilter};
use crate::sample;
use crate::segment::{Position, SEGMENT_RECORDS};
use crate::view::RecordView;

mod damage;

const SEGMENT: u64 = 7;

fn position(offset: u16) -> Position {
    Position {
        segment: 3,
        offset: 64 + u64::from(offset) * 8,
    }
}

fn build(record: impl Fn(u16) -> Vec<u8>) -> Vec<u8> {
    let mut builder = IndexBuilder::new(SEGMENT);
    for offset in 0..=u16::MAX {
        builder
            .add(offset, &record(offset), position(offset))
            .unwrap();
    }
    builder.finish().unwrap()
}

fn open(bytes: &[u8]) -> Index {
    Index::open(SEGMENT, bytes.to_vec()).unwrap()
}

/// A segment of samples, and its index.
static SAMPLES: LazyLock<(Vec<Vec<u8>>, Vec<u8>)> = LazyLock::new(|| {
    let mut runner = TestRunner::deterministic();
    let samples: Vec<AuditRecord> = (0..1500)
        .map(|_| sample::record().new_tree(&mut runner).unwrap().current())
        .collect();
    let records: Vec<_> = (0..u64::from(SEGMENT_RECORDS))
        .map(|index| {
            let mut record = samples[(sample::scattered(index) % 1500) as usize].clone();
            // Times that go on, but not in order.
            record.time_us = index / 1000 + record.time_us % 3;
            record.encode_to_vec()
        })
        .collect();
    let index = build(|offset| records[usize::from(offset)].clone());
    (records, index)
});

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_record_that_the_filter_accepts_is_missing(filter in sample::filter()) {
        let (records, bytes) = &*SAMPLES;
        let candidates = open(bytes).select(&filter).unwrap();
        for (offset, record) in (0..).zip(records) {
            let view = RecordView::parse(record).unwrap();
            if filter.accepts_view(&view) {
                prop_assert!(candidates.contains(offset), "record {}", offset);
            }
        }
    }
}

fn accepted(filter: &Filter) -> u64 {
    let (records, _) = &*SAMPLES;
    let accepts = |record: &&Vec<u8>| filter.accepts_view(&RecordView::parse(record).unwrap());
    records.iter().filter(accepts).count() as u64
}

/// What the index would be for if it let everything through: each of these is answered exactly.
#[test]
fn what_one_dimension_decides_is_selected_exactly() {
    let text = |value: &str| Some(value.to_owned());
    let all = Filter::default;
    let filters = [
        Filter {
            principal: Some(PrincipalFilter::Exact("tenants/a/identities/app".into())),
            ..all()
        },
        Filter {
            principal: text("ab").map(PrincipalFilter::InTenant),
            ..all()
        },
        Filter {
            tenant: text("ab"),
            ..all()
        },
        Filter {
            key: text("tenants/a/keys/pii"),
            ..all()
        },
        Filter {
            field: text("customer.email"),
            ..all()
        },
        Filter {
            field: text("customer.*"),
            ..all()
        },
        Filter {
            action: text("decrypt"),
            ..all()
        },
        Filter {
            rpc: text("fieldkeep.v1.FieldService/Decrypt"),
            ..all()
        },
        Filter {
            rule_kind: text("grant"),
            ..all()
        },
        Filter {
            decision: Some(fieldkeep_proto::v1::Decision::Refused),
            ..all()
        },
        Filter {
            only_failed: true,
            ..all()
        },
    ];
    let index = open(&SAMPLES.1);
    for filter in filters {
        let (selected, accepted) = (index.select(&filter).unwrap().len(), accepted(&filter));
        assert_eq!(selected, accepted, "{filter:?}");
        assert!(
            accepted > 0 && accepted < u64::from(SEGMENT_RECORDS),
            "{filter:?}"
        );
    }
    assert_eq!(
        index.select(&all()).unwrap().len(),
        u64::from(SEGMENT_RECORDS)
    );
}

#[test]
fn times_select_whole_bundles() {
    let record = |offset: u16| AuditRecord {
        time_us: offset.into(),
        ..AuditRecord::default()
    };
    let index = open(&build(|offset| record(offset).encode_to_vec()));
    let between = |from, to| {
        let filter = Filter {
            from_us: Some(from),
            to_us: Some(to),
            ..Filter::default()
        };
        index.select(&filter).unwrap()
    };
    assert_eq!(between(256, 257), (256..512).collect());
    assert_eq!(between(511, 513), (256..768).collect());
    assert!(between(65_536, u64::MAX).is_empty());
    assert!(between(0, 0).is_empty());
}

#[test]
fn a_request_id_selects_its_record() {
    let index = open(&build(|offset| {
        sample::usual(offset.into()).encode_to_vec()
    }));
    for offset in [0, 1, 40_000, 65_535] {
        let id = sample::usual(offset.into()).request_id;
        let filter = Filter {
            request_id: Some(id.as_ref().try_into().unwrap()),
            ..Filter::default()
        };
        assert_eq!(
            index.select(&filter).unwrap(),
            [offset].into_iter().collect()
        );
    }
}

#[test]
fn the_position_is_that_of_the_bundle() {
    let index = open(&SAMPLES.1);
    assert_eq!(index.segment(), SEGMENT);
    for (offset, first) in [(0, 0), (255, 0), (256, 256), (65_535, 65_280)] {
        assert_eq!(index.position_of(offset), Some(position(first)));
    }
}

fn using(name: String, field: String) -> Vec<u8> {
    let resources = vec![AuditResource {
        name,
        field,
        ..AuditResource::default()
    }];
    AuditRecord {
        resources,
        ..AuditRecord::default()
    }
    .encode_to_vec()
}

#[test]
fn a_dimension_with_too_many_values_selects_all_and_the_others_still_work() {
    let record = |values: u16| {
        move |offset: u16| {
            using(
                format!("tenants/t/keys/{}", offset % values),
                format!("f{}", offset % 4),
            )
        }
    };
    let key = Filter {
        key: Some("tenants/t/keys/1".into()),
        ..Filter::default()
    };
    let field = Filter {
        field: Some("f1".into()),
        ..Filter::default()
    };
    let just_enough = open(&build(record(4096)));
    assert_eq!(just_enough.select(&key).unwrap().len(), 16);
    let bytes = build(record(4097));
    let too_many = open(&bytes);
    assert_eq!(
        too_many.select(&key).unwrap().len(),
        u64::from(SEGMENT_RECORDS)
    );
    assert_eq!(too_many.select(&field).unwrap().len(), 16_384);
    assert!(bytes.len() < 500_000);
}

#[test]
fn handles_that_callers_make_up_are_one_value() {
    let handle = |offset: u16| format!("handle:{:016x}", sample::scattered(offset.into()));
    let index = open(&build(|offset| match offset % 2 {
        0 => using(handle(offset), String::new()),
        _ => using("tenants/t/keys/k".into(), String::new()),
    }));
    let of = |key: String| {
        index
            .select(&Filter {
                key: Some(key),
                ..Filter::default()
            })
            .unwrap()
    };
    assert_eq!(of(handle(2)).len(), 32_768);
    assert_eq!(of("tenants/t/keys/k".into()).len(), 32_768);
}

#[test]
fn values_that_are_too_long_are_cut_and_found() {
    let long = |last: u16| format!("{}{last}", "x".repeat(300));
    let index = open(&build(|offset| {
        using(format!("tenants/t/{offset}"), long(offset % 2))
    }));
    for field in [long(0), long(1), format!("{}*", "x".repeat(299))] {
        let filter = Filter {
            field: Some(field),
            ..Filter::default()
        };
        assert_eq!(
            index.select(&filter).unwrap().len(),
            u64::from(SEGMENT_RECORDS)
        );
    }
}

#[test]
fn records_that_cannot_be_read_are_candidates_of_everything() {
    let unreadable = [9, 300, 301];
    let index = open(&build(|offset| match unreadable.contains(&offset) {
        true => vec![0xff],
        false => sample::usual(offset.into()).encode_to_vec(),
    }));
    let nobody = Filter {
        principal: Some(PrincipalFilter::Exact("nobody".into())),
        to_us: Some(1),
        ..Filter::default()
    };
    let expected = unreadable.into_iter().map(u32::from).collect();
    assert_eq!(index.select(&nobody).unwrap(), expected);
}

#[test]
fn the_same_records_give_the_same_bytes() {
    let (records, bytes) = &*SAMPLES;
    assert!(build(|offset| records[usize::from(offset)].clone()) == *bytes);
}

#[test]
fn only_a_complete_segment_in_order_has_an_index() {
    let mut builder = IndexBuilder::new(SEGMENT);
    builder.add(0, &[], position(0)).unwrap();
    assert_eq!(
        builder.add(2, &[], position(2)),
        Err(BuildError::OutOfOrder {
            offset: 2,
            expected: 1
        })
    );
    for offset in 1..u16::MAX {
        builder.add(offset, &[], position(offset)).unwrap();
    }
    let records = SEGMENT_RECORDS - 1;
    assert_eq!(builder.finish(), Err(BuildError::Incomplete { records }));
    assert!(matches!(
        {
            let mut builder = IndexBuilder::new(SEGMENT);
            for offset in 0..=u16::MAX {
                builder.add(offset, &[], position(offset)).unwrap();
            }
            builder.add(0, &[], position(0))
        },
        Err(BuildError::OutOfOrder { .. })
    ));
}
