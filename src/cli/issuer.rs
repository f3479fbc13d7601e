//! `fieldkeep issuer`: the OpenID providers whose tokens are taken.

mod settings;

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use fieldkeep_client::{Client, reason};
use fieldkeep_proto::v1;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use self::settings::{IssuerFile, SettingArgs};
use super::confirm::ConfirmArgs;
use super::failure::{Exit, Failure, file_failure};
use super::output::{Format, print_json, print_line, print_list, print_object, rfc3339};

/// The longest token that is sent to be checked, bytes.
const MAX_TOKEN_BYTES: u64 = 64 * 1024;

/// Take tokens of OpenID providers, which say who a caller is.
#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  fieldkeep issuer add login --url https://login.example.com --audience fieldkeep --tenant acme --groups-claim groups
  fieldkeep issuer check login token.jwt
  fieldkeep grant create support --group --tenant acme --role decrypter
  fieldkeep --token-file token.jwt encrypt --key pii --field email")]
pub(crate) struct IssuerArgs {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Take the tokens of an issuer, at once
    ///
    /// A token says who the caller is and which groups it is in; what it may do is granted as for all others. Whoever controls the
    /// issuer can become anybody of its tenants, up to its ceiling. Then it is tried whether its keys can be fetched.
    #[command(after_help = "\
Examples:
  fieldkeep issuer add login --url https://login.example.com --audience fieldkeep --tenant acme --groups-claim groups
  fieldkeep issuer add k8s --url https://kubernetes.default.svc --root k8s-ca.pem --audience fieldkeep --tenant acme --name-rule escape
  fieldkeep issuer add login --file issuer.toml --replace

Example of a file, with paths relative to it:
  url = \"https://login.example.com\"
  audiences = [\"fieldkeep\"]
  algorithms = [\"RS256\"]                 # what is left out has the default of the option
  tenants = [\"acme\", \"globex\"]
  tenant_claim = \"org\"                   # or tenant = \"acme\"
  groups_claim = \"/realm_access/roles\"
  scopes = { \"fields:read\" = \"support\" }
  ceiling = \"decrypter\"
  max_age_seconds = 3600")]
    Add {
        /// The issuer's name here
        name: String,
        /// The settings, TOML, instead of options
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        #[command(flatten)]
        settings: Box<SettingArgs>,
        /// Take the place of the issuer of this name; tokens are verified anew
        #[arg(long)]
        replace: bool,
    },
    /// List the issuers
    #[command(after_help = "Example:\n  fieldkeep issuer list")]
    List,
    /// Show an issuer
    #[command(after_help = "Example:\n  fieldkeep issuer show login --format json")]
    Show {
        /// The issuer's name here
        name: String,
    },
    /// Say whom a token would name, or why it is refused
    ///
    /// The service verifies the token as it would on a call, and does nothing with it. A caller with a refused token is not told why.
    /// Without a token it says whether the issuer's keys can be fetched.
    #[command(after_help = "\
Examples:
  fieldkeep issuer check login token.jwt
  fieldkeep issuer check login - < token.jwt
  fieldkeep issuer check login")]
    Check {
        /// The issuer's name here
        name: String,
        /// A file with the token; `-`: standard input
        token: Option<PathBuf>,
    },
    /// Take the tokens of an issuer no longer
    #[command(after_help = "Example:\n  fieldkeep issuer remove login")]
    Remove {
        /// The issuer's name here
        name: String,
        #[command(flatten)]
        confirm: ConfirmArgs,
    },
}

const COLUMNS: [&str; 6] = [
    "name",
    "url",
    "tenants",
    "audiences",
    "groups_claim",
    "ceiling",
];

const MEMBERS: [&str; 23] = [
    "name",
    "url",
    "jwks_url",
    "root_certificate",
    "audiences",
    "algorithms",
    "token_types",
    "tenants",
    "tenant",
    "tenant_claim",
    "name_claim",
    "name_rule",
    "groups_claim",
    "scope_claim",
    "scopes",
    "acr_values",
    "amr_values",
    "ceiling",
    "cross_tenant",
    "leeway_seconds",
    "max_age_seconds",
    "set_by",
    "set_time",
];

const ANSWER: [&str; 6] = [
    "accepted",
    "identity",
    "groups",
    "second_factor",
    "expire_time",
    "keys",
];

/// Runs the verb.
pub(crate) async fn run(args: IssuerArgs, client: &Client, format: Format) -> Result<(), Failure> {
    match args.verb {
        Verb::Add {
            name,
            file,
            settings,
            replace,
        } => {
            let settings = match file {
                Some(_) if settings.are_given() => {
                    return Err(Failure::new(
                        Exit::Usage,
                        "--file holds all settings, so no other option goes with it",
                    ));
                }
                Some(file) => IssuerFile::read(&file)?,
                None => settings.into_file()?,
            };
            add(client, settings.into_issuer(&name)?, replace, format).await
        }
        Verb::List => {
            let issuers = client.issuers().list().await;
            let issuers = issuers
                .map_err(|error| Failure::from(error).while_doing("cannot list the issuers"))?;
            let rows: Vec<Value> = issuers.iter().map(object).collect();
            print_list(format, &COLUMNS, &rows, "no issuers: no tokens are taken")
        }
        Verb::Show { name } => {
            let doing = format!("cannot show the issuer `{name}`");
            let issuer = client.issuers().show(&name).await;
            let issuer = issuer.map_err(|error| Failure::from(error).while_doing(doing))?;
            print_object(format, &MEMBERS, &object(&issuer))
        }
        Verb::Check { name, token } => {
            let token = token.as_deref().map(read_token).transpose()?;
            let token = token.as_deref().map(String::as_str);
            check(client, &name, token, format).await
        }
        Verb::Remove { name, confirm } => {
            let effect =
                format!("every call with a token of the issuer `{name}` is refused at once");
            if !confirm.go_on(&effect)? {
                return Ok(());
            }
            let doing = format!("cannot remove the issuer `{name}`");
            let removed = client.issuers().remove(&name).await;
            removed.map_err(|error| Failure::from(error).while_doing(doing))?;
            match format {
                Format::Json => print_json(&json!({ "name": name, "removed": true })),
                Format::Table => {
                    print_line(format_args!("tokens of `{name}` are not taken any more"))
                }
            }
        }
    }
}

async fn add(
    client: &Client,
    issuer: v1::Issuer,
    replace: bool,
    format: Format,
) -> Result<(), Failure> {
    let name = issuer.name.clone();
    let doing = || format!("cannot add the issuer `{name}`");
    if !replace {
        match client.issuers().show(&name).await {
            Ok(_) => {
                return Err(Failure::new(Exit::Conflict, "there is one of this name")
                    .while_doing(doing())
                    .help(
                        "--replace puts this one in its place, `fieldkeep issuer show` shows it",
                    ));
            }
            Err(error) if error.reason() == Some(reason::SETTING_NOT_FOUND) => {}
            Err(error) => return Err(Failure::from(error).while_doing(doing())),
        }
    }
    let set = client.issuers().set(issuer).await;
    let set = set.map_err(|error| Failure::from(error).while_doing(doing()))?;
    print_object(format, &MEMBERS, &object(&set))?;
    let looked = client.issuers().check_token(&name, "").await;
    let problem = match looked {
        Ok(answer) if answer.keys > 0 => return Ok(()),
        Ok(answer) => why_no_keys(&answer),
        Err(error) => error.to_string(),
    };
    // It is set, and its keys may be there in a minute; so this is no failure.
    // Nothing is left to tell if standard error is closed.
    let _ = writeln!(
        std::io::stderr().lock(),
        "warning: the issuer is set, and its keys could not be fetched, without which no token is taken: {problem}\n  \
         try again with `fieldkeep issuer check {name}`"
    );
    Ok(())
}

fn why_no_keys(answer: &v1::CheckTokenResponse) -> String {
    match answer.fetch_problem.as_str() {
        "" => String::from("the service's log says why"),
        problem => problem.to_owned(),
    }
}

async fn check(
    client: &Client,
    name: &str,
    token: Option<&str>,
    format: Format,
) -> Result<(), Failure> {
    let doing = format!("cannot check a token of the issuer `{name}`");
    let answer = client
        .issuers()
        .check_token(name, token.unwrap_or_default())
        .await;
    let answer = answer.map_err(|error| Failure::from(error).while_doing(doing))?;
    if format == Format::Json {
        print_json(&json!({
            "accepted": answer.accepted,
            "identity": answer.identity,
            "groups": answer.groups,
            "second_factor": answer.second_factor,
            "expire_time": answer.expire_time.as_ref().map(|time| rfc3339(time.seconds)),
            "rule": answer.rule,
            "message": answer.message,
            "keys": answer.keys,
            "fetch_problem": answer.fetch_problem,
        }))?;
    } else if answer.accepted {
        let object = json!({
            "accepted": true,
            "identity": answer.identity,
            "groups": answer.groups,
            "second_factor": answer.second_factor,
            "expire_time": answer.expire_time.as_ref().map(|time| rfc3339(time.seconds)),
            "keys": answer.keys,
        });
        print_object(format, &ANSWER, &object)?;
    } else if token.is_none() && answer.keys > 0 {
        print_line(format_args!("the service has its keys: {}", answer.keys))?;
    }
    if answer.accepted || (token.is_none() && answer.keys > 0) {
        return Ok(());
    }
    if answer.keys == 0 {
        let failure = Failure::new(Exit::Unavailable, "the issuer's keys cannot be fetched");
        return Err(failure.help(why_no_keys(&answer)));
    }
    Err(Failure::new(Exit::Refused, &answer.message)
        .while_doing(format_args!("the token is refused (`{}`)", answer.rule)))
}

/// The token of a file, or of standard input if it is `-`.
fn read_token(path: &Path) -> Result<Zeroizing<String>, Failure> {
    let mut text = Zeroizing::new(String::new());
    let read = if path == Path::new("-") {
        std::io::stdin()
            .take(MAX_TOKEN_BYTES)
            .read_to_string(&mut text)
    } else {
        std::fs::File::open(path)
            .and_then(|file| file.take(MAX_TOKEN_BYTES).read_to_string(&mut text))
    };
    read.map_err(|error| file_failure("read", path, &error))?;
    match text.trim() {
        "" => Err(Failure::new(
            Exit::Invalid,
            format_args!("`{}` is empty", path.display()),
        )),
        token => Ok(Zeroizing::new(token.to_owned())),
    }
}

fn object(issuer: &v1::Issuer) -> Value {
    let scopes = issuer.scopes.iter();
    let scopes: Vec<String> = scopes
        .map(|one| format!("{}={}", one.scope, one.group))
        .collect();
    json!({
        "name": issuer.name,
        "url": issuer.url,
        "jwks_url": issuer.jwks_url,
        "root_certificate": issuer.root_certificate_pem,
        "audiences": issuer.audiences,
        "algorithms": issuer.algorithms,
        "token_types": issuer.token_types,
        "tenants": issuer.tenants,
        "tenant": issuer.tenant,
        "tenant_claim": issuer.tenant_claim,
        "name_claim": issuer.name_claim,
        "name_rule": issuer.name_rule,
        "groups_claim": issuer.groups_claim,
        "scope_claim": issuer.scope_claim,
        "scopes": scopes,
        "acr_values": issuer.acr_values,
        "amr_values": issuer.amr_values,
        "ceiling": issuer.ceiling,
        "cross_tenant": issuer.cross_tenant,
        "leeway_seconds": issuer.leeway_seconds,
        "max_age_seconds": issuer.max_age_seconds,
        "set_by": issuer.set_by,
        "set_time": issuer.set_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}
