//! `fieldkeep api-key`: secrets for callers who can have no certificate.

use std::io::IsTerminal as _;
use std::time::Duration;

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Map, Value, json};

use super::cert::parse_ttl;
use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};
use super::pages::{LimitArgs, collect};

/// Make API keys for callers who can have no certificate.
///
/// An API key says only who its caller is; what the identity may do is what it is granted. It is sent with each call, as
/// `authorization: Bearer fk_...`, over TLS.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  fieldkeep api-key create report --tenant acme > report.key && fieldkeep grant create report --tenant acme --role decrypter")]
pub(crate) struct ApiKeyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an API key of an identity, and show it once
    ///
    /// In a pipe the API key alone goes to standard output.
    #[command(after_help = "\
Examples:
  fieldkeep api-key create report --tenant acme --network 10.0.0.0/8
  fieldkeep api-key create report --ttl 30d > report.key")]
    Create {
        /// The identity's name
        name: String,
        /// Its tenant
        #[arg(long, default_value = "default")]
        tenant: String,
        /// How long it lives: a number and s, m, h or d; at most 365d
        #[arg(long, default_value = "90d", value_parser = parse_ttl)]
        ttl: Duration,
        /// A network that it may be used from, in CIDR notation [default: all]; may be given several times
        #[arg(long = "network", value_name = "CIDR")]
        networks: Vec<String>,
    },
    /// Make a new secret of an API key, and show it once
    ///
    /// The present secret is taken for a while more, so that callers can take over the new one. In a pipe the API key alone goes
    /// to standard output.
    #[command(after_help = "\
Examples:
  fieldkeep api-key rotate 4p1c8q0zk2m7x9ab > report.key
  fieldkeep api-key rotate 4p1c8q0zk2m7x9ab --no-overlap")]
    Rotate {
        /// The API key's id: the 16 characters after `fk_`
        id: String,
        /// How long it lives from now on: a number and s, m, h or d; at most 365d
        #[arg(long, default_value = "90d", value_parser = parse_ttl)]
        ttl: Duration,
        /// How long the present secret is taken still; at most 30d
        #[arg(long, default_value = "24h", value_parser = parse_ttl)]
        overlap: Duration,
        /// End the present secret at once
        #[arg(long, conflicts_with = "overlap")]
        no_overlap: bool,
    },
    /// Revoke an API key, at once
    #[command(after_help = "Example:\n  fieldkeep api-key revoke 4p1c8q0zk2m7x9ab")]
    Revoke {
        /// The API key's id: the 16 characters after `fk_`
        id: String,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
    /// List API keys, without their secrets
    #[command(after_help = "Example:\n  fieldkeep api-key list --tenant acme")]
    List {
        /// Of one tenant [default: of all]
        #[arg(long)]
        tenant: Option<String>,
        #[command(flatten)]
        limit: LimitArgs,
    },
}

const COLUMNS: [&str; 6] = [
    "id",
    "identity",
    "expire_time",
    "last_use_time",
    "previous_expire_time",
    "networks",
];

/// Runs the verb.
pub(crate) async fn run(args: ApiKeyArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let keys = client.api_keys();
    match args.verb {
        Verb::Create {
            name,
            tenant,
            ttl,
            networks,
        } => {
            let doing = format!("cannot make an API key of `{name}`");
            let request = v1::CreateApiKeyRequest {
                identity: format!("tenants/{tenant}/identities/{name}"),
                ttl_seconds: ttl.as_secs(),
                networks,
            };
            let made = keys.create(request).await;
            let made = made.map_err(|error| Failure::from(error).while_doing(doing))?;
            show(format, made.secret, made.api_key)
        }
        Verb::Rotate {
            id,
            ttl,
            overlap,
            no_overlap,
        } => {
            let doing = format!("cannot rotate the API key `{id}`");
            let overlap = if no_overlap { Duration::ZERO } else { overlap };
            let rotated = keys.rotate(&id, ttl, overlap).await;
            let rotated = rotated.map_err(|error| Failure::from(error).while_doing(doing))?;
            show(format, rotated.secret, rotated.api_key)
        }
        Verb::Revoke { id, confirm } => {
            if !confirm.go_on(&format!("every call with the API key `{id}` is refused"))? {
                return Ok(());
            }
            let doing = format!("cannot revoke the API key `{id}`");
            let revoked = keys.revoke(&id).await;
            revoked.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(&json!({ "id": id, "revoked": true })),
                Format::Table => print_line(format_args!("the API key `{id}` is revoked")),
            }
        }
        Verb::List { tenant, limit } => {
            let parent = tenant.map_or_else(String::new, |tenant| format!("tenants/{tenant}"));
            let found = collect(keys.list(&parent), &limit, "list the API keys").await?;
            let rows: Vec<Value> = found.iter().map(object).collect();
            print_list(format, &COLUMNS, &rows, "no API keys")
        }
    }
}

/// Shows a secret, once. In a pipe it is alone, so that it can go to a file; what is known of it goes to the terminal beside.
fn show(format: Format, secret: String, key: Option<v1::ApiKey>) -> Result<(), Failure> {
    let known = object(&key.unwrap_or_default());
    if format == Format::Table && !std::io::stdout().is_terminal() {
        print_line(&secret)?;
        let text = |name: &str| known.get(name).and_then(Value::as_str).unwrap_or_default();
        eprintln!(
            "made the API key {} of {}, which ends at {}; it cannot be shown again",
            text("id"),
            text("identity"),
            text("expire_time")
        );
        return Ok(());
    }
    let mut all = Map::new();
    all.insert("api_key".into(), Value::String(secret));
    if let Value::Object(known) = known {
        all.extend(known);
    }
    let columns = [
        "api_key",
        "id",
        "identity",
        "networks",
        "expire_time",
        "previous_expire_time",
    ];
    print_object(format, &columns, &Value::Object(all))?;
    if format == Format::Table {
        eprintln!("keep it now: it cannot be shown again");
    }
    Ok(())
}

fn object(key: &v1::ApiKey) -> Value {
    let time = |time: &Option<prost_types::Timestamp>| {
        time.as_ref()
            .map_or(Value::Null, |time| rfc3339(time.seconds))
    };
    json!({
        "id": key.id,
        "identity": key.identity,
        "networks": key.networks,
        "create_time": time(&key.create_time),
        "created_by": key.created_by,
        "rotate_time": time(&key.rotate_time),
        "expire_time": time(&key.expire_time),
        "previous_expire_time": time(&key.previous_expire_time),
        "last_use_time": time(&key.last_use_time),
    })
}
