//! The command line: verbs, options and their help.

use std::ffi::OsString;
use std::io::Write;

use clap::builder::{OsStr, Resettable};
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use super::connection::ConnectionArgs;
use super::failure::Exit;
use super::output::Format;
use super::{
    access, api_key, audit, ca, cert, completions, data, demo, dev, doctor, field, grant, group,
    init, issuer, join, key, limit, mask, profile, serve, status, tenant,
};
use crate::version::VERSION;

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
#[command(name = "fieldkeep", bin_name = "fieldkeep", version = VERSION, after_help = EXAMPLES, max_term_width = 120)]
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
    Join(join::JoinArgs),
    Cert(cert::CertArgs),
    Ca(ca::CaArgs),
    ApiKey(api_key::ApiKeyArgs),
    Issuer(issuer::IssuerArgs),
    Grant(grant::GrantArgs),
    Group(group::GroupArgs),
    Access(access::AccessArgs),
    Mask(mask::MaskArgs),
    Limit(limit::LimitArgs),
    Usage(limit::UsageArgs),
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
    let matches = command().try_get_matches().unwrap_or_else(|error| {
        if error.use_stderr() {
            refuse();
        }
        error.exit()
    });
    let mut cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    cli.global.connection.note_sources(&matches);
    cli
}

/// Says what is wrong with the arguments as if no variable was set: clap takes a setting of the environment for one that was
/// given, and then names it among the options that were used, or takes a command without arguments for one that has some.
/// Comes back if it finds nothing wrong.
fn refuse() {
    let Err(error) = without_variables(command()).try_get_matches() else {
        return;
    };
    if error.kind() == ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand {
        // The help itself names the variables.
        let asked = std::env::args_os().chain([OsString::from("-h")]);
        if let Err(help) = command().try_get_matches_from(asked) {
            // There is nobody to tell if standard error is closed.
            let _ = write!(std::io::stderr().lock(), "{}", help.render());
            std::process::exit(i32::from(Exit::Usage as u8));
        }
    }
    error.exit()
}

fn without_variables(command: clap::Command) -> clap::Command {
    command
        .mut_args(|arg| arg.env(Resettable::<OsStr>::Reset))
        .mut_subcommands(without_variables)
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
        let connects = matches!(
            id,
            "profile" | "addr" | "ca" | "cert" | "key_file" | "token_file" | "api_key_file"
        );
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

    /// The words of a command line, as a shell takes them: a blank between single quotes parts nothing.
    fn words(line: &str) -> Vec<String> {
        let mut quoted = false;
        let parts = line.split(|c| {
            quoted ^= c == '\'';
            c == ' ' && !quoted
        });
        let words = parts.map(|word| word.replace('\'', ""));
        words.filter(|word| !word.is_empty()).collect()
    }

    /// The command lines that Markdown shows: in code blocks, with their continuations, and those in a pipe or after one.
    fn shown(markdown: &str) -> Vec<Vec<String>> {
        let joined = markdown.replace("\\\n", " ");
        let blocks = joined.split("```").skip(1).step_by(2);
        let lines = blocks.flat_map(|block| block.lines().skip(1));
        lines
            .flat_map(|line| line.split(" | "))
            .map(|part| {
                part.trim()
                    .trim_start_matches("$ ")
                    .trim_start_matches("# ")
            })
            .filter(|part| part.starts_with("fieldkeep "))
            .map(|part| words(part.split(['<', '>', '&', '#']).next().unwrap_or_default()))
            .collect()
    }

    #[test]
    fn every_command_line_of_the_documents_is_one() {
        let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut pages = vec![root.join("README.md")];
        pages.extend(
            root.join("docs")
                .read_dir()
                .unwrap()
                .map(|entry| entry.unwrap().path()),
        );
        pages.retain(|page| page.extension().is_some_and(|found| found == "md"));
        let mut count = 0;
        for page in pages {
            for line in shown(&std::fs::read_to_string(&page).unwrap()) {
                count += 1;
                if let Err(error) = command().try_get_matches_from(&line) {
                    panic!("{}: `{}`: {error}", page.display(), line.join(" "));
                }
            }
        }
        assert!(count > 30, "only {count} command lines were found");
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
