//! `fieldkeep audit report` and `verify-report`: who did what and how much, over a range of time, signed by the log's key.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::slice;

use clap::{Args, ValueEnum};
use data_encoding::HEXLOWER;
use fieldkeep_client::Client;
use fieldkeep_proto::v1;
use fieldkeep_tlog::report::{ReportError, ReportSignature, ReportStatement};
use ring::digest::{Context, SHA256};
use serde_json::json;

use super::filter::parse_time;
use super::prove::read_text;
use super::records::time_text;
use super::verify::read_key;
use crate::cli::failure::{Exit, Failure, file_failure};
use crate::cli::output::{Format, print_bytes, print_json, print_line, shell_word};

#[derive(Debug, Args)]
pub(crate) struct ReportArgs {
    /// From this time on: `2026-11-28`, `2026-11-28T14:00:00Z`, or how long ago: `30d`
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    since: u64,
    /// Before this time; without it, up to now
    #[arg(long, value_name = "TIME", value_parser = parse_time)]
    until: Option<u64>,
    /// What to write
    #[arg(long = "as", value_name = "FORM", default_value = "text")]
    form: Form,
    /// Write to this file, not to standard output, and the signature beside it, to the same name with `.sig` behind it
    #[arg(long, alias = "out", value_name = "FILE")]
    output: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Form {
    /// For a terminal
    Text,
    /// All numbers, for programs
    Json,
    /// One page with plots, which needs nothing from elsewhere
    Html,
}

impl From<Form> for v1::ReportForm {
    fn from(form: Form) -> Self {
        match form {
            Form::Text => Self::Text,
            Form::Json => Self::Json,
            Form::Html => Self::Html,
        }
    }
}

/// Has the service make a report, and writes it with its signature.
pub(crate) async fn run(args: &ReportArgs, client: &Client) -> Result<(), Failure> {
    let request = v1::MakeReportRequest {
        start_time_us: args.since,
        end_time_us: args.until.unwrap_or(0),
        form: v1::ReportForm::from(args.form).into(),
    };
    let made = client
        .audit()
        .make_report(request)
        .await
        .map_err(|error| Failure::from(error).while_doing("cannot make the report"))?;
    let Some(path) = &args.output else {
        print_bytes(&made.report)?;
        let _ = writeln!(
            io::stderr(),
            "note: the report is signed; --output FILE writes it, and the signature beside it"
        );
        return Ok(());
    };
    let signature = signature_path(path);
    fs::write(path, &made.report).map_err(|error| file_failure("write", path, &error))?;
    fs::write(&signature, &made.signature)
        .map_err(|error| file_failure("write", &signature, &error))?;
    print_line(format_args!(
        "wrote {} and {}; check them with: fieldkeep audit verify-report {} --key KEY",
        path.display(),
        signature.display(),
        shell_word(&path.to_string_lossy())
    ))
}

/// Where the signature of a report stands.
fn signature_path(report: &Path) -> PathBuf {
    let mut path = OsString::from(report);
    path.push(".sig");
    path.into()
}

#[derive(Debug, Args)]
pub(crate) struct VerifyReportArgs {
    /// The report, as `audit report --output` wrote it
    #[arg(value_name = "FILE")]
    report: PathBuf,
    /// Its signature; without it, the file with the report's name and `.sig` behind it
    #[arg(long, value_name = "FILE")]
    signature: Option<PathBuf>,
    /// The log's verifier key, or a file with it: `audit checkpoint --verifier-key` prints it
    #[arg(long, value_name = "KEY|FILE")]
    key: String,
}

/// Verifies a report without a service, and says what that proves.
pub(crate) fn verify_report(args: &VerifyReportArgs, format: Format) -> Result<(), Failure> {
    let key = read_key(&args.key)?;
    let beside = || signature_path(&args.report);
    let path = args.signature.clone().unwrap_or_else(beside);
    let text = read_text(&path).map_err(|failure| {
        failure
            .help("--signature names the file that `audit report --output` wrote beside the report")
    })?;
    let refused = |error: ReportError| {
        Failure::new(Exit::Failed, "the report does not verify").caused_by(&error)
    };
    let signature: ReportSignature = text.parse().map_err(refused)?;
    let statement = signature
        .verify(sha256_of(&args.report)?, slice::from_ref(&key))
        .map_err(refused)?;
    print_verified(&args.report, &statement, format)
}

/// SHA-256 of a file.
fn sha256_of(path: &Path) -> Result<[u8; 32], Failure> {
    let mut hashing = Hashing(Context::new(&SHA256));
    File::open(path)
        .and_then(|mut file| io::copy(&mut file, &mut hashing))
        .map_err(|error| file_failure("read", path, &error))?;
    let mut sha256 = [0; 32];
    sha256.copy_from_slice(hashing.0.finish().as_ref());
    Ok(sha256)
}

/// Hashes what is written to it.
struct Hashing(Context);

impl io::Write for Hashing {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn print_verified(
    report: &Path,
    statement: &ReportStatement,
    format: Format,
) -> Result<(), Failure> {
    let ReportStatement {
        log,
        form,
        sha256,
        from_us,
        to_us,
        first,
        head,
    } = statement;
    if format == Format::Json {
        return print_json(&json!({
            "log": log.to_string(),
            "form": form.as_str(),
            "sha256": HEXLOWER.encode(sha256),
            "from_us": from_us,
            "to_us": to_us,
            "first": first,
            "checkpoint_size": head.size,
            "checkpoint_root": head.root.to_string(),
        }));
    }
    print_line(format_args!(
        "{} is, byte for byte, a report ({}) that the service with the log {log} made and signed",
        report.display(),
        form.as_str()
    ))?;
    print_line(format_args!(
        "it is about the calls from {} to just before {}",
        time_text(*from_us),
        time_text(*to_us)
    ))?;
    print_line(format_args!(
        "it rests on the log's checkpoint of {} records, root {}",
        head.size, head.root
    ))?;
    if *first > 0 {
        print_line(format_args!(
            "note: the records before {first} had been pruned, and are not in it"
        ))?;
    }
    print_line(
        "that its numbers are right is what the service says: whoever has the records can verify them with `audit verify`, and count again",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_signature_has_the_whole_name_of_the_report() {
        let of = |report: &str| signature_path(Path::new(report));
        assert_eq!(of("november.html"), Path::new("november.html.sig"));
        assert_eq!(of("reports/november"), Path::new("reports/november.sig"));
    }
}
