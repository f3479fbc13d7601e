//! Profiles: named connection settings in a file of the user's, and `fieldkeep profile`, which shows them.
//!
//! The file holds addresses and paths, never a secret.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Deserialize;
use serde_json::{Value, json};
use toml::Spanned;

use super::failure::{Exit, Failure, file_failure};
use super::output::{Format, print_list, print_object};

/// The profile that is used when none is named.
const DEFAULT_PROFILE: &str = "default";

/// Show the profiles: named connection settings, kept in a file.
///
/// The file is `fieldkeep/config.toml` in `$XDG_CONFIG_HOME`, or in `~/.config`. A profile is chosen with `--profile NAME` or
/// FIELDKEEP_PROFILE; the one named `default` is used if none is. Options come first, then FIELDKEEP_ variables, then the
/// profile. It holds addresses and paths alone, never a secret. Relative paths are relative to the file.
#[derive(Debug, Args)]
#[command(after_help = "\
Example of the file:
  [profiles.prod]
  address = \"https://keys.example.com:7421\"
  ca = \"prod/ca.pem\"
  cert = \"prod/ada.pem\"
  key = \"prod/ada.key\"               # or, instead of cert and key, token_file or api_key_file
  format = \"table\"                    # or \"json\"

Example:
  fieldkeep profile list && fieldkeep --profile prod status")]
pub(crate) struct ProfileArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// List the profiles
    #[command(after_help = "Example:\n  fieldkeep profile list")]
    List,
    /// Show a profile, its paths as they are used
    #[command(after_help = "Example:\n  fieldkeep profile show prod")]
    Show {
        /// The profile's name
        #[arg(default_value = DEFAULT_PROFILE)]
        name: String,
    },
}

