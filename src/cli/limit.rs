//! `fieldkeep limit`: how much who may use, and `fieldkeep usage`: how much the caller has used.

use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::key::policy::duration;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};
use super::pages::{LimitArgs as PageArgs, collect};
use crate::access::action::Action;
use crate::access::limits::record::Sharing;
use crate::access::limits::window::Window;

/// Limit how many fields, bytes and calls callers may use.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep limit set daily '10000 fields/day' --tenant acme --action decrypt
  fieldkeep limit set burst '1000 fields/s burst 2000' '64 calls' --tenant acme --principal app
  fieldkeep limit list --tenant acme")]
pub(crate) struct LimitArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set a limit, in place of one of the same name
    ///
    /// A window is a budget, `10000 fields/day`: at most so many in any 24 hours; a rate, `1000 fields/s burst 2000`: given back
    /// evenly, and up to the burst at once; or `64 calls`: so many under way at once. Units: fields, calls, B, KiB, MiB, GiB, TiB.
    /// Periods: s, min, hour, day. A call is charged to all limits that are about it, or refused by one and charged nothing.
    #[command(after_help = "\
Examples:
  fieldkeep limit set daily '10000 fields/day' --tenant acme --action decrypt
  fieldkeep limit set cards '100 fields/min' '1000 fields/day' --tenant acme --principal support --key cards
  fieldkeep limit set all '50000 fields/s burst 100000' --service --sharing together")]
    Set(SetArgs),
    /// List limits
    #[command(after_help = "Example:\n  fieldkeep limit list --tenant acme")]
    List {
        /// Those of one tenant [default: all, and those of the service]
        #[arg(long, default_value = "", hide_default_value = true)]
        tenant: String,
        #[command(flatten)]
        page: PageArgs,
    },
    /// Remove a limit, at once
    #[command(after_help = "\
Examples:
  fieldkeep limit remove daily --tenant acme
  fieldkeep limit remove all --service --yes")]
    Remove {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// The limit's name
    name: String,
    /// Its tenant
    #[arg(long, default_value = "default")]
    tenant: String,
    /// It is one of the whole service
    #[arg(long)]
    service: bool,
}

impl Named {
    fn resource(&self) -> String {
        if self.service {
            format!("limits/{}", self.name)
        } else {
            format!("tenants/{}/limits/{}", self.tenant, self.name)
        }
    }
}

#[derive(Debug, Args)]
struct SetArgs {
    #[command(flatten)]
    named: Named,
    /// How much is allowed: one to four, all of which must have room
    #[arg(required = true, value_name = "WINDOW", value_parser = parse_window)]
    windows: Vec<String>,
    /// Of one identity alone
    #[arg(long, value_name = "NAME")]
    principal: Option<String>,
    /// The tenant of the identity [default: that of the limit]
    #[arg(long, value_name = "TENANT", requires = "principal")]
    of: Option<String>,
    /// Of one key alone
    #[arg(long, conflicts_with = "service")]
    key: Option<String>,
    /// Of this action alone; may be given several times
    #[arg(long = "action", value_name = "ACTION", value_parser = action_names())]
    actions: Vec<String>,
    /// Whose calls are counted together
    #[arg(long, value_parser = sharing_names(), default_value = Sharing::EachPrincipal.as_str())]
    sharing: String,
}

impl SetArgs {
    fn request(self) -> v1::SetLimitRequest {
        let tenant = self.of.as_ref().unwrap_or(&self.named.tenant);
        let principal = self
            .principal
            .map(|name| format!("tenants/{tenant}/identities/{name}"));
        v1::SetLimitRequest {
            name: self.named.resource(),
            principal: principal.unwrap_or_default(),
            key: self.key.unwrap_or_default(),
            actions: self.actions,
            sharing: self.sharing,
            windows: self.windows,
            request_id: String::new(),
        }
    }
}

/// A window as the service would write it.
fn parse_window(text: &str) -> Result<String, String> {
    let window: Result<Window, _> = text.parse();
    window
        .map(|window| window.to_string())
        .map_err(|error| error.to_string())
}

