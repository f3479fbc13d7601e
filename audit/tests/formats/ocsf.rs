//! OCSF events against what the published schema requires.

use fieldkeep_audit::export::ocsf::{SCHEMA_VERSION, Source, write};
use fieldkeep_audit::export::operation::{Kind, Operation};
use fieldkeep_proto::v1::{AuditRecord, Decision};
use proptest::prelude::*;
use serde_json::Value;

use super::records::{any_record, every_rpc, record_of};
use super::schema::Schema;

const SOURCE: Source<'static> = Source {
    log_name: "fieldkeep/audit/000102030405060708090a0b0c0d0e0f",
    product_version: "0.1.0",
};

fn event(index: u64, record: &AuditRecord) -> Value {
    let mut out = Vec::new();
    write(&mut out, SOURCE, index, record).unwrap();
    assert_eq!(out.iter().filter(|byte| **byte == b'\n').count(), 1);
    assert_eq!(out.last(), Some(&b'\n'));
    serde_json::from_slice(&out).unwrap()
}

#[test]
fn the_version_is_the_one_that_is_checked_against() {
    assert_eq!(Schema::load().version, SCHEMA_VERSION);
}

#[test]
fn every_rpc_makes_a_valid_event_for_each_way_to_end() {
    let schema = Schema::load();
    let rpcs = every_rpc();
    assert!(rpcs.len() >= 58, "{} RPCs", rpcs.len());
    for (rpc, action) in &rpcs {
        for (decision, code) in [
            (Decision::Allowed, 0),
            (Decision::Allowed, 5),
            (Decision::Refused, 7),
        ] {
            let record = record_of(rpc, action, decision, code);
            let event = event(9, &record);
            assert_eq!(schema.faults(&event), Vec::<String>::new(), "{rpc}");
            assert_ne!(event["activity_id"], 99, "{rpc} has no activity");
        }
    }
}

#[test]
fn management_is_class_3004_and_all_else_6003() {
    for (rpc, action) in every_rpc() {
        let record = record_of(&rpc, &action, Decision::Allowed, 0);
        let reads = [
            "Get",
            "List",
            "WhoCan",
            "Explain",
            "CheckToken",
            "Prove",
            "Tail",
            "MakeReport",
        ];
        let method = rpc.rsplit('/').next().unwrap();
        let managed =
            !rpc.contains("FieldService") && !reads.iter().any(|verb| method.starts_with(verb));
        let class = if managed { 3004 } else { 6003 };
        assert_eq!(event(0, &record)["class_uid"], class, "{rpc}");
        let kind = Operation::of(&record).kind;
        assert_eq!(matches!(kind, Kind::Change(_)), managed, "{rpc}");
    }
}

#[test]
fn a_refused_decrypt_says_who_what_and_why() {
    let mut record = record_of(
        "fieldkeep.v1.FieldService/Decrypt",
        "decrypt",
        Decision::Refused,
        7,
    );
    record.rule = "no-grant".into();
    record.reason = "no-grant".into();
    let event = event(41, &record);
    assert_eq!(event["type_uid"], 600_302);
    assert_eq!(event["status_id"], 2);
    assert_eq!(event["status_code"], "PERMISSION_DENIED");
    assert_eq!(event["severity_id"], 2);
    assert_eq!(event["time"], 1_795_874_709_123_u64);
    assert_eq!(event["metadata"]["sequence"], 41);
    assert_eq!(event["metadata"]["uid"], "000102030405060708090a0b0c0d0e0f");
    assert_eq!(event["metadata"]["tenant_uid"], "acme");
    assert_eq!(event["actor"]["user"]["name"], "app");
    assert_eq!(
        event["actor"]["authorizations"][0]["policy"]["uid"],
        "no-grant"
    );
    assert_eq!(event["src_endpoint"]["ip"], "2001:db8::1");
    assert_eq!(event["src_endpoint"]["port"], 4711);
    assert_eq!(event["api"]["operation"], "Decrypt");
    assert_eq!(event["api"]["service"]["name"], "fieldkeep.v1.FieldService");
    assert_eq!(event["api"]["response"]["code"], 7);
    assert_eq!(event["resources"][0]["name"], "tenants/acme/keys/pii");
    assert_eq!(event["resources"][0]["data"]["field"], "customer.email");
}

#[test]
fn a_grant_is_a_policy_with_its_id() {
    let mut record = record_of(
        "fieldkeep.v1.AccessService/CreateGrant",
        "grant",
        Decision::Allowed,
        0,
    );
    record.detail = "id=g-0123456789abcdef role=data tenant=acme keys=pii fields=*".into();
    let event = event(1, &record);
    assert_eq!(event["type_uid"], 300_401);
    assert_eq!(event["entity"]["uid"], "g-0123456789abcdef");
    assert_eq!(event["entity"]["type"], "Policy");
    assert_eq!(event["unmapped"]["detail"], record.detail);
}

#[test]
fn further_parts_have_ids_of_their_own_and_no_outcome() {
    let mut record = record_of(
        "fieldkeep.v1.FieldService/BatchDecrypt",
        "decrypt",
        Decision::Allowed,
        0,
    );
    record.part = 2;
    record.parts = 3;
    let event = event(1, &record);
    assert_eq!(
        event["metadata"]["uid"],
        "000102030405060708090a0b0c0d0e0f-2"
    );
    assert_eq!(
        event["metadata"]["correlation_uid"],
        "000102030405060708090a0b0c0d0e0f"
    );
    assert_eq!(event["status_id"], 0);
    assert_eq!(event["api"].get("response"), None);
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let schema = Schema::load();
    let record = record_of(
        "fieldkeep.v1.KeyService/CreateKey",
        "manage",
        Decision::Allowed,
        0,
    );
    let good = event(0, &record);
    let broken: [fn(&mut Value); 6] = [
        |event| drop(event.as_object_mut().unwrap().remove("entity")),
        |event| event["activity_id"] = 77.into(),
        |event| event["time"] = "now".into(),
        |event| event["type_uid"] = 300_499.into(),
        |event| event["colour"] = "red".into(),
        |event| event["metadata"]["product"] = serde_json::json!({"version": "1"}),
    ];
    for break_it in broken {
        let mut event = good.clone();
        break_it(&mut event);
        assert_ne!(schema.faults(&event), Vec::<String>::new());
    }
}

proptest! {
    #[test]
    fn any_record_makes_a_valid_event(index: u64, record in any_record()) {
        let event = event(index, &record);
        prop_assert_eq!(Schema::load().faults(&event), Vec::<String>::new());
        prop_assert_eq!(&event["unmapped"]["detail"], &Value::String(record.detail.clone()));
    }
}
