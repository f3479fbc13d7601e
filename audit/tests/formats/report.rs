//! Reports against naive sums, and lines of JSON against their records.

use std::collections::BTreeMap;

use fieldkeep_audit::export::jsonl;
use fieldkeep_audit::report::builder::Builder;
use fieldkeep_audit::report::model::Report;
use fieldkeep_audit::report::overdue::OverdueKeys;
use fieldkeep_audit::report::{Basis, Range};
use fieldkeep_proto::v1::{AuditRecord, AuditResource, Decision};
use proptest::prelude::*;
use serde_json::Value;

use super::records::any_record;

pub(crate) const FROM_US: u64 = 1_795_824_000_000_000;
pub(crate) const DAY_US: u64 = 86_400_000_000;

fn report(records: &[AuditRecord]) -> Report {
    let mut builder = Builder::new(Range::new(FROM_US, FROM_US + 3 * DAY_US).unwrap());
    for (index, record) in (100..).zip(records) {
        builder.add(index, record);
    }
    builder.finish(Basis::default(), OverdueKeys::default())
}

pub(crate) fn text_of(write: impl FnOnce(&mut Vec<u8>) -> std::io::Result<()>) -> String {
    let mut out = Vec::new();
    write(&mut out).unwrap();
    String::from_utf8(out).unwrap()
}

pub(crate) fn json(report: &Report) -> Value {
    serde_json::from_str(&text_of(|out| report.write_json(out))).unwrap()
}

/// A call as a test writes it down.
#[derive(Clone, Debug)]
struct Call {
    principal: u8,
    action: &'static str,
    ending: (Decision, i32),
    /// Key, field, version, items of each resource.
    named: Vec<(u8, u8, u32, u32)>,
    failed: u32,
    masked: u32,
    parts: usize,
    minute: u64,
}

impl Call {
    fn principal(&self) -> String {
        format!("tenants/acme/identities/app-{}", self.principal)
    }

    fn items(&self) -> u64 {
        self.named.iter().map(|(.., items)| u64::from(*items)).sum()
    }

    /// The records, as the service would write them: a batch with its counts, in so many parts.
    fn records(&self, id: u64) -> Vec<AuditRecord> {
        let resources: Vec<AuditResource> = self
            .named
            .iter()
            .map(|(key, field, version, items)| AuditResource {
                name: format!("tenants/acme/keys/key-{key}"),
                version: *version,
                field: format!("field-{field}"),
                items: *items,
                ..AuditResource::default()
            })
            .collect();
        let answered = self.ending == (Decision::Allowed, 0);
        let head = AuditRecord {
            time_us: FROM_US + self.minute * 60_000_000,
            request_id: id.to_be_bytes().to_vec().into(),
            principal: self.principal(),
            rpc: format!("fieldkeep.v1.FieldService/Batch-{}", self.action),
            action: self.action.into(),
            decision: self.ending.0.into(),
            code: self.ending.1,
            rule: format!("rule-{}", self.principal % 3),
            items_ok: if answered {
                self.items() as u32 - self.failed
            } else {
                0
            },
            items_failed: if answered { self.failed } else { 0 },
            detail: match self.masked {
                0 => String::new(),
                masked => format!("masked={masked}"),
            },
            ..AuditRecord::default()
        };
        let size = resources.len().div_ceil(self.parts);
        let chunks: Vec<&[AuditResource]> = resources.chunks(size).collect();
        let parts = if chunks.len() > 1 {
            chunks.len() as u32
        } else {
            0
        };
        (1..)
            .zip(chunks)
            .map(|(part, chunk)| AuditRecord {
                resources: chunk.to_vec(),
                part: if parts == 0 { 0 } else { part },
                parts,
                ..if part == 1 {
                    head.clone()
                } else {
                    AuditRecord {
                        time_us: head.time_us,
                        request_id: head.request_id.clone(),
                        principal: head.principal.clone(),
                        rpc: head.rpc.clone(),
                        action: head.action.clone(),
                        decision: head.decision,
                        ..AuditRecord::default()
                    }
                }
            })
            .collect()
    }
}

