//! Records to make events of.

use fieldkeep_proto::v1::{AuditChange, AuditRecord, AuditResource, Decision, FILE_DESCRIPTOR_SET};
use proptest::prelude::*;
use prost::Message;

/// As much of a `FileDescriptorSet` as this needs.
#[derive(Clone, PartialEq, Message)]
struct Files {
    #[prost(message, repeated, tag = "1")]
    file: Vec<File>,
}
#[derive(Clone, PartialEq, Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    service: Vec<Service>,
}
#[derive(Clone, PartialEq, Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    method: Vec<Method>,
}
#[derive(Clone, PartialEq, Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}

/// All RPCs of the contract, as records name them, each with an action as the service would authorize it.
pub(crate) fn every_rpc() -> Vec<(String, String)> {
    let files = Files::decode(FILE_DESCRIPTOR_SET).unwrap();
    let mut rpcs = Vec::new();
    for file in &files.file {
        for service in &file.service {
            for method in &service.method {
                let rpc = format!("{}.{}/{}", file.package, service.name, method.name);
                rpcs.push((rpc, action(&service.name, &method.name).to_owned()));
            }
        }
    }
    rpcs
}

fn action(service: &str, method: &str) -> &'static str {
    match service {
        "FieldService" if method.contains("Decrypt") => "decrypt",
        "FieldService" if method.contains("ReEncrypt") => "re-encrypt",
        "FieldService" => "encrypt",
        "AuditService" => "audit",
        "AccessService" | "MaskService" => "grant",
        "LimitService" => "limit",
        "TenantService" => "tenant",
        "KeyService" => "manage",
        "SystemService" => "status",
        _ => "certificate",
    }
}

/// A record of a call on one key.
pub(crate) fn record_of(rpc: &str, action: &str, decision: Decision, code: i32) -> AuditRecord {
    AuditRecord {
        time_us: 1_795_874_709_123_456,
        request_id: (0..16).collect::<Vec<u8>>().into(),
        principal: "tenants/acme/identities/app".into(),
        authentication: "mtls".into(),
        address: "[2001:db8::1]:4711".into(),
        rpc: rpc.into(),
        action: action.into(),
        decision: decision.into(),
        rule: "grant:g-0123456789abcdef".into(),
        code,
        duration_us: 1_500,
        resources: vec![AuditResource {
            name: "tenants/acme/keys/pii".into(),
            version: 3,
            field: "customer.email".into(),
            ..AuditResource::default()
        }],
        credential: "0a1b".into(),
        ..AuditRecord::default()
    }
}

fn resource() -> impl Strategy<Value = AuditResource> {
    (
        "[ -~]{0,12}|\\PC{0,12}",
        any::<u32>(),
        "\\PC{0,8}",
        any::<u32>(),
        proptest::collection::vec(any::<u8>(), 0..40),
    )
        .prop_map(|(name, version, field, items, item_hashes)| AuditResource {
            name,
            version,
            field,
            items,
            item_hashes: item_hashes.into(),
        })
}

fn change() -> impl Strategy<Value = AuditChange> {
    (any::<Vec<u8>>(), any::<u64>()).prop_map(|(store_key, generation)| AuditChange {
        store_key: store_key.into(),
        generation,
        value_sha256: vec![7; 32].into(),
    })
}

/// Any record that decodes, a service's or not.
pub(crate) fn any_record() -> impl Strategy<Value = AuditRecord> {
    let rpcs: Vec<String> = every_rpc().into_iter().map(|(rpc, _)| rpc).collect();
    let rpc = prop_oneof![proptest::sample::select(rpcs), ".{0,24}"];
    let texts = (
        any::<String>(),
        rpc,
        any::<String>(),
        any::<String>(),
        any::<String>(),
        any::<String>(),
    );
    let principal = "(tenants/acme/identities/)?\\PC{0,10}";
    let numbers = (
        any::<u64>(),
        any::<i32>(),
        any::<i32>(),
        any::<u64>(),
        any::<u32>(),
        any::<u32>(),
        0..4_u32,
        prop_oneof![4 => Just(0), 1 => 0..4_i32],
        prop_oneof![4 => Just(0), 1 => 1..10_000_u64],
    );
    let lists = (
        proptest::collection::vec(resource(), 0..4),
        proptest::collection::vec(change(), 0..3),
        any::<Vec<u8>>(),
    );
    (texts, principal, numbers, lists).prop_map(|(texts, principal, numbers, lists)| {
        let (address, rpc, action, rule, reason, detail) = texts;
        let (time_us, decision, code, duration_us, items_ok, items_failed, part, phase, summarised) =
            numbers;
        let (resources, changes, request_id) = lists;
        AuditRecord {
            time_us,
            request_id: request_id.into(),
            credential: principal.clone(),
            authentication: rule.clone(),
            principal,
            address,
            rpc,
            action,
            decision,
            rule,
            code,
            reason,
            duration_us,
            resources,
            context_hash: vec![1, 2].into(),
            items_ok,
            items_failed,
            changes,
            store_revision: 1,
            part,
            parts: part,
            detail,
            phase,
            operation_id: vec![3; 16].into(),
            intended_keys: vec![b"k/acme/pii".to_vec().into()],
            summarised,
        }
    })
}
