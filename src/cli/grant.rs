//! `fieldkeep grant`: who may do what to which key and field.

use std::time::Duration;

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::cert::parse_ttl;
use super::confirm::ConfirmArgs;
use super::failure::{Exit, Failure};
use super::init::unix_now;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};
use super::pages::{LimitArgs, collect};
use crate::access::role::Role;

/// Decide who may do what to which key and field. Without a grant nobody may do anything.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep grant create app --tenant acme --role data --key pii
  fieldkeep grant create support --group --tenant acme --role decrypter --key pii --field 'customer.*' --for 30d
  fieldkeep grant list --tenant acme")]
pub(crate) struct GrantArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Grant a role to an identity or a group
    ///
    /// Roles that touch values: encrypter, decrypter, masked-reader, re-encrypter, data. Roles for keys: key-operator,
    /// key-admin, key-destroyer. Others: access-admin, auditor, operator, and admin, which is all of them but no value. Nobody
    /// grants himself a role that touches values. Who has masked-reader sees of a field
    /// what its mask shows (`fieldkeep mask`), and nothing without one. Not there yet, so that granting it has no effect:
    /// indexes of values, and destroying keys.
    #[command(after_help = "\
Examples:
  fieldkeep grant create app --tenant acme --role data --key pii --field 'customer.*'
  fieldkeep grant create support --group --tenant acme --role decrypter --key pii --daily 08:00-18:00
  fieldkeep grant create carol --tenant default --role auditor --all-tenants")]
    Create(Box<CreateArgs>),
    /// List grants
    #[command(after_help = "Example:\n  fieldkeep grant list --tenant acme")]
    List {
        /// Those that open one tenant [default: all]
        #[arg(long, default_value = "", hide_default_value = true)]
        tenant: String,
        /// Those of one identity or group: `tenants/TENANT/identities/NAME` or `tenants/TENANT/groups/NAME`
        #[arg(
            long,
            default_value = "",
            hide_default_value = true,
            value_name = "PRINCIPAL"
        )]
        of: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Show a grant
    #[command(after_help = "Example:\n  fieldkeep grant show g-0123456789abcdef")]
    Show {
        /// Its name
        name: String,
    },
    /// Take a grant back, at once
    #[command(after_help = "\
Examples:
  fieldkeep grant revoke g-0123456789abcdef
  fieldkeep grant revoke g-0123456789abcdef --yes")]
    Revoke {
        /// Its name
        name: String,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

#[derive(Debug, Args)]
struct CreateArgs {
    /// The name of the identity or the group
    name: String,
    /// It is a group
    #[arg(long)]
    group: bool,
    /// Its tenant
    #[arg(long, default_value = "default")]
    tenant: String,
    /// What it may do
    #[arg(long, value_parser = role_names())]
    role: String,
    /// A key: a name, or the beginning of one and `*` [default: all]; may be given several times
    #[arg(long = "key", value_name = "KEY")]
    keys: Vec<String>,
    /// A field: a name, or the beginning of one and `*` [default: all]; may be given several times
    #[arg(long = "field", value_name = "FIELD")]
    fields: Vec<String>,
    /// Open another tenant than its own
    #[arg(long, value_name = "TENANT")]
    open: Option<String>,
    /// Open all tenants, and the service as a whole
    #[arg(long, conflicts_with = "open")]
    all_tenants: bool,
    /// End it after this time: a number and s, m, h or d
    #[arg(long = "for", value_name = "TIME", value_parser = parse_ttl)]
    lasts: Option<Duration>,
    /// Only with this pair in the encryption context; may be given several times
    #[arg(long = "context", value_name = "NAME=VALUE")]
    context: Vec<String>,
    /// Only at these hours of each day, in UTC
    #[arg(long, value_name = "HH:MM-HH:MM")]
    daily: Option<String>,
    /// Only from this network or address; may be given several times
    #[arg(long = "network", value_name = "CIDR")]
    networks: Vec<String>,
    /// Only if authenticated so: mtls, jwt or api-key; may be given several times
    #[arg(long = "method", value_name = "METHOD")]
    methods: Vec<String>,
    /// Only with a second factor, which tokens alone can vouch for
    #[arg(long)]
    second_factor: bool,
}

impl CreateArgs {
    fn request(self) -> Result<v1::CreateGrantRequest, Failure> {
        let kind = if self.group { "groups" } else { "identities" };
        let context: Result<Vec<v1::ContextPair>, Failure> =
            self.context.iter().map(|pair| context_pair(pair)).collect();
        let seconds = |duration: Duration| {
            i64::try_from(unix_now().saturating_add(duration.as_secs())).unwrap_or(i64::MAX)
        };
        let tenant = match (&self.open, self.all_tenants) {
            (Some(open), _) => format!("tenants/{open}"),
            (None, true) => String::from("*"),
            (None, false) => String::new(),
        };
        Ok(v1::CreateGrantRequest {
            principal: format!("tenants/{}/{kind}/{}", self.tenant, self.name),
            role: self.role,
            tenant,
            cross_tenant: self.all_tenants || self.open.is_some(),
            keys: self.keys,
            fields: self.fields,
            conditions: Some(v1::GrantConditions {
                context: context?,
                daily: self.daily.unwrap_or_default(),
                networks: self.networks,
                methods: self.methods,
                second_factor: self.second_factor,
                ..v1::GrantConditions::default()
            }),
            expire_time: self.lasts.map(|lasts| prost_types::Timestamp {
                seconds: seconds(lasts),
                nanos: 0,
            }),
            request_id: String::new(),
        })
    }
}

/// `NAME=VALUE` of the command line.
pub(super) fn context_pair(text: &str) -> Result<v1::ContextPair, Failure> {
    match text.split_once('=') {
        Some((name, value)) => Ok(v1::ContextPair {
            name: name.to_owned(),
            value: value.to_owned(),
        }),
        None => Err(Failure::new(
            Exit::Usage,
            format_args!("`{text}` is no pair of the encryption context"),
        )
        .help("write it as NAME=VALUE")),
    }
}

/// The names of the roles, for the command line.
pub(crate) fn role_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Role::ALL.iter().map(|role| role.as_str()))
}

