//! The table of all RPCs: one row each. A path without a row is not served.

use std::time::Duration;

use crate::access::action::Action;
use crate::grpc::receive::{SHORT_BYTES, Shape};
use crate::grpc::unary::Unary;

/// One RPC.
#[derive(Debug)]
pub struct Route {
    /// The HTTP/2 path, for example `/fieldkeep.v1.FieldService/Encrypt`.
    pub path: &'static str,
    /// What the caller needs the right to.
    pub action: Action,
    /// The longest message, bytes. What a field and a batch may hold is limited further.
    pub body_bytes: usize,
    /// Where its message has what is counted before it is decoded.
    pub shape: Shape,
    /// The longest that a call may take; a caller's shorter `grpc-timeout` counts instead.
    pub deadline: Duration,
    /// Which unary call of `FieldService` it is, if it is one: the gate answers those itself.
    pub unary: Option<Unary>,
    /// Whether it is a stream, each message of which is a call of its own.
    pub stream: bool,
    /// Whether no right is needed for it; see [`crate::service::perform::entry`].
    pub open: bool,
    /// Whether a caller asks about himself by it, for which a credential that counts is enough.
    pub oneself: bool,
    /// Whether the data listener serves it too. The admin listener serves every RPC.
    pub on_data: bool,
}

impl Route {
    /// The RPC's name in audit records and metrics, for example `fieldkeep.v1.FieldService/Encrypt`.
    #[must_use]
    pub fn rpc(&self) -> &'static str {
        self.path.strip_prefix('/').unwrap_or(self.path)
    }
}

/// The listeners that serve RPCs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Listener {
    /// The data plane alone.
    Data,
    /// Everything.
    Admin,
}

/// The longest message on the wire, at both ends, bytes.
pub const MAX_MESSAGE_BYTES: usize = 16 * 1024 * 1024;
/// The longest message of a batch.
pub const BATCH_BYTES: usize = 8 * 1024 * 1024;
/// The longest message about one field: the longest value, the longest context, and names.
const FIELD_BYTES: usize = 128 * 1024;
/// The longest message of an administrative call.
pub const ADMIN_BYTES: usize = 64 * 1024;

const FIELD: Duration = Duration::from_secs(10);
const BATCH: Duration = Duration::from_secs(60);
const ADMIN: Duration = Duration::from_secs(30);

const fn field(path: &'static str, unary: Unary, action: Action, context: u32) -> Route {
    Route {
        path,
        action,
        body_bytes: FIELD_BYTES,
        shape: Shape { context, items: 0 },
        unary: Some(unary),
        deadline: FIELD,
        stream: false,
        open: false,
        oneself: false,
        on_data: true,
    }
}

const fn batch(
    path: &'static str,
    unary: Unary,
    action: Action,
    context: u32,
    items: u32,
) -> Route {
    Route {
        path,
        action,
        body_bytes: BATCH_BYTES,
        shape: Shape { context, items },
        unary: Some(unary),
        deadline: BATCH,
        stream: false,
        open: false,
        oneself: false,
        on_data: true,
    }
}

const fn stream(path: &'static str, action: Action, context: u32, items: u32) -> Route {
    Route {
        path,
        action,
        body_bytes: BATCH_BYTES,
        shape: Shape { context, items },
        unary: None,
        deadline: BATCH,
        stream: true,
        open: false,
        oneself: false,
        on_data: true,
    }
}

const fn admin(path: &'static str, action: Action) -> Route {
    Route {
        path,
        action,
        body_bytes: ADMIN_BYTES,
        shape: Shape {
            context: 0,
            items: 0,
        },
        unary: None,
        deadline: ADMIN,
        stream: false,
        open: false,
        oneself: false,
        on_data: false,
    }
}

/// An RPC by which a caller asks about himself.
const fn own(path: &'static str, action: Action) -> Route {
    Route {
        oneself: true,
        on_data: true,
        ..admin(path, action)
    }
}

/// An RPC that no right is needed for; see [`crate::service::perform::entry`]. Its message is short, so that nothing is spent
/// on a caller without a name.
const fn open(path: &'static str) -> Route {
    Route {
        body_bytes: SHORT_BYTES,
        open: true,
        on_data: true,
        ..admin(path, Action::Certificate)
    }
}

