//! `fieldkeep tenant`: tenants.

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Format, print_list, print_object, rfc3339};
use super::pages::{LimitArgs, collect};

/// Manage tenants.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fieldkeep tenant create acme && fieldkeep tenant list")]
pub(crate) struct TenantArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a tenant with a key-encryption key of its own. Tenants are never deleted
    #[command(after_help = "Example:\n  fieldkeep tenant create acme")]
    Create {
        /// The tenant's name
        name: String,
    },
    /// List the tenants
    #[command(after_help = "Example:\n  fieldkeep tenant list --format json")]
    List(LimitArgs),
}

const MEMBERS: [&str; 3] = ["name", "kek_version", "create_time"];

/// Runs the verb.
pub(crate) async fn run(args: TenantArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Create { name } => {
            let created = client.tenants().create(&name).await;
            let doing = format!("cannot create the tenant `{name}`");
            print_object(
                format,
                &MEMBERS,
                &object(&created.map_err(|error| Failure::from(error).while_doing(doing))?),
            )
        }
        Verb::List(limit) => {
            let tenants = collect(client.tenants().list(), &limit, "list the tenants").await?;
            let rows: Vec<Value> = tenants.iter().map(object).collect();
            print_list(format, &MEMBERS, &rows, "no tenants")
        }
    }
}

fn object(tenant: &v1::Tenant) -> Value {
    json!({
        "name": tenant.name,
        "kek_version": tenant.kek_version,
        "create_time": tenant.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}