/// The settings of a profile; its paths can be used as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Profile {
    /// The address of the service.
    pub(crate) address: Option<String>,
    /// Its CA certificate.
    pub(crate) ca: Option<PathBuf>,
    /// The caller's certificate.
    pub(crate) cert: Option<PathBuf>,
    /// The caller's private key.
    pub(crate) key: Option<PathBuf>,
    /// A token, instead of certificate and key.
    pub(crate) token_file: Option<PathBuf>,
    /// An API key, instead of certificate and key.
    pub(crate) api_key_file: Option<PathBuf>,
    /// How results are printed.
    pub(crate) format: Option<Format>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileFile {
    #[serde(default)]
    profiles: BTreeMap<String, ProfileSection>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProfileSection {
    address: Option<String>,
    ca: Option<Spanned<String>>,
    cert: Option<Spanned<String>>,
    key: Option<Spanned<String>>,
    token_file: Option<Spanned<String>>,
    api_key_file: Option<Spanned<String>>,
    format: Option<Format>,
}

/// The profile of that name, or the default one if there is one; no settings if there is none.
pub(crate) fn load(name: Option<&str>) -> Result<Profile, Failure> {
    let path = file_path();
    let (profiles, path) = match &path {
        Some(path) => (read(path)?, path.display().to_string()),
        None => (
            BTreeMap::new(),
            String::from("~/.config/fieldkeep/config.toml"),
        ),
    };
    match (profiles.get(name.unwrap_or(DEFAULT_PROFILE)), name) {
        (Some(profile), _) => Ok(profile.clone()),
        (None, None) => Ok(Profile::default()),
        (None, Some(name)) => Err(unknown(name, &profiles, &path)),
    }
}

fn unknown(name: &str, profiles: &BTreeMap<String, Profile>, path: &str) -> Failure {
    let there: Vec<&str> = profiles.keys().map(String::as_str).collect();
    let there = match there.as_slice() {
        [] => String::from("it has no profiles"),
        there => format!("its profiles are: {}", there.join(", ")),
    };
    Failure::new(
        Exit::NotFound,
        format_args!("there is no profile `{name}` in `{path}`"),
    )
    .help(format_args!(
        "{there}; a profile is a section [profiles.{name}], see `fieldkeep profile --help`"
    ))
}

/// Where the file is, whether it exists or not. None without a home directory.
fn file_path() -> Option<PathBuf> {
    let folder = |name| std::env::var_os(name).filter(|value: &OsString| !value.is_empty());
    // Relative ones are not valid, says the XDG specification.
    let xdg = folder("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute());
    let config = xdg.or_else(|| folder("HOME").map(|home| Path::new(&home).join(".config")))?;
    Some(config.join("fieldkeep/config.toml"))
}

/// The profiles of the file; none if there is no file.
fn read(path: &Path) -> Result<BTreeMap<String, Profile>, Failure> {
    match std::fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(BTreeMap::new()),
        Err(error) => {
            Err(file_failure("read", path, &error).while_doing("the profile file cannot be used"))
        }
    }
}

fn parse(path: &Path, text: &str) -> Result<BTreeMap<String, Profile>, Failure> {
    let wrong = |offset: usize, problem: &str| {
        let line = text.get(..offset).unwrap_or(text).matches('\n').count() + 1;
        Failure::new(
            Exit::Usage,
            format_args!("`{}`, line {line}: {problem}", path.display()),
        )
        .help("see `fieldkeep profile --help` for the form of the file")
    };
    let file: ProfileFile = toml::from_str(text)
        .map_err(|error| wrong(error.span().map_or(0, |span| span.start), error.message()))?;
    let used = |value: Option<Spanned<String>>| {
        value
            .map(|value| match value.get_ref().as_str() {
                "" => Err(wrong(value.span().start, "the path is empty")),
                text if text.contains("-----BEGIN") => Err(wrong(
                    value.span().start,
                    "write the path of the PEM file, not what is in it",
                )),
                text if is_credential(text) => Err(wrong(
                    value.span().start,
                    "write the path of the file, not what is in it",
                )),
                text => Ok(resolve(path, text)),
            })
            .transpose()
    };
    let profile = |section: ProfileSection| {
        if let (Some(_), Some(other)) = (&section.token_file, &section.api_key_file) {
            return Err(wrong(
                other.span().start,
                "name a token or an API key, not both",
            ));
        }
        Ok(Profile {
            address: section.address,
            ca: used(section.ca)?,
            cert: used(section.cert)?,
            key: used(section.key)?,
            token_file: used(section.token_file)?,
            api_key_file: used(section.api_key_file)?,
            format: section.format,
        })
    };
    file.profiles
        .into_iter()
        .map(|(name, section)| Ok((name, profile(section)?)))
        .collect()
}

/// Whether a text is a token or an API key, and no path.
fn is_credential(text: &str) -> bool {
    text.starts_with("fk_") || (text.starts_with("eyJ") && text.matches('.').count() == 2)
}

/// A path of the file: from the home directory, absolute, or relative to the file.
fn resolve(file: &Path, text: &str) -> PathBuf {
    if let (Some(rest), Some(home)) = (text.strip_prefix("~/"), std::env::home_dir()) {
        return home.join(rest);
    }
    file.parent().unwrap_or(Path::new("")).join(text)
}

const MEMBERS: [&str; 8] = [
    "name",
    "address",
    "ca",
    "cert",
    "key",
    "token_file",
    "api_key_file",
    "format",
];

/// Runs the verb.
pub(crate) fn run(args: &ProfileArgs, format: Format) -> Result<(), Failure> {
    match &args.verb {
        Verb::List => {
            let path = file_path();
            let profiles = path.as_deref().map(read).transpose()?.unwrap_or_default();
            let rows: Vec<Value> = profiles
                .iter()
                .map(|(name, profile)| object(name, profile))
                .collect();
            let place = path.map_or_else(
                || String::from("~/.config/fieldkeep/config.toml"),
                |path| path.display().to_string(),
            );
            let none =
                format!("no profiles: `{place}` would hold them, see `fieldkeep profile --help`");
            print_list(format, &MEMBERS, &rows, &none)
        }
        Verb::Show { name } => print_object(format, &MEMBERS, &object(name, &load(Some(name))?)),
    }
}

fn object(name: &str, profile: &Profile) -> Value {
    json!({
        "name": name,
        "address": profile.address,
        "ca": profile.ca,
        "cert": profile.cert,
        "key": profile.key,
        "token_file": profile.token_file,
        "api_key_file": profile.api_key_file,
        "format": profile.format.map(Format::as_str),
    })
}
