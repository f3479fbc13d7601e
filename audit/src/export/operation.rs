//! What kind of act a record is about, from its action and the name of its RPC.
//!
//! The names follow the rules of the API (a verb, then what it is done to), so that an RPC of a later version has its place without
//! a table that somebody has to keep.

use fieldkeep_proto::v1::AuditRecord;

/// What a call does to the values of fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum DataAct {
    /// Encrypts.
    Encrypt,
    /// Decrypts, in full or masked.
    Decrypt,
    /// Decrypts and encrypts again, without showing anything.
    ReEncrypt,
    /// Computes blind indexes.
    Index,
}

/// What a management call does to the thing that it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChangeAct {
    /// Makes it.
    Create,
    /// Changes it.
    Update,
    /// Takes it away.
    Delete,
    /// Gives an identity its first certificate.
    Enroll,
    /// Lets it be used again.
    Enable,
    /// Stops its use.
    Disable,
    /// Something else.
    Other,
}

/// The kind of an act.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Something with the values of fields.
    Data(DataAct),
    /// Reads what is known about keys, rights, the trail or the service.
    Read,
    /// A management act.
    Change(ChangeAct),
    /// None of these, or unknown to this version.
    Other,
}

/// An RPC or a local command, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Operation<'a> {
    /// The service, for example `fieldkeep.v1.KeyService`; `fieldkeep` for a local command.
    pub service: &'a str,
    /// The method, for example `CreateKey`; `cert issue` for a local command.
    pub method: &'a str,
    /// What it does.
    pub kind: Kind,
}

/// The verbs at the start of methods that read.
const READS: [&str; 14] = [
    "Get",
    "List",
    "Explain",
    "Who",
    "Check",
    "Show",
    "Tail",
    "Watch",
    "Search",
    "Prove",
    "Verify",
    "Export",
    "Read",
    "MakeReport",
];

/// The verbs at the start of methods that change something. The longer of two comes first.
const CHANGES: [(&str, ChangeAct); 22] = [
    // A member of a group is not managed by itself: the group is changed.
    ("AddGroupMember", ChangeAct::Update),
    ("RemoveGroupMember", ChangeAct::Update),
    ("ScheduledRotation", ChangeAct::Update),
    ("ScheduledRetirement", ChangeAct::Disable),
    ("Create", ChangeAct::Create),
    ("Add", ChangeAct::Create),
    ("Issue", ChangeAct::Create),
    ("Import", ChangeAct::Create),
    ("Enroll", ChangeAct::Enroll),
    ("Set", ChangeAct::Update),
    ("Update", ChangeAct::Update),
    ("Rotate", ChangeAct::Update),
    ("Renew", ChangeAct::Update),
    ("Remove", ChangeAct::Delete),
    ("Revoke", ChangeAct::Delete),
    ("Delete", ChangeAct::Delete),
    ("Destroy", ChangeAct::Delete),
    ("Enable", ChangeAct::Enable),
    ("Disable", ChangeAct::Disable),
    // Local commands.
    ("init", ChangeAct::Create),
    ("cert server", ChangeAct::Create),
    ("cert issue", ChangeAct::Create),
];

/// The actions of management, for methods whose verbs say nothing.
const MANAGEMENT: [&str; 7] = [
    "manage",
    "rotate",
    "destroy",
    "grant",
    "certificate",
    "tenant",
    "limit",
];

impl<'a> Operation<'a> {
    /// What `record` is about.
    #[must_use]
    pub fn of(record: &'a AuditRecord) -> Self {
        let (service, method) = record
            .rpc
            .split_once('/')
            .or_else(|| record.rpc.split_once(' '))
            .unwrap_or(("", &record.rpc));
        Self {
            service,
            method,
            kind: kind(&record.action, method),
        }
    }