/// All of them; the most frequent first, since they are looked up in this order.
pub static ROUTES: [Route; 64] = [
    field(
        "/fieldkeep.v1.FieldService/Encrypt",
        Unary::Encrypt,
        Action::Encrypt,
        3,
    ),
    field(
        "/fieldkeep.v1.FieldService/Decrypt",
        Unary::Decrypt,
        Action::Decrypt,
        3,
    ),
    field(
        "/fieldkeep.v1.FieldService/ReEncrypt",
        Unary::ReEncrypt,
        Action::ReEncrypt,
        3,
    ),
    batch(
        "/fieldkeep.v1.FieldService/BatchEncrypt",
        Unary::BatchEncrypt,
        Action::Encrypt,
        3,
        4,
    ),
    batch(
        "/fieldkeep.v1.FieldService/BatchDecrypt",
        Unary::BatchDecrypt,
        Action::Decrypt,
        2,
        3,
    ),
    batch(
        "/fieldkeep.v1.FieldService/BatchReEncrypt",
        Unary::BatchReEncrypt,
        Action::ReEncrypt,
        2,
        4,
    ),
    stream(
        "/fieldkeep.v1.FieldService/EncryptStream",
        Action::Encrypt,
        3,
        4,
    ),
    stream(
        "/fieldkeep.v1.FieldService/DecryptStream",
        Action::Decrypt,
        2,
        3,
    ),
    stream(
        "/fieldkeep.v1.FieldService/ReEncryptStream",
        Action::ReEncrypt,
        2,
        4,
    ),
    admin("/fieldkeep.v1.KeyService/CreateKey", Action::Manage),
    admin("/fieldkeep.v1.KeyService/GetKey", Action::Describe),
    admin("/fieldkeep.v1.KeyService/ListKeys", Action::Describe),
    admin("/fieldkeep.v1.KeyService/RotateKey", Action::Rotate),
    admin("/fieldkeep.v1.KeyService/EnableKey", Action::Manage),
    admin("/fieldkeep.v1.KeyService/DisableKey", Action::Manage),
    admin("/fieldkeep.v1.KeyService/EnableKeyVersion", Action::Manage),
    admin("/fieldkeep.v1.KeyService/DisableKeyVersion", Action::Manage),
    admin("/fieldkeep.v1.KeyService/SetKeyRotation", Action::Manage),
    admin("/fieldkeep.v1.KeyService/SetKeyAuditItems", Action::Manage),
    admin("/fieldkeep.v1.KeyService/GetKeyUsage", Action::Describe),
    admin("/fieldkeep.v1.TenantService/CreateTenant", Action::Tenant),
    admin("/fieldkeep.v1.TenantService/ListTenants", Action::Describe),
    admin("/fieldkeep.v1.AccessService/CreateGrant", Action::Grant),
    admin("/fieldkeep.v1.AccessService/GetGrant", Action::Describe),
    admin("/fieldkeep.v1.AccessService/ListGrants", Action::Describe),
    admin("/fieldkeep.v1.AccessService/RevokeGrant", Action::Grant),
    admin("/fieldkeep.v1.AccessService/AddGroupMember", Action::Grant),
    admin(
        "/fieldkeep.v1.AccessService/RemoveGroupMember",
        Action::Grant,
    ),
    admin("/fieldkeep.v1.AccessService/ListGroups", Action::Describe),
    admin(
        "/fieldkeep.v1.AccessService/ListGroupMembers",
        Action::Describe,
    ),
    admin(
        "/fieldkeep.v1.AccessService/ExplainAccess",
        Action::Describe,
    ),
    admin("/fieldkeep.v1.AccessService/WhoCan", Action::Describe),
    admin(
        "/fieldkeep.v1.AccessService/IssueCertificate",
        Action::Certificate,
    ),
    admin("/fieldkeep.v1.MaskService/SetMask", Action::Grant),
    admin("/fieldkeep.v1.MaskService/ListMasks", Action::Describe),
    admin("/fieldkeep.v1.MaskService/RemoveMask", Action::Grant),
    admin(
        "/fieldkeep.v1.CertificateService/CreateJoinToken",
        Action::Certificate,
    ),
    open("/fieldkeep.v1.CertificateService/Enroll"),
    open("/fieldkeep.v1.CertificateService/RenewCertificate"),
    admin(
        "/fieldkeep.v1.CertificateService/RevokeCertificate",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.CertificateService/ListRevocations",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.CertificateService/AddCa",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.CertificateService/ListCas",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.CertificateService/RemoveCa",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.ApiKeyService/CreateApiKey",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.ApiKeyService/RotateApiKey",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.ApiKeyService/RevokeApiKey",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.ApiKeyService/ListApiKeys",
        Action::Certificate,
    ),
    admin("/fieldkeep.v1.IssuerService/SetIssuer", Action::Certificate),
    admin("/fieldkeep.v1.IssuerService/GetIssuer", Action::Certificate),
    admin(
        "/fieldkeep.v1.IssuerService/ListIssuers",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.IssuerService/RemoveIssuer",
        Action::Certificate,
    ),
    admin(
        "/fieldkeep.v1.IssuerService/CheckToken",
        Action::Certificate,
    ),
    admin("/fieldkeep.v1.LimitService/SetLimit", Action::Limit),
    admin("/fieldkeep.v1.LimitService/ListLimits", Action::Limit),
    admin("/fieldkeep.v1.LimitService/RemoveLimit", Action::Limit),
    own("/fieldkeep.v1.LimitService/GetUsage", Action::Limit),
    admin("/fieldkeep.v1.AuditService/GetCheckpoint", Action::Audit),
    admin("/fieldkeep.v1.AuditService/ListRecords", Action::Audit),
    admin("/fieldkeep.v1.AuditService/MakeReport", Action::Audit),
    admin("/fieldkeep.v1.AuditService/ProveConsistency", Action::Audit),
    admin("/fieldkeep.v1.AuditService/ProveRecord", Action::Audit),
    admin("/fieldkeep.v1.AuditService/TailRecords", Action::Audit),
    admin("/fieldkeep.v1.SystemService/GetStatus", Action::Status),
];

