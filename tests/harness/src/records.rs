//! Audit records of a busy trail, as unary calls leave them; the same for the same number.

use bytes::Bytes;
use fieldkeep_proto::v1::{AuditRecord, AuditResource, Decision};

/// One record in so many has a principal, a key or a field that few others have, each of them.
pub const RARE_ONE_IN: u64 = 200_000;
/// How many different ones there are of each.
pub const RARE: u64 = 17;

/// A rare principal, below [`RARE`].
#[must_use]
pub fn rare_principal(number: u64) -> String {
    format!("tenants/tenant-{number}/identities/quarterly-{number}")
}

/// A rare key.
#[must_use]
pub fn rare_key(number: u64) -> String {
    format!("tenants/tenant-{number}/keys/archive-{number}")
}

/// A rare field.
#[must_use]
pub fn rare_field(number: u64) -> String {
    format!("patient.diagnosis-{number}")
}

/// Record `number`: of 300 callers of 20 tenants, with 10 keys a tenant and 60 fields; 20 microseconds after the one before. One
/// call in 50 is refused.
#[must_use]
pub fn usual(number: u64) -> AuditRecord {
    let mixed = scattered(number);
    let of = |bits: u32, count: u64| (mixed >> bits & 0xffff) % count;
    let (tenant, rare) = (of(0, 20), scattered(mixed) % RARE_ONE_IN);
    let (action, method) = match of(16, 10) {
        0..6 => ("encrypt", "Encrypt"),
        _ => ("decrypt", "Decrypt"),
    };
    let refused = of(32, 50) == 0;
    let principal = match rare {
        0 => rare_principal(of(8, RARE)),
        _ => format!("tenants/tenant-{tenant}/identities/app-{}", of(8, 15)),
    };
    let name = match rare {
        1 => rare_key(of(8, RARE)),
        _ => format!("tenants/tenant-{tenant}/keys/key-{}", of(48, 10)),
    };
    let field = match rare {
        2 => rare_field(of(8, RARE)),
        _ => format!("customer.field-{}", of(40, 60)),
    };
    let id = [mixed.to_be_bytes(), scattered(mixed).to_be_bytes()].concat();
    let decision = match refused {
        true => Decision::Refused,
        false => Decision::Allowed,
    };
    let or_none = |text: &str| match refused {
        true => text.to_owned(),
        false => String::new(),
    };
    AuditRecord {
        time_us: 1_760_000_000_000_000 + number * 20,
        request_id: Bytes::from(id),
        principal,
        authentication: "mtls".to_owned(),
        address: format!(
            "10.0.{}.{}:{}",
            of(3, 200),
            of(5, 200),
            1_024 + of(11, 50_000)
        ),
        rpc: format!("fieldkeep.v1.FieldService/{method}"),
        action: action.to_owned(),
        decision: decision.into(),
        rule: match refused {
            true => "no-grant".to_owned(),
            false => format!("grant:g-{:016x}", of(24, 400)),
        },
        code: if refused { 7 } else { 0 },
        reason: or_none("PERMISSION_DENIED"),
        duration_us: 40 + of(9, 200),
        resources: vec![AuditResource {
            name,
            version: 1,
            field,
            ..AuditResource::default()
        }],
        context_hash: Bytes::copy_from_slice(&[mixed.to_le_bytes(); 2].concat()),
        items_ok: u32::from(!refused),
        credential: "1f3a99c0ffee1234567890".to_owned(),
        ..AuditRecord::default()
    }
}

/// The output function of SplitMix64.
fn scattered(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