fn call() -> impl Strategy<Value = Call> {
    let ending = prop_oneof![
        6 => Just((Decision::Allowed, 0)),
        1 => Just((Decision::Allowed, 14)),
        2 => Just((Decision::Refused, 7)),
    ];
    let named = proptest::collection::vec((0..3_u8, 0..2_u8, 1..3_u32, 1..50_u32), 1..6);
    let action = prop_oneof![3 => Just("decrypt"), 1 => Just("encrypt")];
    (
        0..4_u8,
        action,
        ending,
        named,
        any::<(u32, u32)>(),
        1..4_usize,
        0..3 * 24 * 60_u64,
    )
        .prop_map(
            |(principal, action, ending, named, (failed, masked), parts, minute)| {
                let items: u32 = named.iter().map(|(.., items)| *items).sum();
                let failed = failed % (items + 1);
                let masked = if action == "decrypt" {
                    masked % (items - failed + 1)
                } else {
                    0
                };
                Call {
                    principal,
                    action,
                    ending,
                    named,
                    failed,
                    masked,
                    parts,
                    minute,
                }
            },
        )
}

/// What the rows of a table have under a name, together with its row for all others.
fn column(table: &Value, name: &str) -> u64 {
    let rows = table["rows"].as_array().unwrap().iter();
    let of = |row: &Value| row[name].as_u64().unwrap_or(0);
    rows.map(of).sum::<u64>() + of(&table["others"])
}

