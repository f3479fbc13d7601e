//! The event of one record.

use std::net::SocketAddr;

use fieldkeep_proto::v1::{AuditRecord, AuditResource};
use serde::Serialize;
use serde_json::{Value, json};

use super::class::{Class, is_head, severity, status};
use super::entity::{ManagedEntity, Named};
use super::{SCHEMA_VERSION, Source};
use crate::export::operation::{Kind, Operation};
use crate::export::words::{Hex, ItemHashes, code_name, decision, who};

/// The most resources that are named among the observables too.
const MAX_OBSERVED_RESOURCES: usize = 16;

/// An event of class 6003 or 3004.
#[derive(Debug, Serialize)]
pub(super) struct Event<'a> {
    activity_id: u8,
    activity_name: &'a str,
    category_uid: u8,
    category_name: &'static str,
    class_uid: u16,
    class_name: &'static str,
    type_uid: u32,
    type_name: String,
    severity_id: u8,
    severity: &'static str,
    status_id: u8,
    status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    status_code: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    status_detail: &'a str,
    message: String,
    /// When the call ended, milliseconds, as the schema has times.
    time: u64,
    start_time: u64,
    end_time: u64,
    duration: u64,
    metadata: Metadata<'a>,
    actor: Actor<'a>,
    src_endpoint: Endpoint<'a>,
    #[serde(flatten)]
    about: About<'a>,
    observables: Vec<Observable>,
    unmapped: Value,
}

/// What the two classes do not share.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum About<'a> {
    Api {
        api: Api<'a>,
        resources: Vec<Resource<'a>>,
    },
    Entity {
        entity: Box<ManagedEntity<'a>>,
    },
}

#[derive(Debug, Serialize)]
struct Metadata<'a> {
    version: &'static str,
    product: Product<'a>,
    /// The id of this event: the request id, with the number of the part behind it on further parts of a record.
    uid: String,
    /// The request id, which all parts share.
    correlation_uid: String,
    sequence: u64,
    log_name: &'a str,
    event_code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    tenant_uid: Option<&'a str>,
}

#[derive(Debug, Serialize)]
struct Product<'a> {
    name: &'static str,
    vendor_name: &'static str,
    version: &'a str,
}

#[derive(Debug, Serialize)]
struct Actor<'a> {
    user: User<'a>,
    authorizations: [Authorization<'a>; 1],
}

#[derive(Debug, Serialize)]
struct User<'a> {
    name: &'a str,
    uid: &'a str,
    type_id: u8,
    #[serde(rename = "type")]
    type_name: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    programmatic_credentials: Option<[Credential<'a>; 1]>,
}

#[derive(Debug, Serialize)]
struct Credential<'a> {
    uid: &'a str,
    #[serde(rename = "type")]
    type_name: &'a str,
}

#[derive(Debug, Serialize)]
struct Authorization<'a> {
    decision: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    policy: Option<Named<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Endpoint<'a> {
    Address { ip: String, port: u16 },
    Named { name: &'a str },
}

#[derive(Debug, Serialize)]
struct Api<'a> {
    operation: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    service: Option<Service<'a>>,
    request: Request,
    #[serde(skip_serializing_if = "Option::is_none")]
    response: Option<Response<'a>>,
}

#[derive(Debug, Serialize)]
struct Service<'a> {
    name: &'a str,
}

#[derive(Debug, Serialize)]
struct Request {
    uid: String,
}

#[derive(Debug, Serialize)]
struct Response<'a> {
    code: i32,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'static str>,
    #[serde(skip_serializing_if = "str::is_empty")]
    error_message: &'a str,
}

#[derive(Debug, Serialize)]
struct Resource<'a> {
    name: &'a str,
    uid: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    role_id: u8,
    role: &'static str,
    data: Value,
}

#[derive(Debug, Serialize)]
struct Observable {
    name: &'static str,
    type_id: u8,
    #[serde(rename = "type")]
    type_name: &'static str,
    value: String,
}

impl<'a> Event<'a> {
    pub(super) fn of(source: Source<'a>, index: u64, record: &'a AuditRecord) -> Self {
        let operation = Operation::of(record);
        let class = Class::of(operation);
        let (activity_id, activity_name) = class.activity;
        let (severity_id, severity) = severity(record, operation.kind);
        let (status_id, status) = status(record);
        let duration = record.duration_us / 1000;
        let time = record.time_us / 1000;
        let request = request_id(index, record);
        let actor = Actor::of(record);
        let src_endpoint = Endpoint::of(record);
        let about = match operation.kind {
            Kind::Change(_) => About::Entity {
                entity: Box::new(ManagedEntity::of(operation, record)),
            },
            Kind::Data(_) | Kind::Read | Kind::Other => About::Api {
                api: Api::of(operation, record, request.clone()),
                resources: record.resources.iter().map(Resource::of).collect(),
            },
        };
        Self {
            activity_id,
            activity_name,
            category_uid: class.category.0,
            category_name: class.category.1,
            class_uid: class.uid,
            class_name: class.name,
            type_uid: u32::from(class.uid) * 100 + u32::from(activity_id),
            type_name: format!("{}: {activity_name}", class.name),
            severity_id,
            severity,
            status_id,
            status,
            status_code: is_head(record).then(|| code_name(record.code)),
            status_detail: &record.reason,
            message: format!(
                "{} by {}: {}",
                operation.method,
                who(record),
                decision(record)
            ),
            time,
            start_time: time.saturating_sub(duration),
            end_time: time,
            duration,
            metadata: Metadata::of(source, index, record, request),
            observables: observables(&actor, &src_endpoint, &about),
            actor,
            src_endpoint,
            unmapped: unmapped(operation.kind, record),
            about,
        }
    }
}

