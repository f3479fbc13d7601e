//! Records for tests: few different values, so that filters find some, and the usual records of a busy trail.

use bytes::Bytes;
use fieldkeep_proto::v1::{AuditChange, AuditRecord, AuditResource, Decision};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use crate::filter::{Filter, PrincipalFilter};
use crate::items::entry;

const PRINCIPALS: &[&str] = &[
    "",
    "tenants/a",
    "tenants/a/identities/app",
    "tenants/a/identities/batch",
    "tenants/ab/identities/app",
    "local",
];
const NAMES: &[&str] = &[
    "",
    "tenants/a",
    "tenants/a/keys/pii",
    "tenants/a/keys/pi",
    "tenants/ab/keys/pii",
    "handle:0011223344556677",
    "handle:8011223344556677",
    "handle:*",
    "malformed",
];
const FIELDS: &[&str] = &["", "customer", "customer.email", "customer.phone", "card"];
const ACTIONS: &[&str] = &["", "encrypt", "decrypt", "manage"];
const RPCS: &[&str] = &[
    "",
    "fieldkeep.v1.FieldService/Encrypt",
    "fieldkeep.v1.FieldService/Decrypt",
];
const RULES: &[&str] = &["", "grant:g-1", "grant:g-2", "no-grant", "grant"];

/// A record with every field, of few values.
pub(crate) fn record() -> impl Strategy<Value = AuditRecord> {
    let call = (
        0..40_u64,
        select(PRINCIPALS),
        select(ACTIONS),
        select(RPCS),
        select(RULES),
        0..4_i32,
        select(vec![0, 0, 5, 7, 16, -1]),
        0..4_u8,
    );
    let resource = (select(NAMES), select(FIELDS), 0..3_u32);
    (call, vec(resource, 0..4), "\\PC{0,20}", any::<u64>()).prop_map(
        |((time_us, principal, action, rpc, rule, decision, code, id), used, text, number)| {
            let resource = |(name, field, version): (&str, &str, u32)| AuditResource {
                name: name.to_owned(),
                version,
                field: field.to_owned(),
                items: version,
                item_hashes: (0..version)
                    .map(|item| entry(item as u16, 0, item_hash(item as u8)))
                    .collect::<Vec<_>>()
                    .concat()
                    .into(),
            };
            AuditRecord {
                time_us,
                request_id: Bytes::copy_from_slice(&request_id(id)),
                principal: principal.to_owned(),
                authentication: text.clone(),
                address: text.clone(),
                rpc: rpc.to_owned(),
                action: action.to_owned(),
                decision,
                rule: rule.to_owned(),
                code,
                reason: text.clone(),
                duration_us: number,
                resources: used.into_iter().map(resource).collect(),
                context_hash: Bytes::from_static(&[9; 16]),
                items_ok: number as u32,
                items_failed: (number >> 40) as u32,
                changes: vec![
                    AuditChange {
                        store_key: Bytes::from_static(b"k"),
                        generation: number,
                        value_sha256: Bytes::from_static(&[1; 32]),
                    };
                    usize::from(id)
                ],
                store_revision: number >> 8,
                part: code.cast_unsigned(),
                parts: number as u32 & 7,
                detail: text.clone(),
                credential: text,
                phase: code & 3,
                operation_id: Bytes::copy_from_slice(&request_id(id)),
                intended_keys: vec![Bytes::from_static(b"k"); usize::from(id & 1)],
                summarised: number >> 60,
            }
        },
    )
}

/// One of the hashes of items.
fn item_hash(number: u8) -> [u8; 8] {
    [0, 0, 0, 0, 0, 0, 0, number]
}

/// A request id; those of 0 and 1 differ behind the part that is indexed.
fn request_id(id: u8) -> [u8; 16] {
    let mut bytes = [id / 2; 16];
    bytes[15] = id;
    bytes
}

