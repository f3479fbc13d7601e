//! Which class and activity an event has, and how the call ended.

use fieldkeep_proto::v1::{AuditRecord, Decision, Phase};

use crate::export::operation::{ChangeAct, DataAct, Kind, Operation};

/// One of the two classes, with the activity.
pub(super) struct Class<'a> {
    pub(super) uid: u16,
    pub(super) name: &'static str,
    pub(super) category: (u8, &'static str),
    pub(super) activity: (u8, &'a str),
}

impl<'a> Class<'a> {
    /// The class and activity of what a call did.
    pub(super) fn of(operation: Operation<'a>) -> Self {
        let api = |id, name| Self {
            uid: 6003,
            name: "API Activity",
            category: (6, "Application Activity"),
            activity: (id, name),
        };
        let entity = |id, name| Self {
            uid: 3004,
            name: "Entity Management",
            category: (3, "Identity & Access Management"),
            activity: (id, name),
        };
        match operation.kind {
            Kind::Data(DataAct::Encrypt | DataAct::Index) => api(1, "Create"),
            Kind::Data(DataAct::Decrypt) | Kind::Read => api(2, "Read"),
            Kind::Data(DataAct::ReEncrypt) => api(3, "Update"),
            Kind::Other => api(99, operation.method),
            Kind::Change(ChangeAct::Create) => entity(1, "Create"),
            Kind::Change(ChangeAct::Update) => entity(3, "Update"),
            Kind::Change(ChangeAct::Delete) => entity(4, "Delete"),
            Kind::Change(ChangeAct::Enroll) => entity(6, "Enroll"),
            Kind::Change(ChangeAct::Enable) => entity(8, "Enable"),
            Kind::Change(ChangeAct::Disable) => entity(9, "Disable"),
            Kind::Change(ChangeAct::Other) => entity(99, operation.method),
        }
    }
}

/// Whether the call did what it was for. A batch did, if an item of it did.
fn succeeded(record: &AuditRecord) -> bool {
    record.code == 0
        && record.decision() != Decision::Refused
        && (record.items_ok > 0 || record.items_failed == 0)
}

/// Whether it says how the call ended: the first or only part of a call's record does, and no intent.
pub(super) fn is_head(record: &AuditRecord) -> bool {
    record.part <= 1 && record.phase() != Phase::Intent
}

/// How the call ended, as far as the record says it.
pub(super) fn status(record: &AuditRecord) -> (u8, &'static str) {
    if !is_head(record) && record.decision() != Decision::Refused {
        (0, "Unknown")
    } else if succeeded(record) {
        (1, "Success")
    } else {
        (2, "Failure")
    }
}

/// Low for what was refused or failed; high where the service says that records are missing.
pub(super) fn severity(record: &AuditRecord, kind: Kind) -> (u8, &'static str) {
    if kind == Kind::Other && record.rule == "unwritten" {
        (4, "High")
    } else if succeeded(record) {
        (1, "Informational")
    } else {
        (2, "Low")
    }
}
