//! What a management act was about, as OCSF's `managed_entity`.

use fieldkeep_proto::v1::AuditRecord;
use serde::Serialize;

use crate::export::operation::Operation;
use crate::export::words::detail_value;

/// The object `managed_entity`.
#[derive(Debug, Serialize)]
pub(super) struct ManagedEntity<'a> {
    /// The resource that the record names, or the kind of thing if it names none.
    name: &'a str,
    /// The id of what was made or changed, or the resource's name.
    uid: &'a str,
    type_id: u8,
    #[serde(rename = "type")]
    type_name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    org: Option<Named<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Named<'a>>,
}

/// An object that is told by its name and id alone.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Named<'a> {
    pub(super) name: &'a str,
    pub(super) uid: &'a str,
}

impl<'a> ManagedEntity<'a> {
    /// What the record of a management act is about.
    pub(super) fn of(operation: Operation<'a>, record: &'a AuditRecord) -> Self {
        let noun = operation.noun();
        let resource = record.resources.first();
        let name = resource.map_or("", |resource| resource.name.as_str());
        let name = if name.is_empty() { noun } else { name };
        let id = id_names(noun)
            .iter()
            .find_map(|name| detail_value(record, name));
        let uid = id.unwrap_or(name);
        let named = Named { name, uid };
        let (type_id, type_name) = match noun {
            "Identity" => (2, "User"),
            "Group" => (3, "Group"),
            "Tenant" => (4, "Organization"),
            "Grant" | "Mask" | "Limit" => (5, "Policy"),
            other => (99, other),
        };
        let of_type = |id: u8| (type_id == id).then_some(named);
        Self {
            name,
            uid,
            type_id,
            type_name,
            version: resource
                .filter(|resource| resource.version > 0)
                .map(|resource| resource.version.to_string()),
            user: of_type(2),
            group: of_type(3),
            org: of_type(4),
            policy: of_type(5),
        }
    }

    pub(super) fn uid(&self) -> &'a str {
        self.uid
    }
}

/// The names in `detail` that hold the id of a thing of this kind.
fn id_names(noun: &str) -> &'static [&'static str] {
    match noun {
        "Grant" => &["id"],
        "ApiKey" => &["api_key"],
        "Issuer" => &["issuer"],
        "Ca" => &["ca"],
        "JoinToken" => &["join_token"],
        "Certificate" => &["serial", "revoked_serial"],
        _ => &[],
    }
}
