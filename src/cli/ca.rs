//! `fieldkeep ca`: the CAs beside the built-in one.

use std::path::PathBuf;

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::confirm::ConfirmArgs;
use super::failure::{Failure, file_failure};
use super::grant::role_names;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};

/// Accept the certificates of other CAs beside the built-in one.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fieldkeep ca list")]
pub(crate) struct CaArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Accept a CA, for its own trust domain and the tenants named
    ///
    /// Its certificates name their identity as `spiffe://TRUST-DOMAIN/tenant/TENANT/NAME`, their one subject alternative
    /// name. They are accepted at once; what the identities may do is granted as for all others.
    #[command(
        after_help = "Example:\n  fieldkeep ca add corp corp-ca.pem --tenant acme --trust-domain corp.example --ceiling data"
    )]
    Add {
        /// The CA's name here
        name: String,
        /// Its certificate, PEM
        file: PathBuf,
        /// A tenant whose identities it may name; may be given several times
        #[arg(long = "tenant", required = true, value_name = "TENANT")]
        tenants: Vec<String>,
        /// The trust domain of its identities, not the service's own
        #[arg(long)]
        trust_domain: String,
        /// The highest role that its identities can use, whatever they are granted
        #[arg(long, value_name = "ROLE", value_parser = role_names())]
        ceiling: String,
    },
    /// List the CAs that were added
    #[command(after_help = "Example:\n  fieldkeep ca list --format json")]
    List,
    /// Accept a CA no longer, on open connections too
    #[command(after_help = "Example:\n  fieldkeep ca remove corp")]
    Remove {
        /// The CA's name here
        name: String,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

const MEMBERS: [&str; 6] = [
    "name",
    "trust_domain",
    "tenants",
    "ceiling",
    "created_by",
    "create_time",
];

/// Runs the verb.
pub(crate) async fn run(args: CaArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let certificates = client.certificates();
    match args.verb {
        Verb::Add {
            name,
            file,
            tenants,
            trust_domain,
            ceiling,
        } => {
            let certificate_pem = std::fs::read_to_string(&file)
                .map_err(|error| file_failure("read", &file, &error))?;
            let doing = format!("cannot add the CA `{name}`");
            let tenants = tenants.iter().map(|tenant| format!("tenants/{tenant}"));
            let request = v1::AddCaRequest {
                name,
                certificate_pem,
                trust_domain,
                tenants: tenants.collect(),
                ceiling,
                request_id: String::new(),
            };
            let added = certificates.add_ca(request).await;
            let added = added.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &MEMBERS, &object(&added))
        }
        Verb::List => {
            let doing = "cannot list the CAs";
            let cas = certificates.cas().await;
            let cas = cas.map_err(|error| Failure::from(error).while_doing(doing))?;
            let rows: Vec<Value> = cas.iter().map(object).collect();
            print_list(format, &MEMBERS, &rows, "no CAs beside the built-in one")
        }
        Verb::Remove { name, confirm } => {
            let effect = format!(
                "every certificate of the CA `{name}` is refused at once, and their connections close"
            );
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot remove the CA `{name}`");
            let ended = certificates.remove_ca(&name).await;
            let ended = ended.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(&json!({ "name": name, "connections_ended": ended })),
                Format::Table => print_line(format_args!(
                    "`{name}` is not accepted any more; open connections that this ended: {ended}"
                )),
            }
        }
    }
}

fn object(ca: &v1::CaRoot) -> Value {
    json!({
        "name": ca.name,
        "trust_domain": ca.trust_domain,
        "tenants": ca.tenants,
        "ceiling": ca.ceiling,
        "created_by": ca.created_by,
        "create_time": ca.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}
