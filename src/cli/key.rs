//! `fieldkeep key`: keys and their versions.

mod policy;

use bytesize::ByteSize;
use clap::{Args, Subcommand};
use data_encoding::HEXLOWER;
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use self::policy::PolicyArgs;
use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::output::{
    Format, print_json, print_line, print_list, print_object, rfc3339, table, thousands,
};
use super::pages::{LimitArgs, collect};

/// Calls at once that `key list --wide` makes.
const PARALLEL: usize = 16;

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
    #[command(
        after_help = "Examples:\n  fieldkeep key create pii --tenant acme\n  fieldkeep key create pii --rotate-every 90d --max-messages 1000000000"
    )]
    Create(Created),
    /// List the keys of a tenant
    #[command(
        after_help = "Examples:\n  fieldkeep key list --tenant acme --format json\n  fieldkeep key list --wide"
    )]
    List(ListArgs),
    /// Show a key, its versions, and when and why it rotates next
    #[command(after_help = "Example:\n  fieldkeep key show pii --tenant acme")]
    Show(Named),
    /// Add a version and make it primary; older versions still decrypt
    #[command(after_help = "Example:\n  fieldkeep key rotate pii --tenant acme")]
    Rotate(Named),
    /// Set when a key rotates by itself, in place of what was set before
    #[command(
        name = "set-rotation",
        after_help = "Examples:\n  fieldkeep key set-rotation pii --rotate-every 90d --max-bytes 10GiB\n  fieldkeep key set-rotation pii --rotate-cron '0 3 * * 1' --jitter 2h\n  fieldkeep key set-rotation pii --never"
    )]
    SetRotation(RotationSet),
    /// Show how much was encrypted under each version of a key
    #[command(after_help = "Example:\n  fieldkeep key usage pii")]
    Usage(Named),
    /// Enable a disabled key, or one of its versions
    #[command(
        after_help = "Examples:\n  fieldkeep key enable pii\n  fieldkeep key enable pii --version 1"
    )]
    Enable(Switched),
    /// Disable a key, or one of its versions: it does not decrypt until enabled again
    #[command(
        after_help = "Examples:\n  fieldkeep key disable pii --dry-run\n  fieldkeep key disable pii --version 1 --yes"
    )]
    Disable {
        #[command(flatten)]
        switched: Switched,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
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
struct Created {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    policy: PolicyArgs,
}

#[derive(Debug, Args)]
#[command(group = policy::required())]
struct RotationSet {
    #[command(flatten)]
    named: Named,
    #[command(flatten)]
    policy: PolicyArgs,
    /// Rotate on demand alone
    #[arg(long, conflicts_with_all = ["rotate_every", "rotate_cron", "jitter", "max_messages", "max_bytes", "retire_after"])]
    never: bool,
    #[command(flatten)]
    confirm: ConfirmArgs,
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
    /// Show when each key was made, when it rotates by itself, and its next rotation
    #[arg(long)]
    wide: bool,
}

/// Runs the verb.
pub(crate) async fn run(args: KeyArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let keys = client.keys();
    let (doing, outcome) = match args.verb {
        Verb::List(args) => return list(&args, client, format).await,
        Verb::Usage(named) => return usage(&named, client, format).await,
        Verb::Create(Created { named, policy }) => (
            format!("create the key `{}`", named.name),
            keys.create_with(&named.resource(), policy.to_rotation())
                .await,
        ),
        Verb::SetRotation(args) => {
            if !confirm_retirement(&args)? {
                return Ok(());
            }
            (
                format!("set the rotation of the key `{}`", args.named.name),
                keys.set_rotation(&args.named.resource(), args.policy.to_rotation())
                    .await,
            )
        }
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
        Verb::Enable(Switched {
            named,
            version: Some(version),
        }) => (
            format!("enable version {version} of the key `{}`", named.name),
            keys.enable_version(&named.resource(), version).await,
        ),
        Verb::Disable {
            switched: Switched { named, version },
            confirm,
        } => {
            let (name, resource) = (&named.name, named.resource());
            let what = version.map_or_else(
                || format!("the key `{name}`"),
                |version| format!("version {version} of the key `{name}`"),
            );
            let effect =
                format!("What {what} encrypted will not decrypt, until it is enabled again");
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let outcome = match version {
                None => keys.disable(&resource).await,
                Some(version) => keys.disable_version(&resource, version).await,
            };
            (format!("disable {what}"), outcome)
        }
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
    let none = "no keys yet: `fieldkeep key create NAME` makes one";
    if !args.wide {
        let rows: Vec<Value> = keys.iter().map(key_object).collect();
        let columns = ["name", "state", "primary_version", "rotate_time", "handle"];
        return print_list(format, &columns, &rows, none);
    }
    let keys = with_next(keys, client).await?;
    let wide = |key: &v1::Key| {
        if format == Format::Json {
            key_object(key)
        } else {
            words_object(key)
        }
    };
    let rows: Vec<Value> = keys.iter().map(wide).collect();
    let columns = [
        "name",
        "state",
        "primary_version",
        "create_time",
        "rotate_time",
        "rotation",
        "next_rotation",
    ];
    print_list(format, &columns, &rows, none)
}

/// Asks for the next rotation of each key that has one, since a list does not tell it.
async fn with_next(keys: Vec<v1::Key>, client: &Client) -> Result<Vec<v1::Key>, Failure> {
    let asked = keys.into_iter().map(|key| async move {
        if key.rotation.is_none() {
            return Ok(key);
        }
        client.keys().show(&key.name).await
    });
    stream::iter(asked)
        .buffered(PARALLEL)
        .try_collect()
        .await
        .map_err(|error| Failure::from(error).while_doing("cannot list the keys"))
}

async fn usage(named: &Named, client: &Client, format: Format) -> Result<(), Failure> {
    let usage = client
        .keys()
        .usage(&named.resource())
        .await
        .map_err(|error| {
            Failure::from(error).while_doing(format_args!(
                "cannot show the usage of the key `{}`",
                named.name
            ))
        })?;
    let row = |version: &v1::KeyVersionUsage| match format {
        Format::Json => json!({
            "version": version.version,
            "messages": version.messages,
            "bytes": version.bytes,
        }),
        Format::Table => json!({
            "version": version.version,
            "messages": thousands(version.messages),
            "bytes": ByteSize(version.bytes).to_string(),
        }),
    };
    let rows: Vec<Value> = usage.versions.iter().map(row).collect();
    print_list(
        format,
        &["version", "messages", "bytes"],
        &rows,
        "nothing was encrypted under this key yet",
    )
}

/// Asks before versions are set to retire. Whether to go on.
fn confirm_retirement(args: &RotationSet) -> Result<bool, Failure> {
    let after = args
        .policy
        .retire_after
        .map(|after| policy::duration(i64::try_from(after.as_secs()).unwrap_or(i64::MAX)));
    let name = &args.named.name;
    let Some(after) = after else {
        let effect =
            format!("The key `{name}` gets this rotation, and none of its versions retires");
        return args.confirm.go_on_unasked(&effect);
    };
    args.confirm.go_on(&format!(
        "Versions of `{name}` will be disabled {after} after they are replaced, those replaced before too: \
         what they encrypted and was not re-encrypted will not decrypt, until the version is enabled again"
    ))
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
        "rotation",
        "next_rotation",
    ];
    print_object(format, &members, &words_object(key))?;
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
        "rotation": policy::object(key.rotation.as_ref()),
        "next_rotation": policy::next_object(key.next_rotation.as_ref()),
    })
}

/// A key for people: its rotation in words.
fn words_object(key: &v1::Key) -> Value {
    let mut object = key_object(key);
    if let Some(members) = object.as_object_mut() {
        let rotation = policy::words(key.rotation.as_ref());
        members.insert(String::from("rotation"), Value::String(rotation));
        let next = policy::next_words(key);
        members.insert(String::from("next_rotation"), Value::String(next));
    }
    object
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
