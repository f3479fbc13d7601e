//! `fieldkeep access`: questions about who may do what.

mod expectations;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::failure::Failure;
use super::grant::context_pair;
use super::output::{Format, print_list, print_object};
use super::pages::{LimitArgs, collect};

/// Ask who may do what, and why.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep access explain --as alice --tenant acme --action decrypt --key pii --field customer.ssn
  fieldkeep access who --can decrypt --tenant acme --key pii --field customer.ssn")]
pub(crate) struct AccessArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say which grant allows an identity something, or what is missing and the command that would give it
    #[command(after_help = "\
Example:
  fieldkeep access explain --as alice --tenant acme --action decrypt --key pii --field customer.ssn")]
    Explain {
        /// The identity
        #[arg(long = "as", value_name = "NAME")]
        who: String,
        /// Its tenant, and that of the key
        #[arg(long, default_value = "default")]
        tenant: String,
        #[command(flatten)]
        what: What,
        /// A pair of the encryption context; may be given several times
        #[arg(long = "context", value_name = "NAME=VALUE")]
        context: Vec<String>,
    },
    /// List the grants that allow something, and who has them
    #[command(after_help = "\
Example:
  fieldkeep access who --can decrypt --tenant acme --key pii --field customer.ssn")]
    Who {
        /// The action
        #[arg(long = "can", value_name = "ACTION")]
        can: String,
        /// The tenant of the key
        #[arg(long, default_value = "default")]
        tenant: String,
        /// The key [default: any]
        #[arg(long, default_value = "", hide_default_value = true)]
        key: String,
        /// The field [default: any]
        #[arg(long, default_value = "", hide_default_value = true)]
        field: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Compare what is expected with what is so: for your own checks
    ///
    /// The file is TOML, with a table a decision. It fails with exit code 1 if one is not as expected, and prints which.
    #[command(after_help = "\
Example of a FILE:
  [[expect]]
  who = \"alice\"
  tenant = \"acme\"
  action = \"decrypt\"
  key = \"pii\"
  field = \"customer.ssn\"
  context = { region = \"eu\" }
  result = \"deny\"

Example:
  fieldkeep access test expectations.toml")]
    Test {
        /// What is expected
        file: PathBuf,
    },
}

#[derive(Debug, Args)]
struct What {
    /// The action: encrypt, decrypt, re-encrypt, describe, manage, rotate, grant, audit and so on
    #[arg(long)]
    action: String,
    /// The key [default: all]
    #[arg(long, default_value = "", hide_default_value = true)]
    key: String,
    /// The field [default: all]
    #[arg(long, default_value = "", hide_default_value = true)]
    field: String,
    /// Ask for what belongs to all tenants
    #[arg(long, conflicts_with_all = ["key", "field"])]
    all_tenants: bool,
}

/// The full name of a key, so that it does not depend on who asks.
fn key_name(tenant: &str, key: &str) -> String {
    if key.is_empty() || key.contains('/') {
        key.to_owned()
    } else {
        format!("tenants/{tenant}/keys/{key}")
    }
}

fn identity_name(tenant: &str, name: &str) -> String {
    if name.contains('/') {
        name.to_owned()
    } else {
        format!("tenants/{tenant}/identities/{name}")
    }
}

/// Runs the verb.
pub(crate) async fn run(args: AccessArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Explain {
            who,
            tenant,
            what,
            context,
        } => {
            let context: Result<Vec<_>, Failure> =
                context.iter().map(|pair| context_pair(pair)).collect();
            let request = v1::ExplainAccessRequest {
                principal: identity_name(&tenant, &who),
                action: what.action,
                key: key_name(&tenant, &what.key),
                field: what.field,
                context: context?,
                tenant: if what.all_tenants {
                    "*".into()
                } else {
                    String::new()
                },
                ..v1::ExplainAccessRequest::default()
            };
            let explained = client.explain_access(request).await;
            let explained = explained
                .map_err(|error| Failure::from(error).while_doing("cannot explain the access"))?;
            print_object(format, members(&explained), &object(&explained))
        }
        Verb::Who {
            can,
            tenant,
            key,
            field,
            limit,
        } => {
            let request = v1::WhoCanRequest {
                action: can,
                key: key_name(&tenant, &key),
                field,
                tenant: format!("tenants/{tenant}"),
                ..v1::WhoCanRequest::default()
            };
            let holders = client.who_can(request);
            let holders = collect(holders, &limit, "list who may do it").await?;
            let rows: Vec<Value> = holders.iter().map(holder).collect();
            let columns = ["identities", "principal", "role", "keys", "fields", "grant"];
            print_list(format, &columns, &rows, "nobody")
        }
        Verb::Test { file } => expectations::run(&file, client, format).await,
    }
}

fn members(explained: &v1::ExplainAccessResponse) -> &'static [&'static str] {
    if explained.allowed {
        &["decision", "grant", "masked"]
    } else {
        &["decision", "rule", "grant", "missing", "command"]
    }
}

fn object(explained: &v1::ExplainAccessResponse) -> Value {
    let text = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    json!({
        "decision": if explained.allowed { "allow" } else { "deny" },
        "grant": text(&explained.grant),
        "masked": explained.masked,
        "rule": text(&explained.rule),
        "missing": text(&explained.message),
        "command": text(&explained.command),
    })
}

fn holder(holder: &v1::Holder) -> Value {
    let grant = holder.grant.clone().unwrap_or_default();
    let more = if holder.more_identities { " ..." } else { "" };
    json!({
        "identities": holder.identities.join(" ") + more,
        "principal": grant.principal,
        "role": grant.role,
        "keys": grant.keys.join(" "),
        "fields": grant.fields.join(" "),
        "grant": grant.name,
    })
}
