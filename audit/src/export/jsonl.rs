//! JSON lines: one object a record, one a line, with the names that `fieldkeep audit list --format json` has too.

use std::io;

use bytes::Bytes;
use fieldkeep_proto::v1::{AuditChange, AuditRecord, AuditResource};
use serde::{Serialize, Serializer};

use super::words::{Hex, ItemHashes, Time, decision, phase};

/// A record as the JSON object that stands for it. The members are always all there and always in this order; byte strings are
/// lower-case hexadecimal; `time` is RFC 3339 in UTC with microseconds, `null` beyond the year 9999.
#[derive(Debug, Serialize)]
pub struct Line<'a> {
    index: u64,
    time: Time,
    time_us: u64,
    request_id: Hex<'a>,
    principal: &'a str,
    authentication: &'a str,
    address: &'a str,
    rpc: &'a str,
    action: &'a str,
    decision: &'static str,
    rule: &'a str,
    code: i32,
    reason: &'a str,
    duration_us: u64,
    #[serde(serialize_with = "resources")]
    resources: &'a [AuditResource],
    context_hash: Hex<'a>,
    items_ok: u32,
    items_failed: u32,
    #[serde(serialize_with = "changes")]
    changes: &'a [AuditChange],
    store_revision: u64,
    detail: &'a str,
    credential: &'a str,
    part: u32,
    parts: u32,
    phase: &'static str,
    operation_id: Hex<'a>,
    #[serde(serialize_with = "hexes")]
    intended_keys: &'a [Bytes],
    summarised: u64,
}

impl<'a> Line<'a> {
    /// The object of the record at `index`, counted from 0.
    #[must_use]
    pub fn of(index: u64, record: &'a AuditRecord) -> Self {
        Self {
            index,
            time: Time(record.time_us),
            time_us: record.time_us,
            request_id: Hex(&record.request_id),
            principal: &record.principal,
            authentication: &record.authentication,
            address: &record.address,
            rpc: &record.rpc,
            action: &record.action,
            decision: decision(record),
            rule: &record.rule,
            code: record.code,
            reason: &record.reason,
            duration_us: record.duration_us,
            resources: &record.resources,
            context_hash: Hex(&record.context_hash),
            items_ok: record.items_ok,
            items_failed: record.items_failed,
            changes: &record.changes,
            store_revision: record.store_revision,
            detail: &record.detail,
            credential: &record.credential,
            part: record.part,
            parts: record.parts,
            phase: phase(record),
            operation_id: Hex(&record.operation_id),
            intended_keys: &record.intended_keys,
            summarised: record.summarised,
        }
    }
}

#[derive(Serialize)]
struct Resource<'a> {
    name: &'a str,
    version: u32,
    field: &'a str,
    items: u32,
    item_hashes: ItemHashes<'a>,
}

#[derive(Serialize)]
struct Change<'a> {
    store_key: Hex<'a>,
    generation: u64,
    value_sha256: Hex<'a>,
}

fn resources<S: Serializer>(list: &[AuditResource], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|resource| Resource {
        name: &resource.name,
        version: resource.version,
        field: &resource.field,
        items: resource.items,
        item_hashes: ItemHashes(&resource.item_hashes),
    }))
}

fn changes<S: Serializer>(list: &[AuditChange], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|change| Change {
        store_key: Hex(&change.store_key),
        generation: change.generation,
        value_sha256: Hex(&change.value_sha256),
    }))
}

fn hexes<S: Serializer>(list: &[Bytes], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(list.iter().map(|bytes| Hex(bytes)))
}

/// Writes the record at `index` and a line end.
///
/// # Errors
/// What `out` fails with.
pub fn write(out: &mut impl io::Write, index: u64, record: &AuditRecord) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Line::of(index, record))?;
    out.write_all(b"\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::items::entry;

    #[test]
    fn a_record_is_one_line_with_all_members_in_order() {
        let record = AuditRecord {
            time_us: 1_795_874_709_000_042,
            request_id: vec![0xab, 1].into(),
            principal: "tenants/acme/identities/app".into(),
            reason: "two\nlines and \"quotes\"".into(),
            resources: vec![AuditResource {
                name: "tenants/acme/keys/pii".into(),
                version: 3,
                field: "email".into(),
                items: 2,
                item_hashes: entry(1, 3, [0x0a, 1, 2, 3, 4, 5, 6, 0xff]).to_vec().into(),
            }],
            changes: vec![AuditChange {
                store_key: "k".into(),
                generation: 1,
                value_sha256: Vec::new().into(),
            }],
            ..AuditRecord::default()
        };
        let mut out = Vec::new();
        write(&mut out, 7, &record).unwrap();
        let expected = concat!(
            r#"{"index":7,"time":"2026-11-28T14:05:09.000042Z","time_us":1795874709000042,"request_id":"ab01","#,
            r#""principal":"tenants/acme/identities/app","authentication":"","address":"","rpc":"","action":"","#,
            r#""decision":"unknown","rule":"","code":0,"reason":"two\nlines and \"quotes\"","duration_us":0,"#,
            r#""resources":[{"name":"tenants/acme/keys/pii","version":3,"field":"email","items":2,"#,
            r#""item_hashes":[{"item":1,"code":3,"hash":"0a010203040506ff"}]}],"#,
            r#""context_hash":"","items_ok":0,"items_failed":0,"#,
            r#""changes":[{"store_key":"6b","generation":1,"value_sha256":""}],"#,
            r#""store_revision":0,"detail":"","credential":"","part":0,"parts":0,"phase":"","operation_id":"","intended_keys":[],"summarised":0}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
