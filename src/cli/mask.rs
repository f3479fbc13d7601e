//! `fieldkeep mask`: what is shown of a field to whoever may decrypt it only masked.

use clap::{Args, Subcommand};
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::confirm::ConfirmArgs;
use super::failure::Failure;
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};
use super::pages::{LimitArgs, collect};
use crate::access::mask::kind::{Mask, MaskError};

/// Say what masked readers see of a field. Without a mask they see nothing.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep mask set customer.card last:4 --tenant acme
  fieldkeep grant create support --group --tenant acme --role masked-reader --field customer.card
  fieldkeep mask list --tenant acme")]
pub(crate) struct MaskArgs {
    #[command(subcommand)]
    verb: Verb,
}

/// The kinds, each with a value and what is shown of it; a test compares them with what masks do.
const KINDS: &str = "\
Kind           of this value     shows
  last:4         4111111111111234  ***1234
  last:2         A-1042-77         ***77
  email-domain   ada@example.org   ***@example.org
  year           1990-12-10        1990-**-**
  fixed          Ada Lovelace      ***
  fixed:hidden   Ada Lovelace      hidden
What is not of the kind, or too short for it, is shown as ***. `last` shows 1 to 4 characters, and
as many with letters or digits have to stay hidden.

Example:
  fieldkeep mask set customer.email email-domain --tenant acme";

#[derive(Debug, Subcommand)]
enum Verb {
    /// Set the mask of a field, in place of the one that it has
    ///
    /// It counts at once, on open connections too, under whatever key a value is. Who may decrypt the field sees the value
    /// itself. Nobody who sees a field masked makes its mask show more.
    #[command(after_help = KINDS)]
    Set {
        #[command(flatten)]
        named: Named,
        /// What is shown: last:N, email-domain, year, fixed or fixed:TEXT
        #[arg(value_parser = parse_mask)]
        mask: Mask,
    },
    /// List the masks
    #[command(after_help = "Example:\n  fieldkeep mask list --tenant acme")]
    List {
        /// Of one tenant [default: of all]
        #[arg(long, default_value = "", hide_default_value = true)]
        tenant: String,
        #[command(flatten)]
        limit: LimitArgs,
    },
    /// Remove the mask of a field: who may see it only masked sees nothing any more, at once
    #[command(after_help = "\
Examples:
  fieldkeep mask remove customer.card --tenant acme
  fieldkeep mask remove customer.card --tenant acme --yes")]
    Remove {
        #[command(flatten)]
        named: Named,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

#[derive(Debug, Args)]
struct Named {
    /// The field, for example customer.email
    field: String,
    /// Its tenant
    #[arg(long, default_value = "default")]
    tenant: String,
}

fn parse_mask(text: &str) -> Result<Mask, MaskError> {
    text.parse()
}

const COLUMNS: [&str; 5] = ["tenant", "field", "mask", "set_by", "create_time"];

/// Runs the verb.
pub(crate) async fn run(args: MaskArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Set { named, mask } => {
            let Named { field, tenant } = named;
            let set = client.masks().set(&tenant, &field, &mask.to_string()).await;
            let doing = format!("cannot set the mask of `{field}`");
            let set = set.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &COLUMNS, &object(&set))
        }
        Verb::List { tenant, limit } => {
            let masks = collect(client.masks().list(&tenant), &limit, "list the masks").await?;
            let rows: Vec<Value> = masks.iter().map(object).collect();
            print_list(format, &COLUMNS, &rows, "no masks")
        }
        Verb::Remove { named, confirm } => {
            let Named { field, tenant } = named;
            let effect =
                format!("whoever may see `{field}` of `{tenant}` only masked sees nothing of it");
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot remove the mask of `{field}`");
            let removed = client.masks().remove(&tenant, &field).await;
            removed.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(
                    &json!({ "tenant": format!("tenants/{tenant}"), "field": field, "removed": true }),
                ),
                Format::Table => {
                    print_line(format_args!("`{field}` of `{tenant}` has no mask any more"))
                }
            }
        }
    }
}

fn object(mask: &v1::Mask) -> Value {
    json!({
        "tenant": mask.tenant,
        "field": mask.field,
        "mask": mask.mask,
        "set_by": mask.set_by,
        "create_time": mask.create_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_help_shows_what_each_kind_shows() {
        let rows = KINDS
            .lines()
            .skip(1)
            .take_while(|line| line.starts_with("  "));
        let mut count = 0;
        for row in rows {
            // Columns are two blanks apart, since a value may have one.
            let cells: Vec<&str> = row
                .split("  ")
                .map(str::trim)
                .filter(|cell| !cell.is_empty())
                .collect();
            let [kind, value, shown] = cells[..] else {
                panic!("{row}")
            };
            let mut out = Vec::new();
            parse_mask(kind).unwrap().apply(value.as_bytes(), &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), shown, "{row}");
            count += 1;
        }
        assert_eq!(count, 6);
    }
}