const COLUMNS: [&str; 7] = [
    "name",
    "principal",
    "role",
    "tenant",
    "keys",
    "fields",
    "expire_time",
];
const MEMBERS: [&str; 11] = [
    "name",
    "principal",
    "role",
    "tenant",
    "cross_tenant",
    "keys",
    "fields",
    "conditions",
    "expire_time",
    "granted_by",
    "create_time",
];

/// Runs the verb.
pub(crate) async fn run(args: GrantArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Create(args) => {
            let doing = format!("cannot grant `{}` to `{}`", args.role, args.name);
            let created = client.grants().create(args.request()?).await;
            let created = created.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &MEMBERS, &object(&created))
        }
        Verb::List { tenant, of, limit } => {
            let grants = client.grants().list(&tenant, &of);
            let grants = collect(grants, &limit, "list the grants").await?;
            let rows: Vec<Value> = grants.iter().map(object).collect();
            print_list(format, &COLUMNS, &rows, "no grants")
        }
        Verb::Show { name } => {
            let doing = format!("cannot show the grant `{name}`");
            let grant = client.grants().show(&name).await;
            let grant = grant.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &MEMBERS, &object(&grant))
        }
        Verb::Revoke { name, confirm } => {
            let effect = format!("what the grant `{name}` allows is refused from then on");
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot take the grant `{name}` back");
            let revoked = client.grants().revoke(&name).await;
            revoked.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(&json!({ "name": name, "revoked": true })),
                Format::Table => print_line(format_args!("the grant `{name}` is revoked")),
            }
        }
    }
}

/// A grant, as it is printed.
pub(super) fn object(grant: &v1::Grant) -> Value {
    let time = |time: &prost_types::Timestamp| rfc3339(time.seconds);
    json!({
        "name": grant.name,
        "principal": grant.principal,
        "role": grant.role,
        "tenant": grant.tenant,
        "cross_tenant": grant.cross_tenant,
        "keys": grant.keys.join(" "),
        "fields": grant.fields.join(" "),
        "conditions": grant.conditions.as_ref().map(conditions),
        "expire_time": grant.expire_time.as_ref().map(time),
        "granted_by": grant.granted_by,
        "create_time": grant.create_time.as_ref().map(time),
    })
}

/// The conditions in one line, as the options of `grant create` would set them.
fn conditions(conditions: &v1::GrantConditions) -> String {
    let mut parts = Vec::new();
    for pair in &conditions.context {
        parts.push(format!("context {}={}", pair.name, pair.value));
    }
    if let Some(begin) = &conditions.not_before_time {
        parts.push(format!(
            "from {}",
            rfc3339(begin.seconds).as_str().unwrap_or("-")
        ));
    }
    if !conditions.daily.is_empty() {
        parts.push(format!("daily {}", conditions.daily));
    }
    parts.extend(
        conditions
            .networks
            .iter()
            .map(|network| format!("network {network}")),
    );
    parts.extend(
        conditions
            .methods
            .iter()
            .map(|method| format!("method {method}")),
    );
    if conditions.second_factor {
        parts.push(String::from("second factor"));
    }
    parts.join(", ")
}

/// A grant that other verbs make.
#[derive(Clone, Debug, Default)]
pub(super) struct NewGrant {
    pub(super) role: String,
    pub(super) keys: Vec<String>,
    pub(super) fields: Vec<String>,
    pub(super) all_tenants: bool,
}

impl NewGrant {
    /// Everything of `role` in the tenant of whom it is for.
    pub(super) fn role(role: &str) -> NewGrant {
        NewGrant {
            role: role.to_owned(),
            ..NewGrant::default()
        }
    }

    /// The same, in all tenants.
    pub(super) fn of_all_tenants(self) -> NewGrant {
        NewGrant {
            all_tenants: true,
            ..self
        }
    }

    /// Whether `grant` is this one, without conditions and without an end.
    fn is(&self, grant: &v1::Grant) -> bool {
        let same = |wanted: &[String], granted: &[String]| {
            if wanted.is_empty() {
                granted == ["*"]
            } else {
                wanted == granted
            }
        };
        grant.role == self.role
            && same(&self.keys, &grant.keys)
            && same(&self.fields, &grant.fields)
            && (grant.tenant == "*") == self.all_tenants
            && grant.conditions.is_none()
            && grant.expire_time.is_none()
    }
}

/// Grants something to `principal`, a resource name, unless it is granted already: the certificate of an identity that has its
/// rights is renewed.
pub(super) async fn grant_once(
    admin: &Client,
    principal: &str,
    new: &NewGrant,
) -> Result<(), Failure> {
    let own = principal
        .strip_prefix("tenants/")
        .and_then(|rest| rest.split('/').next())
        .unwrap_or_default();
    let of = if new.all_tenants { "" } else { own };
    let known = admin.grants().list(of, principal).collect().await?;
    if known.iter().any(|grant| new.is(grant)) {
        return Ok(());
    }
    let request = v1::CreateGrantRequest {
        principal: principal.to_owned(),
        role: new.role.clone(),
        keys: new.keys.clone(),
        fields: new.fields.clone(),
        tenant: if new.all_tenants {
            "*".into()
        } else {
            String::new()
        },
        cross_tenant: new.all_tenants,
        ..v1::CreateGrantRequest::default()
    };
    admin.grants().create(request).await?;
    Ok(())
}
