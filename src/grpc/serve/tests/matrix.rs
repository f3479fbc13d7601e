//! Every RPC of the contract, with every role, on its own tenant and on a foreign one. What was decided is read from the audit
//! trail. An RPC without a row fails the test.

use std::collections::BTreeSet;

use fieldkeep_proto::v1::revoke_certificate_request::What;
use fieldkeep_proto::v1::{
    AddCaRequest, AddGroupMemberRequest, AuditFilter, AuditItem, BatchReEncryptRequest,
    CheckTokenRequest, ContextPair, CreateApiKeyRequest, CreateGrantRequest,
    CreateJoinTokenRequest, CreateKeyRequest, CreateTenantRequest, Decision, DisableKeyRequest,
    DisableKeyVersionRequest, EnableKeyRequest, EnableKeyVersionRequest, EnrollRequest,
    ExplainAccessRequest, GetCheckpointRequest, GetGrantRequest, GetIssuerRequest,
    GetKeyUsageRequest, GetStatusRequest, GetUsageRequest, IssueCertificateRequest, Issuer,
    ListApiKeysRequest, ListCasRequest, ListGrantsRequest, ListGroupMembersRequest,
    ListGroupsRequest, ListIssuersRequest, ListKeysRequest, ListLimitsRequest, ListMasksRequest,
    ListRecordsRequest, ListRevocationsRequest, ListTenantsRequest, MakeReportRequest,
    ProveConsistencyRequest, ProveRecordRequest, ReEncryptItem, ReEncryptRequest, RemoveCaRequest,
    RemoveGroupMemberRequest, RemoveIssuerRequest, RemoveLimitRequest, RemoveMaskRequest,
    RenewCertificateRequest, RevokeApiKeyRequest, RevokeCertificateRequest, RevokeGrantRequest,
    RotateApiKeyRequest, RotateKeyRequest, SetIssuerRequest, SetKeyAuditItemsRequest,
    SetKeyRotationRequest, SetLimitRequest, SetMaskRequest, TailRecordsRequest, WhoCanRequest,
};

use super::*;
use crate::access::action::Action;
use crate::access::grant::{Scope, Wanted};
use crate::access::role::Role;
use crate::grpc::routes::ROUTES;
use crate::grpc::routes::tests::described;
use crate::service::tests::wanted;

/// Where the right has to be.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum At {
    /// In the tenant that the message names.
    Tenant,
    /// For all tenants.
    All,
    /// Anywhere: whose it is is found out first.
    Anywhere,
    /// Nowhere: a caller asks about himself.
    Oneself,
    /// No right helps: what counts is in the message or the certificate, and here that is a token of nobody, or nothing.
    Open,
}

/// What a message is made of.
pub(super) struct Cell {
    pub(super) tenant: &'static str,
    /// A ciphertext of that tenant's key `pii`, of the field `email`.
    pub(super) ciphertext: Bytes,
    /// A grant of that tenant, which may be revoked.
    pub(super) victim: String,
    /// What is secret in a message.
    pub(super) secrets: Secrets,
}

/// What a caller gives that nobody else may see.
#[derive(Clone, Default)]
pub(super) struct Secrets {
    pub(super) plaintext: Bytes,
    pub(super) context: Vec<ContextPair>,
    pub(super) join_token: String,
    pub(super) token: String,
}

impl Cell {
    fn key(&self) -> String {
        format!("tenants/{}/keys/pii", self.tenant)
    }

    fn parent(&self) -> String {
        format!("tenants/{}", self.tenant)
    }

    fn someone(&self) -> String {
        format!("tenants/{}/identities/someone", self.tenant)
    }

    fn group(&self) -> String {
        format!("tenants/{}/groups/some", self.tenant)
    }
}

