//! The command line: verbs, options and their help.

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::connection::ConnectionArgs;
use super::output::Format;
use super::{
    audit, cert, completions, data, demo, dev, doctor, field, init, key, profile, role, serve,
    status, tenant,
};

const EXAMPLES: &str = "\
Examples:
  fieldkeep demo                                  see all of it work, in under a minute
  fieldkeep dev                                   run a service for development, with keys and identities
  fieldkeep init --dir fk                         make a data directory, a CA and a first admin
  fieldkeep serve --config fk/fieldkeep.toml      run the service
  fieldkeep key create pii                        as the admin: make a key
  echo -n ada@example.com | fieldkeep encrypt --key pii --field customer.email --context id=42

Exit codes:
  0 ok  1 failed  2 wrong arguments  3 refused  4 not found  5 invalid input or decryption failed
  6 service unavailable  7 exists already, or not in a state for this";

/// Encrypts the sensitive fields of your records and keeps the keys.
#[derive(Debug, Parser)]
#[command(name = "fieldkeep", bin_name = "fieldkeep", version, after_help = EXAMPLES, max_term_width = 120)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// How results are printed [default: table]
    #[arg(
        long,
        global = true,
        value_enum,
        hide_possible_values = true,
        value_name = "table|json"
    )]
    pub(crate) format: Option<Format>,
    #[command(flatten)]
    pub(crate) connection: ConnectionArgs,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Demo(demo::DemoArgs),
    Dev(dev::DevArgs),
    Init(init::InitArgs),
    Serve(serve::ServeArgs),
    #[command(flatten)]
    Connected(Connected),
    Profile(profile::ProfileArgs),
    Completions(completions::CompletionsArgs),
}

/// The verbs that talk to a service.
#[derive(Debug, Subcommand)]
pub(crate) enum Connected {
    Status(status::StatusArgs),
    Doctor(doctor::DoctorArgs),
    Cert(cert::CertArgs),
    Role(role::RoleArgs),
    Tenant(tenant::TenantArgs),
    Key(key::KeyArgs),
    Encrypt(field::EncryptArgs),
    Decrypt(field::DecryptArgs),
    Reencrypt(field::ReencryptArgs),
    Data(data::DataArgs),
    Audit(audit::AuditArgs),
}

/// The verbs that talk to no service through a configured connection; its options would only be noise in their help.
/// With each, whether it prints results in a format.
const LOCAL_VERBS: [(&str, bool); 6] = [
    ("demo", false),
    ("dev", false),
    ("init", true),
    ("serve", false),
    ("profile", true),
    ("completions", false),
];

/// Parses the arguments of the process. Prints help or what is wrong, and ends the process, if there is nothing to run.
pub(crate) fn parse() -> Cli {
    let matches = command().get_matches();
    Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
}

/// The definition of the command line.
pub(crate) fn command() -> clap::Command {
    let mut command = Cli::command();
    // Global options are handed down when the command is built; only then can they be hidden.
    command.build();
    for (verb, prints_results) in LOCAL_VERBS {
        command = command.mut_subcommand(verb, |verb| {
            let verb = hide_global(verb, prints_results);
            verb.mut_subcommands(|verb| hide_global(verb, prints_results))
        });
    }
    command
}

fn hide_global(verb: clap::Command, prints_results: bool) -> clap::Command {
    verb.mut_args(|arg| {
        let id = arg.get_id().as_str();
        let connects = matches!(id, "profile" | "addr" | "ca" | "cert" | "key_file");
        let hidden = connects || (id == "format" && !prints_results);
        if hidden { arg.hide(true) } else { arg }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definition_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn every_help_has_an_example() {
        fn check(command: &clap::Command, path: &str) {
            let path = format!("{path} {}", command.get_name());
            let help = command
                .get_after_help()
                .map(ToString::to_string)
                .unwrap_or_default();
            assert!(
                command.get_name() == "help" || help.contains("xample"),
                "no example in the help of{path}"
            );
            command
                .get_subcommands()
                .for_each(|verb| check(verb, &path));
        }
        check(&Cli::command(), "");
    }
}