/// A filter that asks for what [`record`] makes, and for some things that it does not.
pub(crate) fn filter() -> impl Strategy<Value = Filter> {
    let text =
        |all: &'static [&'static str]| option::weighted(0.2, select(all).prop_map(str::to_owned));
    let principal = prop_oneof![
        select(PRINCIPALS).prop_map(|name| PrincipalFilter::Exact(name.to_owned())),
        select(vec!["a", "ab", "b"]).prop_map(|name| PrincipalFilter::InTenant(name.to_owned())),
    ];
    let decision = select(vec![
        Decision::Unspecified,
        Decision::Allowed,
        Decision::Refused,
    ]);
    (
        (
            option::weighted(0.2, 0..40_u64),
            option::weighted(0.2, 0..45_u64),
        ),
        option::weighted(0.2, principal),
        text(&["a", "ab", "b", ""]),
        text(NAMES),
        text(&["customer", "customer*", "customer.*", "*", "", "card", "x*"]),
        (
            text(ACTIONS),
            text(RPCS),
            text(&["", "grant", "no-grant", "g"]),
            option::weighted(0.2, (0..4_u8).prop_map(item_hash)),
        ),
        option::weighted(0.2, decision),
        option::weighted(0.1, (0..5_u8).prop_map(request_id)),
        proptest::bool::weighted(0.2),
    )
        .prop_map(
            |(times, principal, tenant, key, field, texts, decision, request_id, only_failed)| {
                Filter {
                    from_us: times.0,
                    to_us: times.1,
                    principal,
                    tenant,
                    key,
                    field,
                    action: texts.0,
                    rpc: texts.1,
                    rule_kind: texts.2,
                    item: texts.3,
                    decision,
                    request_id,
                    only_failed,
                }
            },
        )
}

/// The index of a record, scattered: the same for the same index.
pub(crate) fn scattered(index: u64) -> u64 {
    // SplitMix64's output function.
    let mut mixed = index.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The time of [`usual`]'s record `index`: one each 20 microseconds.
pub(crate) fn usual_time_us(index: u64) -> u64 {
    1_760_000_000_000_000 + index * 20
}

/// The record of a usual call: 300 callers of 20 tenants, 10 keys of each tenant, 60 fields; one in 50 calls is refused. Once in
/// 4,000,000 calls somebody decrypts `patient.diagnosis`.
pub(crate) fn usual(index: u64) -> AuditRecord {
    let mixed = scattered(index);
    let of = |bits: u32, count: u64| (mixed >> bits & 0xffff) % count;
    let (tenant, rare) = (of(0, 20), index % 4_000_000 == 1_234_567);
    let (action, refused) = match of(16, 10) {
        _ if rare => ("decrypt", false),
        0..6 => ("encrypt", of(32, 50) == 0),
        _ => ("decrypt", of(32, 50) == 0),
    };
    let method = if action == "encrypt" {
        "Encrypt"
    } else {
        "Decrypt"
    };
    let decision = if refused {
        Decision::Refused
    } else {
        Decision::Allowed
    };
    let field = if rare {
        "patient.diagnosis".to_owned()
    } else {
        format!("customer.field-{}", of(40, 60))
    };
    AuditRecord {
        time_us: usual_time_us(index),
        request_id: Bytes::copy_from_slice(
            &[mixed.to_be_bytes(), scattered(mixed).to_be_bytes()].concat(),
        ),
        principal: format!("tenants/tenant-{tenant}/identities/app-{}", of(8, 15)),
        authentication: "mtls".to_owned(),
        address: format!(
            "10.0.{}.{}:{}",
            of(3, 200),
            of(5, 200),
            1024 + of(11, 50_000)
        ),
        rpc: format!("fieldkeep.v1.FieldService/{method}"),
        action: action.to_owned(),
        decision: decision.into(),
        rule: match refused {
            true => "no-grant".to_owned(),
            false => format!("grant:g-{:016x}", of(24, 400)),
        },
        code: if refused { 7 } else { 0 },
        reason: if refused {
            "PERMISSION_DENIED".to_owned()
        } else {
            String::new()
        },
        duration_us: 40 + of(9, 200),
        resources: vec![AuditResource {
            name: format!("tenants/tenant-{tenant}/keys/key-{}", of(48, 10)),
            version: 1,
            field,
            ..AuditResource::default()
        }],
        context_hash: Bytes::copy_from_slice(&[mixed.to_le_bytes(); 2].concat()),
        credential: "1f3a99c0ffee1234567890".to_owned(),
        ..AuditRecord::default()
    }
}
