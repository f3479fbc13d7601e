//! `fieldkeep group`: who is in which group.

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};
use super::pages::{LimitArgs, collect};

/// Put identities into groups, so that they are granted rights together.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  fieldkeep group add support alice --tenant acme && fieldkeep grant create support --group --tenant acme --role decrypter")]
pub(crate) struct GroupArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Put an identity into a group, which begins with its first member
    #[command(after_help = "Example:\n  fieldkeep group add support alice --tenant acme")]
    Add(Named),
    /// Take an identity out of a group, at once
    #[command(after_help = "\
Examples:
  fieldkeep group remove support alice --tenant acme
  fieldkeep group remove support alice --tenant acme --yes")]
    Remove {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
    /// List the groups
    #[command(after_help = "Example:\n  fieldkeep group list --tenant acme")]
    List {
        /// Of one tenant [default: of all]
        #[arg(long, default_value = "", hide_default_value = true)]
        tenant: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// List the members of a group
    #[command(after_help = "Example:\n  fieldkeep group show support --tenant acme")]
    Show {
        /// The group's name
        group: String,
        /// Its tenant
        #[arg(long, default_value = "default")]
        tenant: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// The group's name
    group: String,
    /// The identity's name
    member: String,
    /// The tenant of the group
    #[arg(long, default_value = "default")]
    tenant: String,
    /// The tenant of the identity [default: that of the group]
    #[arg(long, value_name = "TENANT")]
    of: Option<String>,
}

impl Named {
    fn group(&self) -> String {
        group_name(&self.tenant, &self.group)
    }

    fn member(&self) -> String {
        let tenant = self.of.as_ref().unwrap_or(&self.tenant);
        format!("tenants/{tenant}/identities/{}", self.member)
    }
}

fn group_name(tenant: &str, group: &str) -> String {
    format!("tenants/{tenant}/groups/{group}")
}

const MEMBERS: [&str; 4] = ["group", "member", "added_by", "create_time"];

/// Runs the verb.
pub(crate) async fn run(args: GroupArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Add(named) => {
            let doing = format!("cannot put `{}` into `{}`", named.member, named.group);
            let added = client.groups().add(&named.group(), &named.member()).await;
            let added = added.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &MEMBERS, &object(&added))
        }
        Verb::Remove { named, confirm } => {
            let (group, member) = (named.group(), named.member());
            let effect = format!("`{member}` loses what it has through `{group}`");
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot take `{}` out of `{}`", named.member, named.group);
            let removed = client.groups().remove(&group, &member).await;
            removed.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => {
                    print_json(&json!({ "group": group, "member": member, "removed": true }))
                }
                Format::Table => {
                    print_line(format_args!("`{member}` is not in `{group}` any more"))
                }
            }
        }
        Verb::List { tenant, limit } => {
            let groups = collect(client.groups().list(&tenant), &limit, "list the groups").await?;
            let row = |group: &v1::Group| json!({ "name": group.name, "members": group.members });
            let rows: Vec<Value> = groups.iter().map(row).collect();
            print_list(format, &["name", "members"], &rows, "no groups")
        }
        Verb::Show {
            group,
            tenant,
            limit,
        } => {
            let members = client.groups().members(&group_name(&tenant, &group));
            let members = collect(members, &limit, "list the members of the group").await?;
            let rows: Vec<Value> = members.iter().map(object).collect();
            print_list(format, &MEMBERS, &rows, "no members")
        }
    }
}

fn object(member: &v1::GroupMember) -> Value {
    json!({
        "group": member.group,
        "member": member.member,
        "added_by": member.added_by,
        "create_time": member.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}
