//! `fieldkeep key`: keys and their versions.

use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::failure::Failure;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339, table};
use super::pages::{LimitArgs, collect};

/// Manage keys and their versions.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  fieldkeep key create pii && fieldkeep key rotate pii && fieldkeep key show pii"
)]
pub(crate) struct KeyArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Create a key, with version 1
    #[command(after_help = "Example:\n  fieldkeep key create pii --tenant acme")]
    Create(Named),
    /// List the keys of a tenant
    #[command(after_help = "Example:\n  fieldkeep key list --tenant acme --format json")]
    List(ListArgs),
    /// Show a key and its versions
    #[command(after_help = "Example:\n  fieldkeep key show pii --tenant acme")]
    Show(Named),
    /// Add a version and make it primary; older versions still decrypt
    #[command(after_help = "Example:\n  fieldkeep key rotate pii --tenant acme")]
    Rotate(Named),
    /// Enable a disabled key, or one of its versions
    #[command(
        after_help = "Examples:\n  fieldkeep key enable pii\n  fieldkeep key enable pii --version 1"
    )]
    Enable(Switched),
    /// Disable a key, or one of its versions: it does not decrypt until enabled again
    #[command(
        after_help = "Examples:\n  fieldkeep key disable pii\n  fieldkeep key disable pii --version 1"
    )]
    Disable(Switched),
}

#[derive(Debug, Args)]
struct Named {
    /// The key's name
    name: String,
    /// Its tenant [default: the caller's]
    #[arg(long)]
    tenant: Option<String>,
}

impl Named {
    fn resource(&self) -> String {
        match &self.tenant {
            Some(tenant) => format!("tenants/{tenant}/keys/{}", self.name),
            None => self.name.clone(),
        }
    }
}

#[derive(Debug, Args)]
struct Switched {
    #[command(flatten)]
    named: Named,
    /// One version in place of the whole key
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    version: Option<u32>,
}

#[derive(Debug, Args)]
struct ListArgs {
    /// The tenant [default: the caller's]
    #[arg(long, default_value = "", hide_default_value = true)]
    tenant: String,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Runs the verb.
pub(crate) async fn run(args: KeyArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let keys = client.keys();
    let (doing, outcome) = match args.verb {
        Verb::List(args) => return list(&args, client, format).await,
        Verb::Create(named) => (
            format!("create the key `{}`", named.name),
            keys.create(&named.resource()).await,
        ),
        Verb::Show(named) => (
            format!("show the key `{}`", named.name),
            keys.show(&named.resource()).await,
        ),
        Verb::Rotate(named) => (
            format!("rotate the key `{}`", named.name),
            keys.rotate(&named.resource()).await,
        ),
        Verb::Enable(Switched {
            named,
            version: None,
        }) => (
            format!("enable the key `{}`", named.name),
            keys.enable(&named.resource()).await,
        ),
        Verb::Disable(Switched {
            named,
            version: None,
        }) => (
            format!("disable the key `{}`", named.name),
            keys.disable(&named.resource()).await,
        ),
        Verb::Enable(Switched {
            named,
            version: Some(version),
        }) => (
            format!("enable version {version} of the key `{}`", named.name),
            keys.enable_version(&named.resource(), version).await,
        ),
        Verb::Disable(Switched {
            named,
            version: Some(version),
        }) => (
            format!("disable version {version} of the key `{}`", named.name),
            keys.disable_version(&named.resource(), version).await,
        ),
    };
    let key = outcome
        .map_err(|error| Failure::from(error).while_doing(format_args!("cannot {doing}")))?;
    print_key(format, &key)
}

async fn list(args: &ListArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let keys = collect(
        client.keys().list(&args.tenant),
        &args.limit,
        "list the keys",
    )
    .await?;
    let rows: Vec<Value> = keys.iter().map(key_object).collect();
    let columns = ["name", "state", "primary_version", "rotate_time", "handle"];
    print_list(
        format,
        &columns,
        &rows,
        "no keys yet: `fieldkeep key create NAME` makes one",
    )
}

fn print_key(format: Format, key: &v1::Key) -> Result<(), Failure> {
    let mut object = key_object(key);
    let versions: Vec<Value> = key.versions.iter().map(version_object).collect();
    if format == Format::Json {
        if let (Some(members), false) = (object.as_object_mut(), versions.is_empty()) {
            members.insert(String::from("versions"), Value::Array(versions));
        }
        return print_json(&object);
    }
    let members = [
        "name",
        "state",
        "suite",
        "primary_version",
        "create_time",
        "rotate_time",
        "handle",
    ];
    print_object(format, &members, &object)?;
    if versions.is_empty() {
        return Ok(());
    }
    let row = |version: &v1::KeyVersion| {
        let made = version
            .create_time
            .as_ref()
            .map(|time| rfc3339(time.seconds));
        vec![
            version.version.to_string(),
            version_state(version.state).to_owned(),
            made.as_ref()
                .and_then(Value::as_str)
                .unwrap_or("-")
                .to_owned(),
            String::from(if version.primary { "primary" } else { "" }),
        ]
    };
    let rows = key.versions.iter().map(row).collect();
    print_line(format_args!(
        "\n{}",
        table(Some(&["version", "state", "create_time", ""]), rows)
    ))
}

/// A key as JSON, without its versions.
pub(crate) fn key_object(key: &v1::Key) -> Value {
    json!({
        "name": key.name,
        "state": match key.state() {
            v1::KeyState::Enabled => "enabled",
            v1::KeyState::Disabled => "disabled",
            v1::KeyState::Unspecified => "unknown",
        },
        "suite": match key.suite() {
            v1::Suite::KcXaes256Gcm => "kc-xaes-256-gcm",
            v1::Suite::Unspecified => "unknown",
        },
        "primary_version": key.primary_version,
        "handle": HEXLOWER.encode(&key.handle),
        "create_time": key.create_time.as_ref().map(|time| rfc3339(time.seconds)),
        "rotate_time": key.rotate_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}

fn version_object(version: &v1::KeyVersion) -> Value {
    json!({
        "version": version.version,
        "state": version_state(version.state),
        "primary": version.primary,
        "create_time": version.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}

fn version_state(state: i32) -> &'static str {
    match v1::KeyVersionState::try_from(state) {
        Ok(v1::KeyVersionState::Enabled) => "enabled",
        Ok(v1::KeyVersionState::Disabled) => "disabled",
        Ok(v1::KeyVersionState::Unspecified) | Err(_) => "unknown",
    }
}
