//! `fieldkeep cert join-token|renew|revoke|list`: certificates while the service runs.

use std::path::Path;
use std::time::Duration;

use clap::{Args, Subcommand};
use fieldkeep_client::{Client, Kept};
use fieldkeep_proto::v1;
use serde_json::{Value, json};

use super::parse_ttl;
use crate::cli::confirm::ConfirmArgs;
use crate::cli::connection::ConnectionArgs;
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, print_json, print_line, print_list, rfc3339};
use crate::cli::pages::{LimitArgs, collect};

#[derive(Debug, Args)]
pub(super) struct JoinTokenArgs {
    #[command(subcommand)]
    verb: JoinTokenVerb,
}

#[derive(Debug, Subcommand)]
enum JoinTokenVerb {
    /// Make a token with which a new workload gets its first certificate, once
    ///
    /// It is shown here and never again. Whoever has it first becomes the identity, so give it to the workload alone, by a
    /// way that you trust. The certificate says only who; what the identity may do is decided apart from it.
    #[command(
        after_help = "Example:\n  fieldkeep cert join-token create app --tenant acme --ttl 10m"
    )]
    Create {
        /// The identity's name
        name: String,
        /// Its tenant [default: the caller's]
        #[arg(long)]
        tenant: Option<String>,
        /// How long it can be used: a number and s, m, h or d; at most 7d
        #[arg(long, default_value = "1h", value_parser = parse_ttl)]
        ttl: Duration,
    },
}

#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The serial number of one certificate, as the audit trail has it
    #[arg(required_unless_present = "identity", conflicts_with = "identity")]
    serial: Option<String>,
    /// Every certificate that this identity was issued until now
    #[arg(long, value_name = "NAME")]
    identity: Option<String>,
    /// The tenant [default: the caller's]
    #[arg(long)]
    tenant: Option<String>,
    #[command(flatten)]
    confirm: ConfirmArgs,
}

#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Of one tenant [default: of all]
    #[arg(long, default_value = "", hide_default_value = true)]
    tenant: String,
    #[command(flatten)]
    limit: LimitArgs,
}

/// Makes a join token.
pub(super) async fn join_token(
    args: JoinTokenArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let JoinTokenVerb::Create { name, tenant, ttl } = args.verb;
    let identity = resource(&name, tenant.as_deref());
    let doing = format!("cannot make a join token for `{identity}`");
    let made = client
        .certificates()
        .create_join_token(&identity, ttl)
        .await;
    let made = made.map_err(|error| Failure::from(error).while_doing(doing))?;
    let ends = made
        .expire_time
        .map_or(Value::Null, |time| rfc3339(time.seconds));
    if format == Format::Json {
        return print_json(&json!({
            "identity": made.identity,
            "token": made.token,
            "expire_time": ends,
            "ca_fingerprint": made.ca_fingerprint,
        }));
    }
    print_line(format_args!(
        "# Good once, until {}, for {}. On the new machine:",
        ends.as_str().unwrap_or("-"),
        made.identity
    ))?;
    print_line(format_args!("export FIELDKEEP_JOIN_TOKEN={}", made.token))?;
    print_line(format_args!(
        "fieldkeep join --out . --ca-pin {} --addr ADDRESS-OF-THE-SERVICE",
        made.ca_fingerprint
    ))
}

/// Renews the caller's own certificate.
pub(super) async fn renew(connection: &ConnectionArgs, format: Format) -> Result<(), Failure> {
    let client = connection.client_of_files()?;
    let (_, certificate, key) = connection.files();
    let text =
        |path: Option<&Path>| path.map_or_else(String::new, |path| path.display().to_string());
    let renewed = client.renew_identity().await;
    let renewed = renewed
        .map_err(|error| Failure::from(error).while_doing("cannot renew the certificate"))?;
    if let Kept::Memory(why) = renewed.kept {
        let why = why.as_deref().unwrap_or("they are not files");
        return Err(Failure::new(
            Exit::Failed,
            format_args!(
                "the certificate was renewed, but `{}` and `{}` were not replaced: {why}",
                text(certificate),
                text(key)
            ),
        )
        .help("run it as a user who may write there; the old certificate is good until it ends"));
    }
    let ends = rfc3339(renewed.expire_s);
    if format == Format::Json {
        return print_json(&json!({
            "certificate_file": text(certificate),
            "key_file": text(key),
            "expire_time": ends,
        }));
    }
    print_line(format_args!(
        "{} and {} are new, until {}",
        text(certificate),
        text(key),
        ends.as_str().unwrap_or("-")
    ))
}

/// Revokes.
pub(super) async fn revoke(
    args: RevokeArgs,
    client: &Client,
    format: Format,
) -> Result<(), Failure> {
    let tenant = args.tenant.as_deref();
    let effect = match (&args.identity, &args.serial) {
        (Some(name), _) => format!(
            "every certificate that `{}` has is refused at once, and its connections close; it can get new ones",
            resource(name, tenant)
        ),
        (None, serial) => format!(
            "the certificate {} is refused at once, and its connections close",
            serial.as_deref().unwrap_or_default()
        ),
    };
    if !args.confirm.go_on(&effect)? {
        return Ok(());
    }
    let certificates = client.certificates();
    let revoked = match (&args.identity, &args.serial) {
        (Some(name), _) => certificates.revoke_identity(&resource(name, tenant)).await,
        (None, serial) => {
            let tenant = tenant.map(|tenant| format!("tenants/{tenant}"));
            let serial = serial.as_deref().unwrap_or_default();
            certificates
                .revoke_serial(serial, &tenant.unwrap_or_default())
                .await
        }
    };
    let revoked = revoked.map_err(|error| Failure::from(error).while_doing("cannot revoke"))?;
    let ended = revoked.connections_ended;
    if format == Format::Json {
        let mut shown = object(&revoked.revocation.unwrap_or_default());
        if let Some(members) = shown.as_object_mut() {
            members.insert(String::from("connections_ended"), json!(ended));
        }
        return print_json(&shown);
    }
    print_line(format_args!(
        "revoked; open connections that this ended: {ended}"
    ))
}

/// Lists revocations.
pub(super) async fn list(args: ListArgs, client: &Client, format: Format) -> Result<(), Failure> {
    let parent = match args.tenant.as_str() {
        "" => String::new(),
        tenant => format!("tenants/{tenant}"),
    };
    let pages = client.certificates().revocations(&parent);
    let found = collect(pages, &args.limit, "list the revocations").await?;
    let rows: Vec<Value> = found.iter().map(object).collect();
    let columns = ["serial", "identity", "tenant", "revoked_by", "revoke_time"];
    print_list(format, &columns, &rows, "no revocations")
}

fn object(one: &v1::Revocation) -> Value {
    json!({
        "serial": one.serial,
        "identity": one.identity,
        "tenant": one.tenant,
        "revoked_by": one.revoked_by,
        "revoke_time": one.revoke_time.as_ref().map(|time| rfc3339(time.seconds)),
    })
}

fn resource(name: &str, tenant: Option<&str>) -> String {
    match tenant {
        Some(tenant) => format!("tenants/{tenant}/identities/{name}"),
        None => name.to_owned(),
    }
}
