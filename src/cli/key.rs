//! `fieldkeep key`: keys and their versions.

pub(super) mod policy;
mod print;

use bytesize::ByteSize;
use clap::{Args, Subcommand, ValueEnum};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use futures_util::{StreamExt, TryStreamExt, stream};
use serde_json::{Value, json};

use self::policy::PolicyArgs;
use self::print::{key_object, print_key, words_object};
use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::output::{Format, print_list, thousands};
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
        after_help = "Examples:\n  fieldkeep key create pii --tenant acme\n  fieldkeep key create pii --rotate-every 90d --max-messages 1000000000\n  fieldkeep key create patients --audit-items hashes"
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
    /// Set what the audit trail has of the items of calls that use a key
    ///
    /// With `hashes` each record also has a keyed hash of each item's key, field and context, so that `audit list --item` finds
    /// who encrypted, decrypted or moved one. It costs 11 bytes an item.
    #[command(
        name = "set-audit-items",
        after_help = "Examples:\n  fieldkeep key set-audit-items pii hashes\n  fieldkeep audit list --key pii --field customer.ssn --item id=4711"
    )]
    SetAuditItems(ItemsSet),
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
    /// What the audit trail has of the items of calls: counts alone, or a keyed hash of each too
    #[arg(long, value_name = "WHAT", default_value = "counts")]
    audit_items: AuditItems,
}

/// What the audit trail has of the items of calls that use a key.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum AuditItems {
    /// How many there were
    Counts,
    /// That, and a keyed hash of each
    Hashes,
}

impl From<AuditItems> for v1::AuditItems {
    fn from(items: AuditItems) -> Self {
        match items {
            AuditItems::Counts => v1::AuditItems::Counts,
            AuditItems::Hashes => v1::AuditItems::Hashes,
        }
    }
}

#[derive(Debug, Args)]
struct ItemsSet {
    #[command(flatten)]
    named: Named,
    /// What the trail has of them, from the next call on
    #[arg(value_name = "WHAT")]
    items: AuditItems,
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
        Verb::Create(args) => (
            format!("create the key `{}`", args.named.name),
            keys.create_from(v1::CreateKeyRequest {
                name: args.named.resource(),
                rotation: args.policy.to_rotation(),
                audit_items: v1::AuditItems::from(args.audit_items).into(),
                ..v1::CreateKeyRequest::default()
            })
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
        Verb::SetAuditItems(ItemsSet { named, items }) => (
            format!(
                "set what the audit trail has of the items of the key `{}`",
                named.name
            ),
            keys.set_audit_items(&named.resource(), items.into()).await,
        ),
        Verb::Show(named) => {
            let shown = keys.show(&named.resource()).await;
            let key =
                shown.map_err(|error| cannot(&format!("show the key `{}`", named.name), error))?;
            return print_key(format, &key, true);
        }
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
    let mut key = outcome.map_err(|error| cannot(&doing, error))?;
    // What changes a key does not tell its next rotation. The change is done, whether that can be read or not.
    let next = match &key.rotation {
        None => Some(None),
        Some(_) => keys
            .show(&key.name)
            .await
            .ok()
            .map(|shown| shown.next_rotation),
    };
    let is_next_known = next.is_some();
    key.next_rotation = next.flatten();
    print_key(format, &key, is_next_known)
}

fn cannot(doing: &str, error: fieldkeep_client::Error) -> Failure {
    Failure::from(error).while_doing(format_args!("cannot {doing}"))
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
