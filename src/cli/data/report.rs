//! What `data` says at the end.

use std::path::Path;
use std::time::Duration;

use indicatif::DecimalBytes;
use serde_json::json;

use super::super::failure::Failure;
use super::super::output::{Format, count_of, print_line, thousands};
use super::input::named;
use super::transform::{Counts, Direction};

/// What is being done, for the progress bar.
pub(super) fn doing(direction: Direction) -> &'static str {
    match direction {
        Direction::Encrypt => "encrypting",
        Direction::Decrypt { .. } => "decrypting",
        Direction::ReEncrypt { dry_run: true, .. } => "counting",
        Direction::ReEncrypt { .. } => "re-encrypting",
    }
}

/// What was done to values, and what was so already.
fn words(direction: Direction) -> (&'static str, &'static str) {
    match direction {
        Direction::Encrypt => ("encrypted", "encrypted already"),
        Direction::Decrypt { .. } => ("decrypted", ""),
        Direction::ReEncrypt { dry_run: true, .. } => ("behind", "current"),
        Direction::ReEncrypt { .. } => ("re-encrypted", "current already"),
    }
}

/// Prints the summary: to standard output, or to standard error if the rows went there.
pub(super) fn print(
    format: Format,
    direction: Direction,
    counts: Counts,
    elapsed: Duration,
    output: Option<&Path>,
) -> Result<(), Failure> {
    let dry_run = matches!(direction, Direction::ReEncrypt { dry_run: true, .. });
    let output = named(output);
    let text = match format {
        Format::Json => as_json(direction, counts, elapsed, output),
        Format::Table => {
            let name = match (dry_run, output) {
                (true, _) => String::from("nothing written"),
                (false, Some(path)) => path.display().to_string(),
                (false, None) => String::from("standard output"),
            };
            format!("{name}: {}", as_text(direction, counts, elapsed))
        }
    };
    if output.is_none() && !dry_run {
        eprintln!("{text}");
        return Ok(());
    }
    print_line(text)
}

fn rate(count: u64, elapsed: Duration) -> u64 {
    (count as f64 / elapsed.as_secs_f64().max(0.001)).round() as u64
}

fn as_json(
    direction: Direction,
    counts: Counts,
    elapsed: Duration,
    output: Option<&Path>,
) -> String {
    let mut summary = json!({
        "output": output.map(|path| path.display().to_string()),
        "rows": counts.rows,
        "values": counts.values,
        "already": counts.already,
        "masked": counts.masked,
        "empty": counts.empty,
        "left": counts.left,
        "resumed_rows": counts.resumed,
        "bytes": counts.bytes,
        "seconds": elapsed.as_millis() as f64 / 1_000.0,
        "rows_per_second": rate(counts.rows, elapsed),
        "values_per_second": rate(counts.values + counts.already, elapsed),
    });
    if let (Direction::ReEncrypt { dry_run: true, .. }, Some(members)) =
        (direction, summary.as_object_mut())
    {
        members.insert(String::from("behind"), counts.values.into());
        members.insert(String::from("values"), 0.into());
    }
    format!("{summary:#}")
}

fn as_text(direction: Direction, counts: Counts, elapsed: Duration) -> String {
    let (done, already) = words(direction);
    let mut parts = vec![
        count_of(counts.rows, "row"),
        format!("{} {done}", count_of(counts.values, "value")),
    ];
    let others = [
        (
            counts.masked,
            "of them masked, which is all that this identity may see",
        ),
        (counts.already, already),
        (counts.empty, "empty"),
        (counts.left, "left as before"),
        (counts.resumed, "rows from the run before"),
    ];
    parts.extend(
        others
            .iter()
            .filter(|(count, _)| *count > 0)
            .map(|(count, what)| format!("{} {what}", thousands(*count))),
    );
    // In less than a second the rate says more of the start than of the work.
    let rates = if elapsed.as_secs() == 0 {
        String::new()
    } else {
        format!(
            " ({} rows/s, {} values/s)",
            thousands(rate(counts.rows, elapsed)),
            thousands(rate(counts.values + counts.already, elapsed)),
        )
    };
    format!(
        "{}; {} in {:.1} s{rates}",
        parts.join(", "),
        DecimalBytes(counts.bytes),
        elapsed.as_secs_f64(),
    )
}