/// The request id in hexadecimal; of records without one, which no call of a client has, the index says which it is.
fn request_id(index: u64, record: &AuditRecord) -> String {
    if record.request_id.is_empty() {
        format!("index-{index}")
    } else {
        Hex(&record.request_id).to_string()
    }
}

impl<'a> Metadata<'a> {
    fn of(source: Source<'a>, index: u64, record: &'a AuditRecord, request: String) -> Self {
        let tenant = record.principal.strip_prefix("tenants/");
        Self {
            version: SCHEMA_VERSION,
            product: Product {
                name: "Fieldkeep",
                vendor_name: "Fieldkeep",
                version: source.product_version,
            },
            uid: match record.part {
                0 | 1 => request.clone(),
                part => format!("{request}-{part}"),
            },
            correlation_uid: request,
            sequence: index,
            log_name: source.log_name,
            event_code: &record.action,
            tenant_uid: tenant.and_then(|rest| rest.split('/').next()),
        }
    }
}

impl<'a> Actor<'a> {
    fn of(record: &'a AuditRecord) -> Self {
        let uid = who(record);
        let (type_id, type_name) = match uid {
            "(service)" => (3, "System"),
            "(local operator)" => (2, "Admin"),
            // An identity may be a person's or a program's; the record does not say.
            _ => (0, "Unknown"),
        };
        let credential = Credential {
            uid: &record.credential,
            type_name: &record.authentication,
        };
        let rule = Named {
            name: &record.rule,
            uid: &record.rule,
        };
        Self {
            user: User {
                name: uid
                    .rsplit('/')
                    .next()
                    .filter(|name| !name.is_empty())
                    .unwrap_or(uid),
                uid,
                type_id,
                type_name,
                programmatic_credentials: (!record.credential.is_empty()).then_some([credential]),
            },
            authorizations: [Authorization {
                decision: decision(record),
                policy: (!record.rule.is_empty()).then_some(rule),
            }],
        }
    }
}

impl<'a> Endpoint<'a> {
    fn of(record: &'a AuditRecord) -> Self {
        match record.address.parse::<SocketAddr>() {
            Ok(address) => Self::Address {
                ip: address.ip().to_string(),
                port: address.port(),
            },
            // A local command has no address.
            Err(_) if record.address.is_empty() => Self::Named { name: "local" },
            Err(_) => Self::Named {
                name: &record.address,
            },
        }
    }
}

impl<'a> Api<'a> {
    fn of(operation: Operation<'a>, record: &'a AuditRecord, request: String) -> Self {
        let failed = record.code != 0;
        Self {
            operation: operation.method,
            service: (!operation.service.is_empty()).then_some(Service {
                name: operation.service,
            }),
            request: Request { uid: request },
            response: is_head(record).then(|| Response {
                code: record.code,
                error: failed.then(|| code_name(record.code)),
                error_message: if failed { &record.reason } else { "" },
            }),
        }
    }
}

impl<'a> Resource<'a> {
    fn of(resource: &'a AuditResource) -> Self {
        Self {
            name: &resource.name,
            uid: &resource.name,
            version: (resource.version > 0).then(|| resource.version.to_string()),
            role_id: 1,
            role: "Target",
            data: json!({
                "field": resource.field,
                "items": resource.items,
                "item_hashes": ItemHashes(&resource.item_hashes),
            }),
        }
    }
}

fn observables(actor: &Actor<'_>, endpoint: &Endpoint<'_>, about: &About<'_>) -> Vec<Observable> {
    let observable = |name, type_id, type_name, value: &str| Observable {
        name,
        type_id,
        type_name,
        value: value.to_owned(),
    };
    let mut list = vec![observable(
        "actor.user.name",
        4,
        "User Name",
        actor.user.name,
    )];
    if let Endpoint::Address { ip, .. } = endpoint {
        list.push(observable("src_endpoint.ip", 2, "IP Address", ip));
    }
    match about {
        About::Api { resources, .. } => list.extend(
            resources
                .iter()
                .take(MAX_OBSERVED_RESOURCES)
                .map(|resource| observable("resources.uid", 10, "Resource UID", resource.uid)),
        ),
        About::Entity { entity } => {
            list.push(observable("entity.uid", 10, "Resource UID", entity.uid()));
        }
    }
    list
}

/// What the class has no attribute for, under the names that JSON lines have.
fn unmapped(kind: Kind, record: &AuditRecord) -> Value {
    let mut unmapped = json!({
        "time_us": record.time_us,
        "duration_us": record.duration_us,
        "authentication": record.authentication,
        "address": record.address,
        "action": record.action,
        "decision": decision(record),
        "rule": record.rule,
        "context_hash": Hex(&record.context_hash),
        "items_ok": record.items_ok,
        "items_failed": record.items_failed,
        "detail": record.detail,
        "part": record.part,
        "parts": record.parts,
    });
    let Some(members) = unmapped
        .as_object_mut()
        .filter(|_| matches!(kind, Kind::Change(_)))
    else {
        return unmapped;
    };
    let changes = record.changes.iter().map(|change| {
        json!({
            "store_key": Hex(&change.store_key),
            "generation": change.generation,
            "value_sha256": Hex(&change.value_sha256),
        })
    });
    let resources = record.resources.iter().map(|resource| {
        json!({
            "name": resource.name,
            "version": resource.version,
            "field": resource.field,
            "items": resource.items,
        })
    });
    members.insert("rpc".into(), json!(record.rpc));
    members.insert("code".into(), json!(record.code));
    members.insert("reason".into(), json!(record.reason));
    members.insert("resources".into(), resources.collect());
    members.insert("changes".into(), changes.collect());
    members.insert("store_revision".into(), json!(record.store_revision));
    unmapped
}