proptest! {
    #[test]
    fn sums_are_those_of_the_calls(calls in proptest::collection::vec(call(), 0..40)) {
        let records: Vec<AuditRecord> = (0..).zip(&calls).flat_map(|(id, call)| call.records(id)).collect();
        let report = json(&report(&records));
        let decrypts: Vec<&Call> = calls.iter().filter(|call| call.action == "decrypt").collect();
        let answered = |call: &&&Call| call.ending == (Decision::Allowed, 0);
        let refused = |call: &&&Call| call.ending.0 == Decision::Refused;

        // The totals.
        let totals = &report["totals"];
        prop_assert_eq!(&totals["calls"], calls.len());
        prop_assert_eq!(&totals["refused"], calls.iter().filter(|call| refused(&call)).count());
        prop_assert_eq!(&totals["answered"], calls.iter().filter(|call| answered(&call)).count());
        let done = decrypts.iter().filter(answered);
        let sums = done.fold((0, 0, 0), |(items, failed, masked), call| {
            (items + call.items(), failed + u64::from(call.failed), masked + u64::from(call.masked))
        });
        for of in [&report["totals"]["decrypt"]["items"], &column(&report["decrypts"], "items").into()] {
            prop_assert_eq!(of, &Value::from(sums.0));
        }
        prop_assert_eq!(&totals["decrypt"]["calls"], decrypts.len());
        prop_assert_eq!(&totals["decrypt"]["items_failed"], sums.1);
        prop_assert_eq!(&totals["decrypt"]["items_masked"], sums.2);
        prop_assert_eq!(column(&report["decrypts"], "items_failed"), sums.1);
        prop_assert_eq!(column(&report["decrypts"], "items_masked"), sums.2);
        prop_assert_eq!(column(&report["principals"], "calls"), calls.len() as u64);
        prop_assert_eq!(column(&report["principals"], "decrypted"), sums.0 - sums.1);
        prop_assert_eq!(column(&report["refusals"], "calls"), calls.iter().filter(|call| refused(&call)).count() as u64);
        prop_assert_eq!(&report["basis"]["records"], records.len());

        // Each row.
        let mut rows: BTreeMap<(String, String, String), (u64, u64, u64)> = BTreeMap::new();
        for call in &decrypts {
            let mut seen = BTreeMap::new();
            for (key, field, _, items) in &call.named {
                *seen.entry((key, field)).or_insert(0) += u64::from(*items);
            }
            for ((key, field), items) in seen {
                let name = (call.principal(), format!("tenants/acme/keys/key-{key}"), format!("field-{field}"));
                let row = rows.entry(name).or_default();
                row.0 += 1;
                row.1 += if answered(&call) { items } else { 0 };
                row.2 += u64::from(refused(&call));
            }
        }
        let have = report["decrypts"]["rows"].as_array().unwrap().iter().filter(|row| row["key"] != "(several)");
        let have: BTreeMap<_, _> = have.map(|row| {
            let text = |name: &str| row[name].as_str().unwrap().to_owned();
            let number = |name: &str| row[name].as_u64().unwrap();
            ((text("principal"), text("key"), text("field")), (number("calls"), number("items"), number("calls_refused")))
        }).collect();
        prop_assert_eq!(have, rows);

        // Activity over time.
        let buckets = report["activity"]["buckets"].as_array().unwrap();
        prop_assert_eq!(buckets.len(), 72);
        let mut hours = vec![(0, 0); 72];
        for call in &calls {
            let hour = &mut hours[(call.minute / 60) as usize];
            hour.0 += 1;
            if call.action == "decrypt" && answered(&&call) {
                hour.1 += call.items() - u64::from(call.failed);
            }
        }
        let have: Vec<(u64, u64)> = buckets.iter().map(|bucket| {
            (bucket["calls"].as_u64().unwrap(), bucket["decrypted"].as_u64().unwrap())
        }).collect();
        prop_assert_eq!(have, hours);
    }

    #[test]
    fn any_records_make_a_report_in_every_form(
        mut records in proptest::collection::vec(any_record(), 0..20),
        inside in any::<u64>(),
    ) {
        for (record, shift) in records.iter_mut().zip(0..) {
            record.time_us = FROM_US + (inside.wrapping_add(shift * 977)) % (3 * DAY_US);
        }
        let (one, two) = (report(&records), report(&records));
        let bytes = text_of(|out| one.write_json(out));
        prop_assert_eq!(&bytes, &text_of(|out| two.write_json(out)));
        let totals = &json(&one)["totals"];
        let number = |name: &str| totals[name].as_u64().unwrap();
        prop_assert_eq!(number("calls"), number("answered") + number("failed") + number("refused"));
        let html = text_of(|out| one.write_html(out));
        prop_assert_eq!(html.matches("<table>").count(), html.matches("</table>").count());
        for line in text_of(|out| one.write_text(out)).lines() {
            prop_assert!(line.chars().all(|c| !c.is_control()), "{line:?}");
        }
    }

    #[test]
    fn lines_of_json_have_every_value(index: u64, record in any_record()) {
        let text = text_of(|out| jsonl::write(out, index, &record));
        prop_assert!(text.ends_with('\n') && text.matches('\n').count() == 1);
        let line: Value = serde_json::from_str(&text).unwrap();
        let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
        prop_assert_eq!(&line["index"], index);
        prop_assert_eq!(&line["time_us"], record.time_us);
        prop_assert_eq!(&line["duration_us"], record.duration_us);
        prop_assert_eq!(&line["code"], record.code);
        prop_assert_eq!(&line["items_ok"], record.items_ok);
        prop_assert_eq!(&line["items_failed"], record.items_failed);
        prop_assert_eq!(&line["part"], record.part);
        prop_assert_eq!(&line["request_id"], &Value::from(hex(&record.request_id)));
        for (name, value) in [
            ("principal", &record.principal), ("authentication", &record.authentication), ("address", &record.address),
            ("rpc", &record.rpc), ("action", &record.action), ("rule", &record.rule), ("reason", &record.reason),
            ("detail", &record.detail), ("credential", &record.credential),
        ] {
            prop_assert_eq!(&line[name], &Value::from(value.as_str()), "{}", name);
        }
        let resources = line["resources"].as_array().unwrap();
        prop_assert_eq!(resources.len(), record.resources.len());
        for (have, resource) in resources.iter().zip(&record.resources) {
            prop_assert_eq!(&have["name"], &Value::from(resource.name.as_str()));
            prop_assert_eq!(&have["field"], &Value::from(resource.field.as_str()));
            prop_assert_eq!(&have["version"], resource.version);
            prop_assert_eq!(&have["items"], resource.items);
        }
        let changes = line["changes"].as_array().unwrap();
        prop_assert_eq!(changes.len(), record.changes.len());
        for (have, change) in changes.iter().zip(&record.changes) {
            prop_assert_eq!(&have["store_key"], &Value::from(hex(&change.store_key)));
        }
    }
}