fn action_names() -> PossibleValuesParser {
    let limited = Action::ALL.iter().filter(|action| action.is_data());
    PossibleValuesParser::new(limited.map(|action| action.as_str()))
}

fn sharing_names() -> PossibleValuesParser {
    PossibleValuesParser::new(Sharing::ALL.map(Sharing::as_str))
}

const MEMBERS: [&str; 8] = [
    "name",
    "windows",
    "principal",
    "key",
    "actions",
    "sharing",
    "set_by",
    "create_time",
];
const COLUMNS: [&str; 6] = ["name", "windows", "principal", "key", "actions", "sharing"];

/// Runs the verb.
pub(crate) async fn run(args: LimitArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Set(args) => {
            let doing = format!("cannot set the limit `{}`", args.named.name);
            let set = client.limits().set(args.request()).await;
            let set = set.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &MEMBERS, &object(&set))
        }
        Verb::List { tenant, page } => {
            let limits = client.limits().list(&tenant);
            let limits = collect(limits, &page, "list the limits").await?;
            let rows: Vec<Value> = limits.iter().map(object).collect();
            print_list(format, &COLUMNS, &rows, "no limits")
        }
        Verb::Remove { named, confirm } => {
            let name = named.resource();
            let effect = format!("what the limit `{name}` bounds is not bounded by it any more");
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot remove the limit `{name}`");
            let removed = client.limits().remove(&name).await;
            removed.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(&json!({ "name": name, "removed": true })),
                Format::Table => print_line(format_args!("the limit `{name}` is removed")),
            }
        }
    }
}

fn object(limit: &v1::Limit) -> Value {
    json!({
        "name": limit.name,
        "windows": limit.windows,
        "principal": limit.principal,
        "key": limit.key,
        "actions": limit.actions,
        "sharing": limit.sharing,
        "set_by": limit.set_by,
        "create_time": limit.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}

/// See what you have used of the limits that are about you. It needs no right.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  fieldkeep usage show")]
pub(crate) struct UsageArgs {
    #[command(subcommand)]
    verb: UsageVerb,
}

#[derive(Debug, Subcommand)]
enum UsageVerb {
    /// Show what you have used of each window of each limit, and what is left
    ///
    /// What is not counted for each principal includes what others have used. How much was encrypted with a key is another
    /// question, which `key usage` answers.
    #[command(after_help = "\
Examples:
  fieldkeep usage show
  fieldkeep usage show --format json")]
    Show,
}

/// Runs the verb.
pub(crate) async fn usage(
    args: &UsageArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let UsageVerb::Show = args.verb;
    let used = client.limits().usage().await;
    let used =
        used.map_err(|error| Failure::from(error).while_doing("cannot tell what you have used"))?;
    let row = |one: &v1::LimitUsage| {
        let resets = one.resets_in.as_ref().map(|time| match format {
            // A begun second counts as a whole one, so that nobody comes back too early.
            Format::Table => json!(duration(time.seconds + i64::from(time.nanos > 0))),
            Format::Json => json!(time.seconds + i64::from(time.nanos > 0)),
        });
        let member = match format {
            Format::Table => "resets_in",
            Format::Json => "resets_in_s",
        };
        json!({
            "limit": one.limit,
            "window": one.window,
            "used": one.used,
            "remaining": one.remaining,
            member: resets,
            "key": one.key,
            "actions": one.actions,
            "sharing": one.sharing,
        })
    };
    let rows: Vec<Value> = used.iter().map(row).collect();
    let columns = [
        "limit",
        "window",
        "used",
        "remaining",
        "resets_in",
        "key",
        "actions",
        "sharing",
    ];
    print_list(format, &columns, &rows, "no limit is about you")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_checked_before_anything_is_sent() {
        assert_eq!(parse_window("5 calls / min").unwrap(), "5 calls/min");
        assert!(
            parse_window("10 fields/week")
                .unwrap_err()
                .contains("`day`")
        );
    }
}
