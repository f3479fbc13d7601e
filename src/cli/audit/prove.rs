//! `fieldkeep audit prove` and `checkpoint`: evidence to keep elsewhere.

use std::fs;
use std::path::PathBuf;

use clap::Args;
use fieldkeep_client::Client;
use fieldkeep_tlog::checkpoint::Checkpoint;
use fieldkeep_tlog::evidence::{ConsistencyProof, EvidenceError};
use fieldkeep_tlog::key::{KeyError, VerifierKey};
use fieldkeep_tlog::receipt::{Receipt, ReceiptError};

use crate::cli::failure::{Exit, Failure};
use crate::cli::output::{print_line, print_text};

#[derive(Debug, Args)]
pub(crate) struct ProveArgs {
    /// The record's index, or the receipt of a call
    #[arg(value_name = "INDEX|RECEIPT")]
    record: String,
    /// Write the proof to this file, not to standard output
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
}

/// Prints the proof of a record.
pub(crate) async fn prove(args: &ProveArgs, client: &Client) -> Result<(), Failure> {
    let usage = |problem: String| Failure::new(Exit::Usage, problem);
    let (index, leaf) = match args.record.parse::<u64>() {
        Ok(index) => (index, None),
        Err(_) => {
            let receipt: Receipt = args.record.parse().map_err(|error: ReceiptError| {
                usage(format!(
                    "`{}` is neither an index nor a receipt: {error}",
                    args.record
                ))
            })?;
            (receipt.index, Some(*receipt.leaf.as_bytes()))
        }
    };
    let failed = |error| Failure::from(error).while_doing("cannot prove the record");
    let proven = client.audit().prove(index, leaf).await.map_err(failed)?;
    match &args.out {
        None => print_text(&proven.proof),
        Some(path) => {
            fs::write(path, &proven.proof).map_err(|error| {
                let problem = format!("cannot write `{}`", path.display());
                Failure::new(Exit::Failed, problem).caused_by(&error)
            })?;
            print_line(format_args!(
                "wrote {}; check it with: fieldkeep audit verify --proof {} --key KEY",
                path.display(),
                path.display()
            ))
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct CheckpointArgs {
    /// Print the key that checkpoints are verified with. Keep it where nobody who has the service's disk can change it
    #[arg(long, conflicts_with = "since")]
    verifier_key: bool,
    /// Check that the log of this earlier checkpoint is a beginning of the present one
    #[arg(long, value_name = "FILE")]
    since: Option<PathBuf>,
}

/// Prints the newest checkpoint, or its key.
pub(crate) async fn checkpoint(args: &CheckpointArgs, client: &Client) -> Result<(), Failure> {
    let failed = |error| Failure::from(error).while_doing("cannot read the checkpoint");
    let Some(path) = &args.since else {
        let newest = client.audit().checkpoint().await.map_err(failed)?;
        return if args.verifier_key {
            print_line(newest.verifier_key)
        } else {
            print_text(&newest.checkpoint)
        };
    };
    let earlier = read_text(path)?;
    let proven = client
        .audit()
        .prove_consistency(&earlier)
        .await
        .map_err(failed)?;
    let refused = |error: &(dyn std::error::Error + 'static)| {
        Failure::new(Exit::Failed, "the service's proof does not hold").caused_by(error)
    };
    let key: VerifierKey = proven
        .verifier_key
        .parse()
        .map_err(|error: KeyError| refused(&error))?;
    let keys = [key];
    let old = Checkpoint::open(&earlier, &keys).map_err(|error| refused(&error))?;
    let proof: ConsistencyProof = proven
        .proof
        .parse()
        .map_err(|error: EvidenceError| refused(&error))?;
    let new = proof.verify(&old, &keys).map_err(|error| refused(&error))?;
    print_line(format_args!(
        "the log grew from {} to {} records, and its first {} are the same",
        old.head().size,
        new.head().size,
        old.head().size
    ))
}

/// A small text file.
pub(super) fn read_text(path: &std::path::Path) -> Result<String, Failure> {
    fs::read_to_string(path).map_err(|error| {
        let problem = format!("cannot read `{}`", path.display());
        Failure::new(Exit::Failed, problem).caused_by(&error)
    })
}
