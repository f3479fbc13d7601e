//! `fieldkeep audit verify`: a trail or a proof, checked offline.

use std::fs;
use std::path::{Path, PathBuf};

use clap::Args;
use fieldkeep_proto::v1::{AuditEntry, AuditRecord};
use fieldkeep_tlog::evidence::{EvidenceError, InclusionProof};
use fieldkeep_tlog::hash::Hash;
use fieldkeep_tlog::key::{KeyError, VerifierKey};
use fieldkeep_tlog::receipt::{Receipt, ReceiptError};
use prost::Message as _;
use serde_json::json;

use super::prove::read_text;
use super::records;
use crate::audit::verify::segment::verify_segment;
use crate::audit::verify::{Verified, VerifyError, Wanted, trail_in, verify};
use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{Format, print_json, print_line};
use crate::cli::progress::byte_progress;

#[derive(Debug, Args)]
pub(crate) struct VerifyArgs {
    /// The directory that `init` made, its `data` or its `data/audit`, or a copy of one; the service may be running
    #[arg(
        long,
        value_name = "DIR",
        required_unless_present = "proof",
        conflicts_with = "proof"
    )]
    dir: Option<PathBuf>,
    /// A proof that `audit prove` wrote
    #[arg(long, value_name = "FILE")]
    proof: Option<PathBuf>,
    /// The log's verifier key, or a file with it: `audit checkpoint --verifier-key` prints it
    #[arg(long, value_name = "KEY|FILE")]
    key: String,
    /// A checkpoint that was kept elsewhere, which the log must contain; can be given several times
    #[arg(long, value_name = "FILE", conflicts_with = "proof")]
    checkpoint: Vec<PathBuf>,
    /// The directory of the archive, to verify the records in it as well; without it, those that left count by their hashes alone
    #[arg(long, value_name = "DIR", conflicts_with_all = ["proof", "segment"])]
    archive: Option<PathBuf>,
    /// One segment of the trail alone, by the name of its file without `.seg`; for most other records their hashes in `tree` are taken
    #[arg(long, value_name = "SEGMENT", requires = "dir", value_parser = segment_id)]
    segment: Option<u64>,
    /// With --proof: the receipt that the record must be of
    #[arg(long, value_name = "RECEIPT", requires = "proof")]
    receipt: Option<String>,
}

fn segment_id(text: &str) -> Result<u64, String> {
    u64::from_str_radix(text, 16)
        .map_err(|_| String::from("the name of a segment is 16 hexadecimal digits"))
}

/// Verifies, and says what was found.
pub(crate) async fn run(args: VerifyArgs, format: Format) -> Result<(), Failure> {
    let key = read_key(&args.key)?;
    match (&args.proof, &args.dir) {
        (Some(proof), _) => check_proof(proof, args.receipt.as_deref(), &key, format),
        (None, Some(dir)) => {
            let notes: Result<Vec<String>, Failure> =
                args.checkpoint.iter().map(|path| read_text(path)).collect();
            let (dir, notes, archive) = (trail_in(dir), notes?, args.archive.clone());
            let segment = args.segment;
            let verified = tokio::task::spawn_blocking(move || {
                let wanted = Wanted {
                    dir: &dir,
                    key: &key,
                    checkpoints: &notes,
                    archive: archive.as_deref(),
                    seal: None,
                };
                check_trail(&wanted, segment)
            });
            let verified = verified.await.map_err(|error| {
                Failure::new(Exit::Failed, "the verification ended by a defect").caused_by(&error)
            })??;
            print_verified(&verified, format)
        }
        (None, None) => Err(Failure::new(Exit::Usage, "give --dir or --proof")),
    }
}

/// A verifier key that was given as it is, or as a file.
pub(super) fn read_key(given: &str) -> Result<VerifierKey, Failure> {
    let text = if Path::new(given).is_file() {
        read_text(Path::new(given))?
    } else {
        given.to_owned()
    };
    text.trim().parse().map_err(|error: KeyError| {
        let problem = format!("`{given}` is neither a verifier key nor a file with one");
        Failure::new(Exit::Usage, problem).caused_by(&error)
    })
}

