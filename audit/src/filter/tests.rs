use fieldkeep_proto::v1::AuditResource;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::items::entry;
use crate::sample;

/// The filter said once more, as plainly as possible.
fn naive(filter: &Filter, record: &AuditRecord) -> bool {
    let in_tenant = |name: &str, tenant: &str| {
        name == format!("tenants/{tenant}") || name.starts_with(&format!("tenants/{tenant}/"))
    };
    let mut yes = true;
    if let Some(from) = filter.from_us {
        yes &= from <= record.time_us;
    }
    if let Some(to) = filter.to_us {
        yes &= record.time_us < to;
    }
    match &filter.principal {
        Some(PrincipalFilter::Exact(name)) => yes &= record.principal == *name,
        Some(PrincipalFilter::InTenant(tenant)) => yes &= in_tenant(&record.principal, tenant),
        None => {}
    }
    if let Some(tenant) = &filter.tenant {
        yes &= in_tenant(&record.principal, tenant)
            || record
                .resources
                .iter()
                .any(|used| in_tenant(&used.name, tenant));
    }
    if filter.key.is_some() || filter.field.is_some() || filter.item.is_some() {
        yes &= record.resources.iter().any(|used| {
            let key = filter.key.as_ref().is_none_or(|key| used.name == *key);
            let field = filter.field.as_ref().is_none_or(|field| {
                if field.ends_with('*') {
                    used.field.starts_with(&field[..field.len() - 1])
                } else {
                    used.field == *field
                }
            });
            let item = filter.item.as_ref().is_none_or(|item| {
                let mut entries = used.item_hashes.chunks(11);
                entries.any(|entry| entry.len() == 11 && entry[3..] == item[..])
            });
            key && field && item
        });
    }
    if let Some(action) = &filter.action {
        yes &= record.action == *action;
    }
    if let Some(rpc) = &filter.rpc {
        yes &= record.rpc == *rpc;
    }
    if let Some(kind) = &filter.rule_kind {
        yes &= record.rule.split(':').next() == Some(kind);
    }
    if let Some(decision) = filter.decision {
        yes &= record.decision == decision as i32;
    }
    if let Some(id) = filter.request_id {
        yes &= record.request_id == id.as_slice();
    }
    if filter.only_failed {
        yes &= record.code != 0 || record.decision == Decision::Refused as i32;
    }
    yes
}

proptest! {
    #[test]
    fn it_accepts_what_it_says(filter in sample::filter(), record in sample::record()) {
        let expected = naive(&filter, &record);
        prop_assert_eq!(filter.accepts(&record), expected);
        let bytes = record.encode_to_vec();
        let view = RecordView::parse(&bytes).unwrap();
        prop_assert_eq!(filter.accepts_view(&view), expected);
    }
}

fn record_of(used: &[(&str, &str)]) -> AuditRecord {
    AuditRecord {
        time_us: 10,
        resources: used
            .iter()
            .map(|(name, field)| AuditResource {
                name: (*name).to_owned(),
                field: (*field).to_owned(),
                ..AuditResource::default()
            })
            .collect(),
        ..AuditRecord::default()
    }
}

#[test]
fn key_and_field_are_those_of_one_resource() {
    let record = record_of(&[("tenants/t/keys/a", "email"), ("tenants/t/keys/b", "phone")]);
    let asked = |key: &str, field: &str| Filter {
        key: Some(key.to_owned()),
        field: Some(field.to_owned()),
        ..Filter::default()
    };
    assert!(asked("tenants/t/keys/a", "email").accepts(&record));
    assert!(asked("tenants/t/keys/b", "ph*").accepts(&record));
    assert!(!asked("tenants/t/keys/a", "phone").accepts(&record));
}

#[test]
fn times_include_their_beginning_and_not_their_end() {
    let record = record_of(&[]);
    let between = |from, to| Filter {
        from_us: Some(from),
        to_us: Some(to),
        ..Filter::default()
    };
    assert!(between(10, 11).accepts(&record));
    assert!(!between(11, 20).accepts(&record));
    assert!(!between(0, 10).accepts(&record));
}

#[test]
fn a_tenant_whose_name_begins_as_another_is_another() {
    let record = record_of(&[("tenants/acme2/keys/a", "")]);
    let of = |tenant: &str| Filter {
        tenant: Some(tenant.to_owned()),
        ..Filter::default()
    };
    assert!(of("acme2").accepts(&record));
    assert!(!of("acme").accepts(&record));
}

#[test]
fn an_item_is_one_of_the_key_and_the_field_that_are_asked_for() {
    let mut record = record_of(&[("tenants/t/keys/a", "ssn"), ("tenants/t/keys/b", "ssn")]);
    record.resources[0].item_hashes = [entry(0, 0, [1; 8]), entry(2, 3, [2; 8])].concat().into();
    record.resources[1].item_hashes = entry(1, 0, [3; 8]).to_vec().into();
    let asked = |key: Option<&str>, hash: u8| Filter {
        key: key.map(str::to_owned),
        item: Some([hash; 8]),
        ..Filter::default()
    };
    let (a, b) = (Some("tenants/t/keys/a"), Some("tenants/t/keys/b"));
    for (key, hash, is) in [
        (a, 1, true),
        (a, 2, true),
        (None, 2, true),
        (a, 3, false),
        (b, 3, true),
        (b, 1, false),
        (None, 4, false),
    ] {
        assert_eq!(asked(key, hash).accepts(&record), is, "{key:?} {hash}");
    }
}
