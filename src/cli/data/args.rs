//! The arguments of `fieldkeep data`.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};

use super::columns::{ColumnChoice, ContextChoice};
use super::row::Shape;

/// Encrypt, decrypt, re-encrypt or look through columns of CSV and JSON lines files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  fieldkeep data encrypt --input customers.csv --output sealed.csv \\
      --column email=pii:customer.email --column ssn=pii:customer.ssn --context id
  zcat orders.jsonl.gz | fieldkeep data encrypt --input-format jsonl \\
      --column 'items[*].card=pii:order.card' --context id > sealed.jsonl")]
pub(crate) struct DataArgs {
    #[command(subcommand)]
    pub(super) verb: Verb,
}

#[derive(Debug, Subcommand)]
pub(super) enum Verb {
    /// Encrypt columns of a file
    ///
    /// The file is RFC 4180 text with a header (CSV), or one JSON value a line. Everything but the chosen columns stays as
    /// it is, byte for byte, and `data decrypt` restores the rest. Empty values and null stay as they are. A value that is
    /// encrypted already, that is, opens with the same field and context, stays as it is, so that a run can be repeated. The
    /// output file appears when it is complete, and is readable by its owner alone.
    #[command(after_help = "\
Examples:
  fieldkeep data encrypt --input customers.csv --output sealed.csv \\
      --column email=pii:customer.email --column ssn=pii:customer.ssn --context id
  fieldkeep data encrypt --input orders.jsonl.zst --output sealed.jsonl.zst \\
      --column customer.email=pii:customer.email \\
      --column 'items[*].card=pii:order.card' --context id")]
    Encrypt(FileArgs),
    /// Decrypt columns of a file
    ///
    /// Field and context columns must be those the file was encrypted with. A value that does not open ends the command
    /// and no file is written, unless --keep-going is given. The output file is readable by its owner alone.
    #[command(after_help = "\
Example:
  fieldkeep data decrypt --input sealed.csv --output opened.csv \\
      --column email=pii:customer.email --column ssn=pii:customer.ssn --context id")]
    Decrypt(OpenArgs),
    /// Bring columns of an encrypted file under the primary version of their key
    ///
    /// The plaintext never leaves the service. Values whose header names the primary version stay as they are and are not
    /// sent. A run from file to file that is interrupted leaves what it has done beside the output, and the same command
    /// goes on from there.
    #[command(after_help = "\
Examples:
  fieldkeep data reencrypt --input sealed.csv --dry-run \\
      --column email=pii:customer.email --context id
  fieldkeep data reencrypt --input sealed.csv --output renewed.csv \\
      --column email=pii:customer.email --context id")]
    Reencrypt(ReencryptArgs),
    /// Count what the columns of a file hold, by key and version
    ///
    /// Only what ciphertexts say of themselves is read: nothing is decrypted, and no right to decrypt is needed. With the
    /// connection of an admin, keys are shown by name; else by handle.
    #[command(after_help = "\
Examples:
  fieldkeep data scan --input sealed.csv
  fieldkeep data scan --input orders.jsonl.gz --column customer.email --column 'items[*].card' --format json")]
    Scan(ScanArgs),
}

/// Which file, and how it is read.
#[derive(Debug, Args)]
pub(super) struct InputArgs {
    /// The file to read, `.gz` and `.zst` too; `-` is standard input [default: standard input]
    #[arg(long, value_name = "FILE")]
    pub(super) input: Option<PathBuf>,
    /// How the input is written [default: by its extension, .csv or .jsonl, else csv]
    #[arg(
        long,
        value_name = "csv|jsonl",
        value_enum,
        hide_possible_values = true
    )]
    pub(super) input_format: Option<InputFormat>,
}

/// How an input is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum InputFormat {
    /// RFC 4180 with a header.
    Csv,
    /// One JSON value a line.
    #[value(alias = "ndjson", alias = "json")]
    Jsonl,
}

#[derive(Debug, Args)]
pub(super) struct FileArgs {
    #[command(flatten)]
    pub(super) input: InputArgs,
    /// The file to write, compressed if it ends in `.gz` or `.zst`; `-` is standard output [default: standard output, if it
    /// is no terminal]
    #[arg(long, value_name = "FILE")]
    pub(super) output: Option<PathBuf>,
    /// A column with its key and field, as in email=pii:customer.email; may be given several times. In JSON lines a path:
    /// a.b[0].c, or items[*].email for each
    #[arg(long = "column", value_name = "COLUMN=KEY:FIELD", required = true)]
    pub(super) columns: Vec<ColumnChoice>,
    /// A column that binds each row, so that a value moved to another row does not open; may be given several times.
    /// NAME=COLUMN if the column's name is no context name
    #[arg(long, value_name = "COLUMN", required_unless_present = "no_context")]
    pub(super) context: Vec<ContextChoice>,
    /// Bind values to their field alone: rows can then be swapped unnoticed
    #[arg(long, conflicts_with = "context")]
    pub(super) no_context: bool,
    /// Treat values of JSON lines as their JSON text, whatever their type: numbers, true, false, objects and arrays too
    #[arg(long)]
    pub(super) json_values: bool,
    /// Replace the output if it exists
    #[arg(long)]
    pub(super) force: bool,
    /// Batches under way at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(super) parallel: u16,
}

#[derive(Debug, Args)]
pub(super) struct OpenArgs {
    #[command(flatten)]
    pub(super) file: FileArgs,
    #[command(flatten)]
    pub(super) keep: KeepArgs,
}

#[derive(Debug, Args)]
pub(super) struct KeepArgs {
    /// Leave values and rows that cannot be worked on as they are; the exit code is then 5
    #[arg(long)]
    pub(super) keep_going: bool,
    /// Write what was left and why to this file, a line of JSON each [default: the first ten to standard error]
    #[arg(long, value_name = "FILE", requires = "keep_going")]
    pub(super) errors: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(super) struct ReencryptArgs {
    #[command(flatten)]
    pub(super) open: OpenArgs,
    /// Only count the values that are behind; write nothing
    #[arg(long, conflicts_with_all = ["output", "force"])]
    pub(super) dry_run: bool,
}

#[derive(Debug, Args)]
pub(super) struct ScanArgs {
    #[command(flatten)]
    pub(super) input: InputArgs,
    /// A column, or a path in JSON lines; may be given several times [default for CSV: every column]
    #[arg(long = "column", value_name = "COLUMN")]
    pub(super) columns: Vec<String>,
}

impl InputArgs {
    /// The form of the input: what was said, else what the names of input and output say, else CSV.
    pub(super) fn shape(&self, output: Option<&PathBuf>, json_values: bool) -> Shape {
        let by_name = || {
            let names = self.input.iter().chain(output);
            names
                .filter_map(|path| super::input::is_json_lines(path))
                .next()
        };
        let is_json_lines = match self.input_format {
            Some(format) => format == InputFormat::Jsonl,
            None => by_name().unwrap_or(false),
        };
        match is_json_lines {
            true => Shape::JsonLines { json_values },
            false => Shape::Csv,
        }
    }
}