/// The index of the row of `path`, if `listener` serves it.
#[must_use]
pub fn find(path: &str, listener: Listener) -> Option<usize> {
    let index = ROUTES.iter().position(|route| route.path == path)?;
    let route = ROUTES.get(index)?;
    (listener == Listener::Admin || route.on_data).then_some(index)
}

/// Services of the transport itself, which touch no key and no record: health on both listeners, reflection on the admin one.
const TRANSPORT: [(&str, bool); 2] = [
    ("/grpc.health.v1.Health/", true),
    ("/grpc.reflection.", false),
];

/// Whether `path` belongs to the transport's own services on `listener`.
#[must_use]
pub fn is_transport(path: &str, listener: Listener) -> bool {
    TRANSPORT.iter().any(|(prefix, on_data)| {
        path.starts_with(prefix) && (listener == Listener::Admin || *on_data)
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::collections::BTreeSet;

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

    /// The paths of all RPCs that the contract describes.
    pub(in crate::grpc) fn described() -> BTreeSet<String> {
        let files = Files::decode(fieldkeep_proto::v1::FILE_DESCRIPTOR_SET).unwrap();
        let mut described = BTreeSet::new();
        for file in &files.file {
            for service in &file.service {
                for method in &service.method {
                    described.insert(format!(
                        "/{}.{}/{}",
                        file.package, service.name, method.name
                    ));
                }
            }
        }
        described
    }

    #[test]
    fn every_rpc_has_exactly_one_row() {
        let rows: Vec<String> = ROUTES.iter().map(|route| route.path.to_owned()).collect();
        let unique: BTreeSet<String> = rows.iter().cloned().collect();
        assert_eq!(unique.len(), rows.len(), "a row twice");
        assert_eq!(unique, described());
    }

    #[test]
    fn the_data_listener_serves_field_service_and_what_is_ones_own_alone() {
        let own = [
            "CertificateService/Enroll",
            "CertificateService/RenewCertificate",
            "LimitService/GetUsage",
        ]
        .map(|name| format!("/fieldkeep.v1.{name}"));
        for route in &ROUTES {
            let field = route.path.starts_with("/fieldkeep.v1.FieldService/")
                || own.iter().any(|path| path == route.path);
            assert_eq!(
                find(route.path, Listener::Data).is_some(),
                field,
                "{}",
                route.path
            );
            assert!(find(route.path, Listener::Admin).is_some());
        }
    }

    #[test]
    fn paths_without_a_row_are_not_found() {
        for path in [
            "",
            "/",
            "/fieldkeep.v1.FieldService/",
            "/fieldkeep.v1.FieldService/encrypt",
            "fieldkeep.v1.FieldService/Encrypt",
        ] {
            assert_eq!(find(path, Listener::Admin), None, "{path}");
        }
    }

    #[test]
    fn reflection_is_on_the_admin_listener_alone() {
        let reflection = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
        assert!(is_transport(reflection, Listener::Admin));
        assert!(!is_transport(reflection, Listener::Data));
        assert!(is_transport("/grpc.health.v1.Health/Check", Listener::Data));
    }

    #[test]
    fn no_message_is_allowed_beyond_the_wire() {
        for route in &ROUTES {
            assert!(route.body_bytes <= MAX_MESSAGE_BYTES);
        }
    }
}
