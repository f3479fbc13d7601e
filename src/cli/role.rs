//! `fieldkeep role`: what identities may do.

use clap::{Args, Subcommand, ValueEnum};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};
use super::pages::{LimitArgs, collect};

/// Decide what identities may do. An identity without a role may do nothing.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fieldkeep role grant app --tenant acme --role data && fieldkeep role list"
)]
pub(crate) struct RoleArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Give an identity a role
    #[command(after_help = "Example:\n  fieldkeep role grant app --tenant acme --role data")]
    Grant {
        #[command(flatten)]
        named: Identity,
        /// `data`: encrypt and decrypt in its own tenant; `admin`: manage tenants, keys, roles and audit, never plaintext
        #[arg(long)]
        role: Role,
    },
    /// List the roles that are given
    #[command(after_help = "Example:\n  fieldkeep role list --tenant acme")]
    List {
        /// Of one tenant [default: of all]
        #[arg(long, default_value = "", hide_default_value = true)]
        tenant: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Take an identity's role away, at once
    #[command(
        after_help = "Examples:\n  fieldkeep role revoke app --tenant acme\n  fieldkeep role revoke app --tenant acme --yes"
    )]
    Revoke {
        #[command(flatten)]
        named: Identity,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

/// A role.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Role {
    /// Manages tenants, keys, roles and audit; never sees plaintext.
    Admin,
    /// Encrypts and decrypts in its own tenant.
    Data,
}

impl Role {
    /// As the API has it.
    pub(crate) fn proto(self) -> v1::Role {
        match self {
            Role::Admin => v1::Role::Admin,
            Role::Data => v1::Role::Data,
        }
    }

    /// Its name.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Role::Admin => "admin",
            Role::Data => "data",
        }
    }
}

#[derive(Debug, Args)]
struct Identity {
    /// The identity's name
    name: String,
    /// Its tenant [default: the caller's]
    #[arg(long)]
    tenant: Option<String>,
}

impl Identity {
    fn resource(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("tenants/{tenant}/identities/{}", self.name),
            None => self.name.clone(),
        }
    }
}

const MEMBERS: [&str; 4] = ["identity", "role", "granted_by", "create_time"];

/// Runs the verb.
pub(crate) async fn run(args: RoleArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Grant { named, role } => {
            let granted = client.roles().grant(&named.resource(), role.proto()).await;
            let doing = format!("cannot give `{}` the role `{}`", named.name, role.as_str());
            print_object(
                format,
                &MEMBERS,
                &object(&granted.map_err(|error| Failure::from(error).while_doing(doing))?),
            )
        }
        Verb::List { tenant, limit } => {
            let roles = collect(client.roles().list(&tenant), &limit, "list the roles").await?;
            let rows: Vec<Value> = roles.iter().map(object).collect();
            print_list(format, &MEMBERS, &rows, "no roles")
        }
        Verb::Revoke { named, confirm } => {
            let effect = format!(
                "`{}` loses its role, and each of its calls is refused",
                named.resource()
            );
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot take the role of `{}` away", named.name);
            let revoked = client.roles().revoke(&named.resource()).await;
            revoked.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(&json!({ "identity": named.resource(), "role": null })),
                Format::Table => print_line(format_args!("`{}` has no role any more", named.name)),
            }
        }
    }
}

fn object(binding: &v1::RoleBinding) -> Value {
    json!({
        "identity": binding.identity,
        "role": match binding.role() {
            v1::Role::Admin => "admin",
            v1::Role::Data => "data",
            v1::Role::Unspecified => "unknown",
        },
        "granted_by": binding.granted_by,
        "create_time": binding.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}
