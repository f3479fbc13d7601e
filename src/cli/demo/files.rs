//! The demo's files: what is in them, and what must not be on the disk.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fieldkeep_client::Client;
use fieldkeep_crypto::ciphertext::{Ciphertext, decode_text};

use super::super::data::{ColumnChoice, Counts, Direction, Job, Shape, Source, Target, process};
use super::super::failure::{Exit, Failure, file_failure};
use super::super::progress::byte_progress;

/// The shipped customers, as `make_customers.py` wrote them.
pub(super) const CUSTOMERS: &[u8] = include_bytes!("customers.csv");

/// The columns that are encrypted.
pub(super) const COLUMNS: [&str; 6] = ["email", "phone", "ssn", "card_number", "iban", "notes"];

/// The rows that are shown, by id.
pub(super) const SHOWN: [&str; 4] = ["2", "11", "20", "25"];

/// A column as `fieldkeep data` takes it.
pub(super) fn choice(column: &str) -> ColumnChoice {
    ColumnChoice {
        column: column.to_owned(),
        key: None,
        field: format!("customer.{column}"),
    }
}

/// Runs a file through the pipeline of `fieldkeep data`.
pub(super) async fn convert(
    client: &Client,
    direction: Direction,
    key: Option<&str>,
    input: &Path,
    output: &Path,
) -> Result<(Counts, Duration), Failure> {
    let columns = COLUMNS.map(|column| ColumnChoice {
        key: key.map(str::to_owned),
        ..choice(column)
    });
    let context = "id"
        .parse()
        .map_err(|error| Failure::new(Exit::Failed, error))?;
    let job = Job {
        direction,
        shape: Shape::Csv,
        columns: columns.to_vec(),
        context: vec![context],
        parallel: 4,
    };
    let file = File::open(input).map_err(|error| file_failure("read", input, &error))?;
    let bar = byte_progress(
        "customers",
        file.metadata()
            .map(|metadata| metadata.len())
            .unwrap_or_default(),
    );
    let mut target = Target::create(output, false)?;
    let started = Instant::now();
    let source = Source::new(bar.wrap_read(file));
    let counts = process(job, source, &mut target, client, |_| Ok(())).await;
    bar.finish_and_clear();
    let counts = counts?;
    let elapsed = started.elapsed();
    target.finish()?;
    Ok((counts, elapsed))
}

/// One row: its values by column.
pub(super) type Row = BTreeMap<String, String>;

/// The rows of a file by id.
pub(super) fn rows(text: &[u8]) -> Result<BTreeMap<String, Row>, Failure> {
    let failed = |error: csv::Error| {
        Failure::new(Exit::Failed, "a file of the demo is not CSV").caused_by(&error)
    };
    let mut reader = csv::Reader::from_reader(text);
    let header = reader.headers().map_err(failed)?.clone();
    let mut rows = BTreeMap::new();
    for record in reader.records() {
        let record = record.map_err(failed)?;
        let row: Row = header
            .iter()
            .map(str::to_owned)
            .zip(record.iter().map(str::to_owned))
            .collect();
        rows.insert(row.get("id").cloned().unwrap_or_default(), row);
    }
    Ok(rows)
}

/// How many ciphertexts of a file each key version sealed.
pub(super) fn versions(rows: &BTreeMap<String, Row>) -> BTreeMap<u32, u64> {
    let mut counts = BTreeMap::new();
    let values = rows
        .values()
        .flat_map(|row| COLUMNS.iter().filter_map(|column| row.get(*column)));
    for bytes in values.filter_map(|value| decode_text(value).ok()) {
        if let Ok(ciphertext) = Ciphertext::parse(&bytes) {
            *counts.entry(ciphertext.version()).or_default() += 1;
        }
    }
    counts
}

/// What a search of the disk found.
#[derive(Debug, Default)]
pub(super) struct Search {
    /// Files that were read.
    pub(super) files: usize,
    /// Their bytes.
    pub(super) bytes: u64,
    /// Files in which one of the texts was found.
    pub(super) found: Vec<PathBuf>,
}

/// Searches every file below a directory, or one file, for texts.
pub(super) fn search(place: &Path, texts: &[String], search: &mut Search) -> Result<(), Failure> {
    let failed = |error: &std::io::Error| file_failure("read", place, error);
    if place.is_dir() {
        for entry in place.read_dir().map_err(|error| failed(&error))? {
            self::search(
                &entry.map_err(|error| failed(&error))?.path(),
                texts,
                search,
            )?;
        }
        return Ok(());
    }
    let bytes = std::fs::read(place).map_err(|error| failed(&error))?;
    search.files += 1;
    search.bytes += bytes.len() as u64;
    if texts.iter().any(|text| contains(&bytes, text.as_bytes())) {
        search.found.push(place.to_owned());
    }
    Ok(())
}

/// Whether `bytes` has `text` in it. Journals are mostly zeros, which are passed over quickly.
fn contains(bytes: &[u8], text: &[u8]) -> bool {
    let Some(first) = text.first() else {
        return true;
    };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|byte| byte == first) {
        rest = rest.get(at..).unwrap_or_default();
        if rest.starts_with(text) {
            return true;
        }
        rest = rest.get(1..).unwrap_or_default();
    }
    false
}

/// Writes the shipped customers to a file.
pub(super) fn write_customers(path: &Path) -> Result<(), Failure> {
    let written = File::create_new(path).and_then(|mut file| file.write_all(CUSTOMERS));
    written.map_err(|error| file_failure("write", path, &error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_customers_are_many_and_reach_nobody() {
        let rows = rows(CUSTOMERS).unwrap();
        assert_eq!(rows.len(), 3_000);
        assert!(SHOWN.iter().all(|id| rows.contains_key(*id)));
        for row in rows.values() {
            assert!(row["email"].ends_with("@example.com"));
            assert!(row["ssn"].starts_with('9'));
            assert!(row["iban"].is_empty() || row["iban"][2..].starts_with("00"));
            assert!(row["card_number"].is_empty() || !has_valid_check_digit(&row["card_number"]));
        }
        for needed in [
            &b"\r\n"[..],
            b"\"\"",
            b",,",
            "林".as_bytes(),
            "Ж".as_bytes(),
            "ل".as_bytes(),
        ] {
            assert!(contains(CUSTOMERS, needed), "{needed:?}");
        }
    }

    fn has_valid_check_digit(number: &str) -> bool {
        let digits = number.bytes().rev().map(|digit| u32::from(digit - b'0'));
        let sum: u32 = digits
            .enumerate()
            .map(|(i, d)| {
                if i % 2 == 0 {
                    d
                } else {
                    d * 2 / 10 + d * 2 % 10
                }
            })
            .sum();
        sum.is_multiple_of(10)
    }

    #[test]
    fn texts_are_found_wherever_they_stand() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("sub")).unwrap();
        std::fs::write(
            directory.path().join("sub/a"),
            b"\0\0\0@@examples@example.com",
        )
        .unwrap();
        std::fs::write(directory.path().join("b"), b"@example.co").unwrap();
        let mut found = Search::default();
        search(directory.path(), &["@example.com".into()], &mut found).unwrap();
        assert_eq!(
            (found.files, found.found),
            (2, vec![directory.path().join("sub/a")])
        );
    }
}
