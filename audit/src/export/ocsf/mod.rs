//! OCSF events (Open Cybersecurity Schema Framework, <https://schema.ocsf.io>), one a line, in the schema's version
//! [`SCHEMA_VERSION`].
//!
//! Calls on the values of fields, and reads, are API Activity (class 6003); management acts are Entity Management (class 3004).
//! What has no place in the class is in `unmapped`, so that no event says less than its record.

mod class;
mod entity;
mod event;

use std::io;

use fieldkeep_proto::v1::AuditRecord;

use self::event::Event;

/// The version of the schema that events are made for, the newest that was published when this was written.
pub const SCHEMA_VERSION: &str = "1.8.0";

/// Where the records come from, as each event says it.
#[derive(Clone, Copy, Debug)]
pub struct Source<'a> {
    /// The name of the log: the origin line of its checkpoints, `fieldkeep/audit/<log id>`.
    pub log_name: &'a str,
    /// The version of Fieldkeep that makes the events.
    pub product_version: &'a str,
}

/// Writes the event of the record at `index` and a line end.
///
/// # Errors
/// What `out` fails with.
pub fn write(
    out: &mut impl io::Write,
    source: Source<'_>,
    index: u64,
    record: &AuditRecord,
) -> io::Result<()> {
    serde_json::to_writer(&mut *out, &Event::of(source, index, record))?;
    out.write_all(b"\n")
}