    /// What a management act is done to, for example `KeyVersion` for `EnableKeyVersion`; the whole method if it begins with no
    /// known verb.
    #[must_use]
    pub fn noun(&self) -> &'a str {
        match self.method {
            "cert server" | "cert issue" | "RenewCertificate" => "Certificate",
            "Enroll" | "init" => "Identity",
            "ScheduledRotation" => "Key",
            "ScheduledRetirement" => "KeyVersion",
            "AddGroupMember" | "RemoveGroupMember" => "Group",
            method => CHANGES
                .iter()
                .find_map(|(verb, _)| method.strip_prefix(verb))
                .unwrap_or(method),
        }
    }
}

fn kind(action: &str, method: &str) -> Kind {
    match action {
        "encrypt" => return Kind::Data(DataAct::Encrypt),
        "decrypt" | "decrypt-masked" => return Kind::Data(DataAct::Decrypt),
        "re-encrypt" => return Kind::Data(DataAct::ReEncrypt),
        "index" => return Kind::Data(DataAct::Index),
        _ => {}
    }
    if READS.iter().any(|verb| method.starts_with(verb)) {
        return Kind::Read;
    }
    let change = CHANGES.iter().find(|(verb, _)| method.starts_with(verb));
    match change {
        Some((_, act)) => Kind::Change(*act),
        None if MANAGEMENT.contains(&action) => Kind::Change(ChangeAct::Other),
        None => Kind::Other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(rpc: &str, action: &str) -> (Kind, String) {
        let record = AuditRecord {
            rpc: rpc.into(),
            action: action.into(),
            ..AuditRecord::default()
        };
        let operation = Operation::of(&record);
        (operation.kind, operation.noun().to_owned())
    }

    #[test]
    fn verbs_decide_and_nouns_stay() {
        use ChangeAct::{Create, Delete, Disable, Enroll, Other, Update};
        for (rpc, action, kind, noun) in [
            ("fieldkeep.v1.KeyService/CreateKey", "manage", Create, "Key"),
            (
                "fieldkeep.v1.KeyService/DisableKeyVersion",
                "manage",
                Disable,
                "KeyVersion",
            ),
            (
                "fieldkeep.v1.KeyService/SetKeyRotation",
                "manage",
                Update,
                "KeyRotation",
            ),
            (
                "fieldkeep.v1.AccessService/RevokeGrant",
                "grant",
                Delete,
                "Grant",
            ),
            (
                "fieldkeep.v1.AccessService/AddGroupMember",
                "grant",
                Update,
                "Group",
            ),
            (
                "fieldkeep.v1.CertificateService/Enroll",
                "certificate",
                Enroll,
                "Identity",
            ),
            (
                "fieldkeep.internal/ScheduledRetirement",
                "manage",
                Disable,
                "KeyVersion",
            ),
            ("fieldkeep init", "init", Create, "Identity"),
            ("fieldkeep cert issue", "certificate", Create, "Certificate"),
            (
                "fieldkeep.v2.KeyService/MeltKey",
                "destroy",
                Other,
                "MeltKey",
            ),
        ] {
            assert_eq!(of(rpc, action), (Kind::Change(kind), noun.into()), "{rpc}");
        }
    }

    #[test]
    fn reading_is_no_change_whatever_right_it_needs() {
        for (rpc, action) in [
            ("fieldkeep.v1.CertificateService/ListCas", "certificate"),
            ("fieldkeep.v1.IssuerService/CheckToken", "certificate"),
            ("fieldkeep.v1.AccessService/WhoCan", "describe"),
            ("fieldkeep.v1.AuditService/MakeReport", "audit"),
        ] {
            assert_eq!(of(rpc, action).0, Kind::Read, "{rpc}");
        }
        assert_eq!(of("fieldkeep.internal/AuditBacklog", "").0, Kind::Other);
    }

    #[test]
    fn data_calls_go_by_their_action() {
        let stream = "fieldkeep.v1.FieldService/DecryptStream";
        assert_eq!(of(stream, "decrypt").0, Kind::Data(DataAct::Decrypt));
        assert_eq!(of(stream, "decrypt-masked").0, Kind::Data(DataAct::Decrypt));
    }
}