/// One RPC: the right that it needs, where, and a message.
pub(super) type Row = (&'static str, Action, At, fn(&Cell) -> Vec<u8>);

fn bytes(message: impl Message) -> Vec<u8> {
    message.encode_to_vec()
}

fn encrypt_batch(cell: &Cell) -> Vec<u8> {
    bytes(BatchEncryptRequest {
        key: cell.key(),
        field: "email".into(),
        items: vec![EncryptItem {
            plaintext: cell.secrets.plaintext.clone(),
            context: cell.secrets.context.clone(),
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn decrypt_batch(cell: &Cell) -> Vec<u8> {
    bytes(BatchDecryptRequest {
        field: "email".into(),
        items: vec![DecryptItem {
            ciphertext: cell.ciphertext.clone(),
            context: cell.secrets.context.clone(),
            ..Default::default()
        }],
        ..Default::default()
    })
}

fn reencrypt_batch(cell: &Cell) -> Vec<u8> {
    bytes(BatchReEncryptRequest {
        field: "email".into(),
        items: vec![ReEncryptItem {
            ciphertext: cell.ciphertext.clone(),
            context: cell.secrets.context.clone(),
            ..Default::default()
        }],
        ..Default::default()
    })
}

/// A search for the item that the other messages are about.
fn about_an_item(cell: &Cell) -> AuditFilter {
    AuditFilter {
        key: cell.key(),
        field: "email".into(),
        item: Some(AuditItem {
            context: cell.secrets.context.clone(),
        }),
        ..Default::default()
    }
}

pub(super) fn csr() -> Bytes {
    let key = rcgen::KeyPair::generate().unwrap();
    let request = rcgen::CertificateParams::default().serialize_request(&key);
    request.unwrap().der().to_vec().into()
}

/// A join token of the right form that was never made.
pub(super) fn unknown_join_token(secret: &[u8; 20]) -> String {
    let secret = data_encoding::HEXLOWER.encode(secret);
    let body = format!("fkj_0123456789abcdef_{secret}");
    let sum = ring::digest::digest(&ring::digest::SHA256, body.as_bytes());
    body + &data_encoding::HEXLOWER.encode(&sum.as_ref()[..4])
}

const FIELD: &str = "FieldService";
const KEY: &str = "KeyService";
const ACCESS: &str = "AccessService";

/// All rows, by service.
pub(super) fn rows() -> Vec<(&'static str, Row)> {
    let field: [Row; 9] = [
        ("Encrypt", Action::Encrypt, At::Tenant, |cell| {
            bytes(EncryptRequest {
                key: cell.key(),
                plaintext: cell.secrets.plaintext.clone(),
                context: cell.secrets.context.clone(),
                ..encrypt()
            })
        }),
        ("Decrypt", Action::Decrypt, At::Tenant, |cell| {
            bytes(DecryptRequest {
                ciphertext: cell.ciphertext.clone(),
                field: "email".into(),
                context: cell.secrets.context.clone(),
            })
        }),
        ("ReEncrypt", Action::ReEncrypt, At::Tenant, |cell| {
            bytes(ReEncryptRequest {
                ciphertext: cell.ciphertext.clone(),
                field: "email".into(),
                context: cell.secrets.context.clone(),
                ..Default::default()
            })
        }),
        ("BatchEncrypt", Action::Encrypt, At::Tenant, encrypt_batch),
        ("BatchDecrypt", Action::Decrypt, At::Tenant, decrypt_batch),
        (
            "BatchReEncrypt",
            Action::ReEncrypt,
            At::Tenant,
            reencrypt_batch,
        ),
        ("EncryptStream", Action::Encrypt, At::Tenant, encrypt_batch),
        ("DecryptStream", Action::Decrypt, At::Tenant, decrypt_batch),
        (
            "ReEncryptStream",
            Action::ReEncrypt,
            At::Tenant,
            reencrypt_batch,
        ),
    ];
    let key: [Row; 11] = [
        ("CreateKey", Action::Manage, At::Tenant, |cell| {
            bytes(CreateKeyRequest {
                name: cell.key(),
                ..Default::default()
            })
        }),
        ("GetKey", Action::Describe, At::Tenant, |cell| {
            bytes(GetKeyRequest { name: cell.key() })
        }),
        ("ListKeys", Action::Describe, At::Tenant, |cell| {
            bytes(ListKeysRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
        ("RotateKey", Action::Rotate, At::Tenant, |cell| {
            bytes(RotateKeyRequest {
                name: cell.key(),
                ..Default::default()
            })
        }),
        ("EnableKey", Action::Manage, At::Tenant, |cell| {
            bytes(EnableKeyRequest {
                name: cell.key(),
                ..Default::default()
            })
        }),
        ("DisableKey", Action::Manage, At::Tenant, |cell| {
            bytes(DisableKeyRequest {
                name: cell.key(),
                ..Default::default()
            })
        }),
        ("EnableKeyVersion", Action::Manage, At::Tenant, |cell| {
            bytes(EnableKeyVersionRequest {
                name: format!("{}/versions/1", cell.key()),
                ..Default::default()
            })
        }),
        ("DisableKeyVersion", Action::Manage, At::Tenant, |cell| {
            bytes(DisableKeyVersionRequest {
                name: format!("{}/versions/1", cell.key()),
                ..Default::default()
            })
        }),
        ("SetKeyRotation", Action::Manage, At::Tenant, |cell| {
            bytes(SetKeyRotationRequest {
                name: cell.key(),
                ..Default::default()
            })
        }),
        ("SetKeyAuditItems", Action::Manage, At::Tenant, |cell| {
            bytes(SetKeyAuditItemsRequest {
                name: cell.key(),
                ..Default::default()
            })
        }),
        ("GetKeyUsage", Action::Describe, At::Tenant, |cell| {
            bytes(GetKeyUsageRequest { name: cell.key() })
        }),
    ];
    let access: [Row; 11] = [
        ("CreateGrant", Action::Grant, At::Tenant, |cell| {
            bytes(CreateGrantRequest {
                principal: cell.someone(),
                role: "encrypter".into(),
                ..Default::default()
            })
        }),
        ("GetGrant", Action::Describe, At::Tenant, |cell| {
            bytes(GetGrantRequest {
                name: cell.victim.clone(),
            })
        }),
        ("ListGrants", Action::Describe, At::Tenant, |cell| {
            bytes(ListGrantsRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
        ("RevokeGrant", Action::Grant, At::Tenant, |cell| {
            bytes(RevokeGrantRequest {
                name: cell.victim.clone(),
                ..Default::default()
            })
        }),
        ("AddGroupMember", Action::Grant, At::Tenant, |cell| {
            bytes(AddGroupMemberRequest {
                group: cell.group(),
                member: cell.someone(),
                ..Default::default()
            })
        }),
        ("RemoveGroupMember", Action::Grant, At::Tenant, |cell| {
            bytes(RemoveGroupMemberRequest {
                group: cell.group(),
                member: cell.someone(),
                ..Default::default()
            })
        }),
        ("ListGroups", Action::Describe, At::Tenant, |cell| {
            bytes(ListGroupsRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
        ("ListGroupMembers", Action::Describe, At::Tenant, |cell| {
            bytes(ListGroupMembersRequest {
                group: cell.group(),
                ..Default::default()
            })
        }),
        ("ExplainAccess", Action::Describe, At::Tenant, |cell| {
            bytes(ExplainAccessRequest {
                principal: cell.someone(),
                action: "decrypt".into(),
                key: cell.key(),
                ..Default::default()
            })
        }),
        ("WhoCan", Action::Describe, At::Tenant, |cell| {
            bytes(WhoCanRequest {
                action: "decrypt".into(),
                key: cell.key(),
                ..Default::default()
            })
        }),
        (
            "IssueCertificate",
            Action::Certificate,
            At::Tenant,
            |cell| {
                bytes(IssueCertificateRequest {
                    identity: cell.someone(),
                    ..Default::default()
                })
            },
        ),
    ];
    let mask: [Row; 3] = [
        ("SetMask", Action::Grant, At::Tenant, |cell| {
            bytes(SetMaskRequest {
                tenant: cell.parent(),
                field: "email".into(),
                mask: "fixed".into(),
                ..Default::default()
            })
        }),
        ("ListMasks", Action::Describe, At::Tenant, |cell| {
            bytes(ListMasksRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
        ("RemoveMask", Action::Grant, At::Tenant, |cell| {
            bytes(RemoveMaskRequest {
                tenant: cell.parent(),
                field: "email".into(),
                ..Default::default()
            })
        }),
    ];
    let tenant: [Row; 2] = [
        ("CreateTenant", Action::Tenant, At::All, |_| {
            bytes(CreateTenantRequest {
                name: "made".into(),
                ..Default::default()
            })
        }),
        ("ListTenants", Action::Describe, At::All, |_| {
            bytes(ListTenantsRequest::default())
        }),
    ];
    let certificates: [Row; 8] = [
        ("CreateJoinToken", Action::Certificate, At::Tenant, |cell| {
            bytes(CreateJoinTokenRequest {
                identity: cell.someone(),
                ttl_seconds: 0,
            })
        }),
        ("Enroll", Action::Certificate, At::Open, |cell| {
            bytes(EnrollRequest {
                token: cell.secrets.join_token.clone(),
                csr_der: csr(),
            })
        }),
        ("RenewCertificate", Action::Certificate, At::Open, |_| {
            bytes(RenewCertificateRequest {
                csr_der: csr(),
                ..Default::default()
            })
        }),
        (
            "RevokeCertificate",
            Action::Certificate,
            At::Tenant,
            |cell| {
                bytes(RevokeCertificateRequest {
                    tenant: cell.parent(),
                    what: Some(What::Serial("0a".into())),
                    ..Default::default()
                })
            },
        ),
        ("ListRevocations", Action::Certificate, At::Tenant, |cell| {
            bytes(ListRevocationsRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
        ("AddCa", Action::Certificate, At::Tenant, |cell| {
            bytes(AddCaRequest {
                name: "corp".into(),
                certificate_pem: "-----BEGIN CERTIFICATE-----".into(),
                trust_domain: "corp.example".into(),
                tenants: vec![cell.parent()],
                ceiling: "data".into(),
                ..Default::default()
            })
        }),
        ("ListCas", Action::Certificate, At::All, |_| {
            bytes(ListCasRequest {})
        }),
        ("RemoveCa", Action::Certificate, At::Anywhere, |_| {
            bytes(RemoveCaRequest {
                name: "corp".into(),
                ..Default::default()
            })
        }),
    ];
    let api_keys: [Row; 4] = [
        ("CreateApiKey", Action::Certificate, At::Tenant, |cell| {
            bytes(CreateApiKeyRequest {
                identity: cell.someone(),
                ..Default::default()
            })
        }),
        ("RotateApiKey", Action::Certificate, At::Anywhere, |_| {
            bytes(RotateApiKeyRequest {
                id: "0123456789abcdef".into(),
                ..Default::default()
            })
        }),
        ("RevokeApiKey", Action::Certificate, At::Anywhere, |_| {
            bytes(RevokeApiKeyRequest {
                id: "0123456789abcdef".into(),
                ..Default::default()
            })
        }),
        ("ListApiKeys", Action::Certificate, At::Tenant, |cell| {
            bytes(ListApiKeysRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
    ];
    let issuers: [Row; 5] = [
        ("SetIssuer", Action::Certificate, At::Tenant, |cell| {
            let issuer = Issuer {
                name: format!("login-{}", cell.tenant),
                url: format!("https://{}.example", cell.tenant),
                audiences: vec!["fieldkeep".into()],
                algorithms: vec!["RS256".into()],
                tenant: cell.parent(),
                tenants: vec![cell.parent()],
                ceiling: "data".into(),
                ..Default::default()
            };
            bytes(SetIssuerRequest {
                issuer: Some(issuer),
                ..Default::default()
            })
        }),
        ("GetIssuer", Action::Certificate, At::Anywhere, |_| {
            bytes(GetIssuerRequest {
                name: "absent".into(),
            })
        }),
        ("ListIssuers", Action::Certificate, At::Anywhere, |_| {
            bytes(ListIssuersRequest {})
        }),
        ("CheckToken", Action::Certificate, At::Anywhere, |cell| {
            bytes(CheckTokenRequest {
                issuer: "absent".into(),
                token: cell.secrets.token.clone(),
            })
        }),
        ("RemoveIssuer", Action::Certificate, At::Anywhere, |_| {
            bytes(RemoveIssuerRequest {
                name: "absent".into(),
                ..Default::default()
            })
        }),
    ];
    let limits: [Row; 4] = [
        ("SetLimit", Action::Limit, At::Tenant, |cell| {
            bytes(SetLimitRequest {
                name: format!("{}/limits/some", cell.parent()),
                windows: vec!["1000000 fields/s".into()],
                ..Default::default()
            })
        }),
        ("ListLimits", Action::Limit, At::Tenant, |cell| {
            bytes(ListLimitsRequest {
                parent: cell.parent(),
                ..Default::default()
            })
        }),
        ("RemoveLimit", Action::Limit, At::Tenant, |cell| {
            bytes(RemoveLimitRequest {
                name: format!("{}/limits/some", cell.parent()),
                ..Default::default()
            })
        }),
        ("GetUsage", Action::Limit, At::Oneself, |_| {
            bytes(GetUsageRequest {})
        }),
    ];
    let audit: [Row; 6] = [
        ("GetCheckpoint", Action::Audit, At::All, |_| {
            bytes(GetCheckpointRequest {})
        }),
        ("ListRecords", Action::Audit, At::All, |cell| {
            bytes(ListRecordsRequest {
                filter: Some(about_an_item(cell)),
                ..Default::default()
            })
        }),
        ("MakeReport", Action::Audit, At::All, |_| {
            bytes(MakeReportRequest::default())
        }),
        ("ProveConsistency", Action::Audit, At::All, |_| {
            bytes(ProveConsistencyRequest::default())
        }),
        ("ProveRecord", Action::Audit, At::All, |_| {
            bytes(ProveRecordRequest {
                index: u64::MAX,
                ..Default::default()
            })
        }),
        ("TailRecords", Action::Audit, At::All, |cell| {
            bytes(TailRecordsRequest {
                filter: Some(about_an_item(cell)),
                ..Default::default()
            })
        }),
    ];
    let system: Row = ("GetStatus", Action::Status, At::All, |_| {
        bytes(GetStatusRequest {})
    });
    field
        .map(|row| (FIELD, row))
        .into_iter()
        .chain(key.map(|row| (KEY, row)))
        .chain(access.map(|row| (ACCESS, row)))
        .chain(mask.map(|row| ("MaskService", row)))
        .chain(certificates.map(|row| ("CertificateService", row)))
        .chain(api_keys.map(|row| ("ApiKeyService", row)))
        .chain(issuers.map(|row| ("IssuerService", row)))
        .chain(limits.map(|row| ("LimitService", row)))
        .chain(tenant.map(|row| ("TenantService", row)))
        .chain(audit.map(|row| ("AuditService", row)))
        .chain([("SystemService", system)])
        .collect()
}

pub(super) fn path(service: &str, rpc: &str) -> String {
    format!("/fieldkeep.v1.{service}/{rpc}")
}

/// A caller: its name, its role, and whether that is for all tenants.
struct Caller {
    name: String,
    role: Option<Role>,
    all: bool,
}

impl Caller {
    /// Whether it may do what a row needs to what is of `tenant`. All callers are of `acme`.
    fn may(&self, action: Action, at: At, tenant: &str) -> bool {
        if at == At::Oneself {
            return true;
        }
        let has = self.role.is_some_and(|role| role.actions().has(action));
        has && match at {
            At::Tenant => self.all || tenant == "acme",
            At::All => self.all,
            At::Anywhere | At::Oneself => true,
            At::Open => false,
        }
    }
}

async fn callers(f: &Fixture) -> Vec<Caller> {
    let mut callers = vec![Caller {
        name: "acme/nobody".into(),
        role: None,
        all: false,
    }];
    for role in Role::ALL {
        let name = format!("acme/own-{role}");
        f.grant(wanted(*role, &name, &["*"], &["*"])).await;
        callers.push(Caller {
            name,
            role: Some(*role),
            all: false,
        });
        if role.is_data() {
            continue;
        }
        let name = format!("acme/all-{role}");
        f.grant(Wanted {
            scope: Scope::All,
            cross_tenant: true,
            ..wanted(*role, &name, &["*"], &["*"])
        })
        .await;
        callers.push(Caller {
            name,
            role: Some(*role),
            all: true,
        });
    }
    callers
}

#[test]
fn every_rpc_of_the_contract_has_a_row() {
    let rows: BTreeSet<String> = rows()
        .iter()
        .map(|(service, row)| path(service, row.0))
        .collect();
    assert_eq!(rows, described());
}

#[tokio::test]
async fn every_rpc_with_every_role_on_own_and_foreign_tenants() {
    let f = Fixture::make().await;
    let callers = callers(&f).await;
    let mut sealed = Vec::new();
    for tenant in ["acme", "other"] {
        let app = format!("{tenant}/app");
        let response = call(&f, Listener::Data, &app, ENCRYPT, &encrypt()).await;
        let reply: EncryptResponse = message(response).await;
        sealed.push((tenant, reply.ciphertext));
    }
    let secrets = Secrets {
        plaintext: Bytes::from_static(b"x"),
        join_token: unknown_join_token(&[0xab; 20]),
        ..Secrets::default()
    };
    let mut cells = 0;
    for (service, (rpc, action, at, make)) in rows() {
        let path = path(service, rpc);
        let route = ROUTES.iter().find(|route| route.path == path).unwrap();
        assert_eq!(route.action, action, "{path}");
        for caller in &callers {
            for (tenant, ciphertext) in &sealed {
                let victim = if service == ACCESS {
                    let victim = format!("{tenant}/victim");
                    f.grant(wanted(Role::Auditor, &victim, &["*"], &["*"]))
                        .await
                } else {
                    crate::access::grant::GrantId::of_bytes([0; 8])
                };
                let cell = Cell {
                    tenant,
                    ciphertext: ciphertext.clone(),
                    victim: victim.to_string(),
                    secrets: secrets.clone(),
                };
                let body = frame(&make(&cell));
                let response = send(&f, Listener::Admin, &caller.name, &path, body).await;
                // A stream answers while its body is read.
                drop(response.into_body().collect().await);
                let record = f.newest_record();
                assert_eq!(path, format!("/{}", record.rpc));
                let expected = if caller.may(action, at, tenant) {
                    Decision::Allowed
                } else {
                    Decision::Refused
                };
                let what = format!("{path} {} {tenant}: {}", caller.name, record.rule);
                assert_eq!(record.decision(), expected, "{what}");
                assert_ne!(record.rule, "invalid", "{what}: nothing was decided");
                cells += 1;
                if service == ACCESS {
                    f.revoke_all_of(tenant, "victim").await;
                }
            }
        }
    }
    assert_eq!(cells, described().len() * callers.len() * 2);
}