fn check_trail(wanted: &Wanted<'_>, segment: Option<u64>) -> Result<Verified, Failure> {
    let verified = match segment {
        Some(segment) => verify_segment(wanted, segment),
        None => check_whole(wanted),
    };
    verified.map_err(|error| {
        Failure::new(Exit::Failed, "the audit trail does not verify").caused_by(&error)
    })
}

fn check_whole(wanted: &Wanted<'_>) -> Result<Verified, VerifyError> {
    let total = fs::read_dir(wanted.dir)
        .map(|entries| {
            let segments = entries.flatten().filter(|entry| {
                entry
                    .path()
                    .extension()
                    .is_some_and(|extension| extension == "seg")
            });
            segments
                .filter_map(|entry| entry.metadata().ok())
                .map(|file| file.len())
                .sum()
        })
        .unwrap_or(0);
    let bar = byte_progress("verifying", total);
    // What a frame needs beside its record, about.
    let verified = verify(wanted, &mut |records, bytes| {
        bar.set_position((bytes + records * 40).min(total));
    });
    bar.finish_and_clear();
    verified
}

fn print_verified(verified: &Verified, format: Format) -> Result<(), Failure> {
    let Verified {
        log,
        first,
        records,
        bytes,
        checkpoint,
        behind_checkpoint,
        wrong_tiles,
        torn,
        ..
    } = verified;
    if format == Format::Json {
        return print_json(&json!({
            "log": log.to_string(),
            "first": first,
            "records": records,
            "bytes": bytes,
            "checkpoint_size": checkpoint.size,
            "checkpoint_root": checkpoint.root.to_string(),
            "behind_checkpoint": behind_checkpoint,
            "wrong_tiles": wrong_tiles,
            "torn": torn,
        }));
    }
    print_line(format_args!(
        "log {log}: {records} records ({bytes} bytes) verify"
    ))?;
    if *first > 0 {
        print_line(format_args!(
            "the records before {first} are in an archive or were not read; their hashes verify"
        ))?;
    }
    print_line(format_args!(
        "the newest checkpoint is signed over {} records, root {}",
        checkpoint.size, checkpoint.root
    ))?;
    if *behind_checkpoint > 0 {
        print_line(format_args!(
            "note: {behind_checkpoint} records behind it are vouched for by the service's seals alone, which the next start checks"
        ))?;
    }
    if *wrong_tiles > 0 {
        print_line(format_args!(
            "note: the hashes kept beside {wrong_tiles} segments are not theirs; they are no evidence, and can be deleted"
        ))?;
    }
    if *torn {
        print_line("note: the log ends within a commit that nobody was told of")?;
    }
    Ok(())
}

fn check_proof(
    path: &Path,
    receipt: Option<&str>,
    key: &VerifierKey,
    format: Format,
) -> Result<(), Failure> {
    let failed = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Exit::Failed, "the proof does not verify").caused_by(error)
    };
    let proof: InclusionProof = read_text(path)?
        .parse()
        .map_err(|error: EvidenceError| failed(&error))?;
    let record = proof.extra().ok_or_else(|| {
        Failure::new(
            Exit::Failed,
            "the proof has no record in it; make it with `audit prove`",
        )
    })?;
    let leaf = Hash::of_leaf(record);
    let checkpoint = proof
        .verify(leaf, std::slice::from_ref(key))
        .map_err(|error| failed(&error))?;
    if let Some(text) = receipt {
        let receipt: Receipt = text.parse().map_err(|error: ReceiptError| {
            Failure::new(Exit::Usage, "the receipt cannot be read").caused_by(&error)
        })?;
        if receipt.leaf != leaf
            || receipt.index != proof.index()
            || receipt.log.origin() != checkpoint.origin()
        {
            return Err(Failure::new(
                Exit::Failed,
                "the proof is not of the call that the receipt is of",
            ));
        }
    }
    let record = AuditRecord::decode(record).map_err(|error| failed(&error))?;
    let entry = AuditEntry {
        index: proof.index(),
        record: Some(record),
    };
    if format == Format::Json {
        return print_json(&records::object(&entry)?);
    }
    print_line(format_args!(
        "record {} is in the log `{}` as of {} records:",
        proof.index(),
        checkpoint.origin(),
        checkpoint.head().size
    ))?;
    print_line(records::line(&entry))
}
