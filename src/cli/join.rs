//! `fieldkeep join`: the first certificate of a new workload.

use std::path::{Path, PathBuf};

use clap::Args;
use fieldkeep_client::{Joined, ServiceCa, join};
use serde_json::json;

use super::cert::write_file;
use super::connection::{ConnectionArgs, export_lines};
use super::failure::{Exit, Failure, file_failure};
use super::output::{Format, print_json, print_line, rfc3339};

/// Get the first certificate of a new workload, with a join token.
///
/// The private key is made here and never leaves this machine. Writes NAME.key (readable by its owner alone), NAME.pem and
/// ca.pem. The SDK renews the certificate from then on; people use `fieldkeep cert renew`.
#[derive(Debug, Args)]
#[command(
    after_help = "Example, with the token in FIELDKEEP_JOIN_TOKEN:\n  fieldkeep join --addr https://keys.example.com:7420 --ca-pin sha256:... --out identity"
)]
pub(crate) struct JoinArgs {
    /// The token that `fieldkeep cert join-token create` printed
    #[arg(long, env = "FIELDKEEP_JOIN_TOKEN", hide_env_values = true)]
    token: String,
    /// The fingerprint of the service's CA certificate, which it printed too; without it, --ca
    #[arg(long, value_name = "sha256:HEX")]
    ca_pin: Option<String>,
    /// The directory to write to; made if it is not there
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Replace the files if they exist
    #[arg(long)]
    force: bool,
}

/// Whose name the new files will have is known only when the token is used up; it would be a pity to find then that another key
/// is in the way.
fn refuse_other_keys(folder: &Path) -> Result<(), Failure> {
    let unreadable = |error| file_failure("read the directory", folder, &error);
    for entry in std::fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|ending| ending == "key") {
            let what = format_args!("there is a private key already, `{}`", path.display());
            return Err(Failure::new(Exit::Conflict, what)
                .help("choose another --out; with --force one of the same name is replaced"));
        }
    }
    Ok(())
}

/// Writes the pair. Files that are there are replaced in the way of the SDK, which may be using them: no crash leaves a key and
/// a certificate that do not belong together and nothing to mend them by.
fn write_pair(
    joined: &Joined,
    certificate: &Path,
    key: &Path,
    replace: bool,
) -> Result<(), Failure> {
    if replace {
        return joined
            .replace_files(certificate, key)
            .map_err(|error| file_failure("replace", key, &error));
    }
    write_file(key, &joined.key_pem, 0o600, false)?;
    write_file(certificate, &joined.certificate_pem, 0o644, false)
}

/// Runs the verb.
pub(crate) async fn run(
    args: JoinArgs,
    connection: &ConnectionArgs,
    format: Format,
) -> Result<(), Failure> {
    let pem;
    let ca = match (&args.ca_pin, connection.files().0) {
        (Some(pin), _) => ServiceCa::parse_pin(pin).ok_or_else(|| {
            Failure::new(
                Exit::Usage,
                "--ca-pin is not `sha256:` and 64 hexadecimal digits",
            )
        })?,
        (None, Some(path)) => {
            pem = std::fs::read(path).map_err(|error| file_failure("read", path, &error))?;
            ServiceCa::Pem(&pem)
        }
        (None, None) => {
            return Err(Failure::new(
                Exit::Usage,
                "neither --ca-pin nor --ca is given, so that the service could be anybody",
            )
            .help("give the fingerprint that was printed with the token"));
        }
    };
    // Before the token is used up.
    std::fs::create_dir_all(&args.out)
        .map_err(|error| file_failure("make the directory", &args.out, &error))?;
    if !args.force {
        refuse_other_keys(&args.out)?;
    }
    let joined = join(connection.address(), ca, &args.token).await;
    let joined = joined.map_err(|error| Failure::from(error).while_doing("cannot join"))?;
    let name = joined.identity.rsplit('/').next().unwrap_or("identity");
    let path = |ending: &str| args.out.join(format!("{name}.{ending}"));
    let (key, certificate, ca) = (path("key"), path("pem"), args.out.join("ca.pem"));
    write_pair(&joined, &certificate, &key, args.force)?;
    if std::fs::read(&ca).ok().as_deref() != Some(joined.ca_pem.as_bytes()) {
        write_file(&ca, &joined.ca_pem, 0o644, args.force)?;
    }
    let ends = rfc3339(joined.expire_s);
    if format == Format::Json {
        return print_json(&json!({
            "identity": joined.identity,
            "key_file": key.display().to_string(),
            "certificate_file": certificate.display().to_string(),
            "ca_file": ca.display().to_string(),
            "expire_time": ends,
        }));
    }
    print_line(format_args!(
        "# {}, until {}. To act as it:",
        joined.identity,
        ends.as_str().unwrap_or("-")
    ))?;
    let lines = export_lines(connection.address(), &ca, &certificate, &key);
    print_line(lines.trim_end())
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::os::unix::fs::PermissionsExt;

    use zeroize::Zeroizing;

    use super::*;

    fn joined(text: &str) -> Joined {
        Joined {
            identity: String::from("tenants/acme/identities/app"),
            certificate_pem: format!("certificate {text}"),
            key_pem: Zeroizing::new(format!("key {text}")),
            ca_pem: String::from("ca"),
            expire_s: 0,
        }
    }

    #[test]
    fn a_pair_is_replaced_when_asked_and_by_one_process_at_a_time() {
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("app.pem"), folder.path().join("app.key"));
        let texts = || {
            let read = |path| fs::read_to_string(path).unwrap();
            (read(&certificate), read(&key))
        };
        let one = (String::from("certificate one"), String::from("key one"));
        write_pair(&joined("one"), &certificate, &key, false).unwrap();
        write_pair(&joined("two"), &certificate, &key, false).unwrap_err();
        assert_eq!(texts(), one);

        // The SDK of a running workload has this lock while it renews.
        let lock = File::create(folder.path().join("app.key.lock")).unwrap();
        lock.try_lock().unwrap();
        write_pair(&joined("two"), &certificate, &key, true).unwrap_err();
        assert_eq!(texts(), one);
        drop(lock);

        write_pair(&joined("two"), &certificate, &key, true).unwrap();
        let two = (String::from("certificate two"), String::from("key two"));
        assert_eq!(texts(), two);
        assert_eq!(key.metadata().unwrap().permissions().mode() & 0o777, 0o600);
        assert!(!folder.path().join("app.pem.new").exists());
    }
}