#[test]
fn what_was_done_is_where_a_reader_looks() {
    let record = |action: &str, rpc: &str, decision: Decision, code, detail: &str| AuditRecord {
        time_us: FROM_US + 60_000_000,
        principal: "tenants/acme/identities/ops".into(),
        rpc: rpc.into(),
        action: action.into(),
        decision: decision.into(),
        code,
        detail: detail.into(),
        resources: vec![AuditResource {
            name: "tenants/acme/keys/pii".into(),
            ..AuditResource::default()
        }],
        ..AuditRecord::default()
    };
    let grant = "fieldkeep.v1.AccessService/CreateGrant";
    let report = json(&report(&[
        record("grant", grant, Decision::Allowed, 0, "id=g-1 role=data"),
        record("grant", grant, Decision::Allowed, 9, "role=data"),
        record("grant", grant, Decision::Refused, 7, "role=admin"),
        record(
            "manage",
            "fieldkeep.v1.KeyService/CreateKey",
            Decision::Allowed,
            0,
            "suite=1",
        ),
        record(
            "describe",
            "fieldkeep.v1.KeyService/GetKey",
            Decision::Allowed,
            0,
            "",
        ),
        record(
            "init",
            "fieldkeep init",
            Decision::Allowed,
            0,
            "role=admin tenant=*",
        ),
    ]));
    let named = |list: &str| -> Vec<String> {
        let rows = report[list]["rows"].as_array().unwrap().iter();
        rows.map(|row| {
            format!(
                "{} {}",
                row["operation"].as_str().unwrap(),
                row["result"].as_str().unwrap()
            )
        })
        .collect()
    };
    assert_eq!(named("grants"), ["CreateGrant OK", "init OK"]);
    assert_eq!(
        named("acts"),
        ["CreateGrant FAILED_PRECONDITION", "CreateKey OK"]
    );
    assert_eq!(report["refusals"]["rows"][0]["calls"], 1);
    assert_eq!(report["totals"]["reads"], 1);
    assert_eq!(report["totals"]["acts"], 4);
    assert_eq!(report["basis"]["first_index"], 100);
    assert_eq!(report["basis"]["last_index"], 105);
}

#[test]
fn refused_values_of_an_answered_batch_are_refusals_too() {
    let batch = AuditRecord {
        time_us: FROM_US,
        principal: "tenants/acme/identities/app".into(),
        rpc: "fieldkeep.v1.FieldService/BatchDecrypt".into(),
        action: "decrypt".into(),
        decision: Decision::Allowed.into(),
        items_ok: 1,
        items_failed: 9,
        reason: "KEY_DISABLED:2 PERMISSION_DENIED:4 foreign-tenant:3".into(),
        ..AuditRecord::default()
    };
    let report = json(&report(&[batch]));
    let rows = report["refusals"]["rows"].as_array().unwrap();
    assert_eq!(rows.len(), 2);
    assert_eq!(
        (&rows[0]["rule"], &rows[0]["items"]),
        (&"PERMISSION_DENIED".into(), &4.into())
    );
    assert_eq!(
        (&rows[1]["rule"], &rows[1]["items"]),
        (&"foreign-tenant".into(), &3.into())
    );
    assert_eq!(rows[0]["calls"], 0);
}

#[test]
fn what_is_out_of_range_is_not_counted() {
    let at = |time_us| AuditRecord {
        time_us,
        ..AuditRecord::default()
    };
    let end = FROM_US + 3 * DAY_US;
    let report = json(&report(&[
        at(FROM_US - 1),
        at(FROM_US),
        at(end - 1),
        at(end),
    ]));
    assert_eq!(report["basis"]["records"], 2);
    assert_eq!(report["basis"]["first_index"], 101);
    assert_eq!(report["basis"]["last_index"], 102);
}
